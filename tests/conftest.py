"""Settings that must be in place before Numba is imported, and one deterministic hypothesis profile."""

import hashlib
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent


def _loops_hash():
    """Name the loops by their source: Numba's disk cache misses edits of helpers in other files."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "rmtntk" / "_jit").glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"rmtntk-numba-{_loops_hash()}"))

settings.register_profile(
    "rmtntk",
    deadline=None,  # the first example compiles loops
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rmtntk")
