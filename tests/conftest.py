"""Settings that must be in place before Numba is imported, and one deterministic hypothesis profile."""

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

# outside the tree; `rmtntk/_jit/_options.py` keeps it from being stale, and test_startup.py checks that
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / "rmtntk-numba"))

settings.register_profile(
    "rmtntk",
    deadline=None,  # the first example compiles loops
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rmtntk")
