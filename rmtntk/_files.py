"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its name only if the block ends without an error.

    Interrupted in any way short of a kill, nothing is left behind; killed, only a ``.tmp`` file is.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`path` must be in an existing directory, got {target}")
    # Not tempfile: its files are readable by their owner only, and keep that when renamed.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
