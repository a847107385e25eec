"""One BLAS thread for the time of a computation that has threads of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through the loaded libraries, NumPy's BLAS among them


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every BLAS in the process to one thread, and give it back what it had.

    Threads of a BLAS go on spinning for a while after each product, on the cores that the caller's threads want.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield
