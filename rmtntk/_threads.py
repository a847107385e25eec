"""Our threads: how many there are, and the lock that lets one large computation use them at a time.

Compiled loops release the interpreter lock and are run by ordinary Python threads. No loop of rmtntk uses Numba's
own thread pool: its GNU OpenMP layer kills forked children and its ``workqueue`` aborts the process when two Python
threads enter parallel loops at once (numba issue 8563).
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from numba.core import config

from rmtntk._blas import one_blas_thread
from rmtntk._validation import check_integer

__all__ = ["get_num_threads", "run", "set_num_threads"]

_lock = threading.RLock()
_count: int | None = None


def get_num_threads() -> int:
    """Return how many threads kernels use: what was set, else Numba's default.

    That default is the environment's ``NUMBA_NUM_THREADS``, which joblib sets in its workers, or the number of usable
    cores.
    """
    return _count if _count is not None else int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def set_num_threads(count: int | None) -> None:
    """Set how many threads kernels use in this process; None means the default again.

    Results do not depend on it, to the last bit. While a kernel is computed, BLAS has one thread in each of these.

    Raises
    ------
    TypeError, ValueError
        If `count` is not a positive integer or None.
    """
    global _count
    _count = None if count is None else check_integer(count, "count", low=1)


def run(task: Callable[[int], None], count: int) -> None:
    """Call task(0), …, task(count − 1), each in a thread of its own, and wait for all; the first error is raised.

    Meanwhile BLAS has one thread, and computations that want more than one wait for each other.
    """
    if count == 1:
        task(0)
        return
    with _lock, one_blas_thread(), ThreadPoolExecutor(count - 1, thread_name_prefix="rmtntk") as pool:
        futures = [pool.submit(task, k) for k in range(1, count)]
        task(0)
        for future in futures:
            future.result()


def _after_fork() -> None:
    """A child inherits the lock as it was, but not the thread that would release it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
