"""``python -m rmtntk``."""

import sys

from rmtntk.cli import main

if __name__ == "__main__":
    sys.exit(main())
