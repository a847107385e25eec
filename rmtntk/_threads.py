"""Our threads: how many there are, and the lock that lets one large computation use them at a time.

Compiled loops release the interpreter lock and are run by ordinary Python threads. No loop of rmtntk uses Numba's
own thread pool: its GNU OpenMP layer kills forked children and its ``workqueue`` aborts the process when two Python
threads enter parallel loops at once (numba issue 8563).
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
from numba.core import config

from rmtntk._blas import one_blas_thread
from rmtntk._validation import check_integer

__all__ = ["Numbers", "get_num_threads", "run", "set_num_threads"]

_lock = threading.RLock()
_count: int | None = None


def get_num_threads() -> int:
    """Return how many threads kernels use: what was set, else a default.

    The default is the environment's ``NUMBA_NUM_THREADS``, which joblib sets in its workers. Without it, it is the
    number of usable cores, but 1 in a process that `multiprocessing` started, since its siblings want the others.
    """
    if _count is not None:
        return _count
    if "NUMBA_NUM_THREADS" not in os.environ and _is_child():
        return 1
    # Numba sets the names of this module at import, where no type checker sees them.
    return int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set at import


def _is_child() -> bool:
    process = sys.modules.get("multiprocessing.process")  # loaded in every child, forked or spawned
    return process is not None and process.parent_process() is not None


def set_num_threads(count: int | None) -> None:
    """Set how many threads kernels use in this process; None means the default again.

    Results do not depend on it, to the last bit. While a kernel is computed, BLAS has one thread in each of these.
    Forked children have the parent's number; spawned ones start with the default.

    Raises
    ------
    TypeError, ValueError
        If `count` is not a positive integer or None.
    """
    global _count
    _count = None if count is None else check_integer(count, "count", low=1)


class Numbers:
    """0, …, size − 1, each handed to one of the threads that iterate over it; it can be ended early."""

    def __init__(self, size: int) -> None:
        self._left = iter(range(size))  # its steps are atomic
        self._stopped = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self._stopped:
            raise StopIteration
        return next(self._left)

    def stop(self) -> None:
        """Hand out no more."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether work in progress should be given up as well."""
        return self._stopped


def run(task: Callable[[int], None], count: int, numbers: Numbers | None = None) -> None:
    """Call task(0), …, task(count − 1), each in a thread of its own, and wait for all; the first error is raised.

    An error in one, or an interrupt of the calling thread, stops `numbers`, over which tasks iterate. Meanwhile BLAS
    has one thread, and computations that want more than one wait for each other. Floating-point warnings are off:
    NumPy's settings are those of a thread, and results must not depend on which one works.
    """
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            with one_blas_thread(), np.errstate(all="ignore"):
                task(k)
        except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
            errors.append(error)
            if numbers is not None:
                numbers.stop()

    if count == 1:
        work(0)
    else:
        with _lock:
            _side_by_side(work, count, numbers)
    if errors:
        errors.sort(key=lambda error: isinstance(error, Exception))  # an interrupt first, else the first error
        error = errors[0]
        errors.clear()  # a traceback holds its frames, and they would hold it
        try:
            raise error
        finally:
            del error


def _side_by_side(work: Callable[[int], None], count: int, numbers: Numbers | None) -> None:
    """Run work(0) here and the others in threads; if interrupted, leave only when those have ended."""
    threads: list[threading.Thread] = []
    own = [0]
    try:
        for k in range(1, count):
            thread = threading.Thread(target=work, args=(k,), name=f"rmtntk-{k}")
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads, or the interpreter is shutting down
                own.append(k)
            else:
                threads.append(thread)
        for k in own:
            work(k)
        for thread in threads:
            thread.join()
    except BaseException:
        if numbers is not None:
            numbers.stop()
        for thread in threads:
            thread.join()
        raise


def _after_fork() -> None:
    """A child inherits the lock as it was, but not the thread that would release it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
