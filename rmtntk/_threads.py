"""One lock around Numba's parallel loops.

Numba's ``workqueue`` threading layer aborts the process when two Python threads enter parallel loops at
once (numba issue 8563), and which layer is in use depends on the machine. Every parallel loop of rmtntk
therefore runs inside :func:`parallel_loops`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()


@contextmanager
def parallel_loops() -> Iterator[None]:
    """Hold the process-wide lock while a parallel loop runs."""
    with _LOCK:
        yield
