"""One BLAS thread for the time of a computation that has threads of its own."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]

_lock = threading.Lock()
_holders = 0
_found: list[tuple[Any, int]] = []  # libraries with one number for the whole process, and what the first holder found


@lru_cache(maxsize=1)
def _libraries() -> tuple[list[Any], list[Any]]:
    """Return the loaded BLAS libraries: those with one number of threads for the process, those with one a thread."""
    shared: list[Any] = []
    apart: list[Any] = []
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        per_thread = hasattr(library, "clear_controlling_thread") and library.threading_layer == "openmp"
        (apart if per_thread else shared).append(library)
    return shared, apart


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every BLAS to one thread in this thread, and give it back what it had when the last holder has gone.

    Threads of a BLAS go on spinning for a while after each product, on the cores that the caller's threads want; and
    for small products starting them costs more than they save.
    """
    global _holders, _found
    shared, apart = _libraries()
    own = [(library, library.get_num_threads()) for library in apart]
    with _lock:
        if _holders == 0:
            _found = [(library, library.get_num_threads()) for library in shared]
            _set([(library, 1) for library in shared])
        _holders += 1
    try:
        _set([(library, 1) for library in apart])
        yield
    finally:
        _set(own)
        with _lock:
            if _holders > 0:  # else this is a child forked inside, which has them back
                _holders -= 1
                if _holders == 0:
                    _set(_found)


def _set(numbers: list[tuple[Any, int]]) -> None:
    """Set numbers of threads, and let go: threadpoolctl 3.8 ignores all threads but the one that set OpenBLAS's last.

    A limiter of threadpoolctl cannot do that, since the last holder may be another thread than the first.
    """
    for library, number in numbers:
        library.set_num_threads(number)
    for library, _ in numbers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread()


def _after_fork() -> None:
    """A child has none of the parent's other threads: none of them holds the BLAS or the lock."""
    global _lock, _holders
    _lock = threading.Lock()
    if _holders > 0:
        _holders = 0
        _set(_found)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
