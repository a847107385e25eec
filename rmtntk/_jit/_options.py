"""The one way loops are compiled."""

import os
from collections.abc import Callable
from typing import Any

import numba

_CACHE = os.environ.get("RMTNTK_CACHE", "1") != "0"


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's njit, lazily compiled, cached on disk unless the environment says RMTNTK_CACHE=0.

    ``error_model="numpy"``: a division by zero gives inf or nan, as in NumPy. No fastmath anywhere: it would
    fold isnan() to False.
    """
    return numba.njit(cache=_CACHE, error_model="numpy", nogil=True, **options)
