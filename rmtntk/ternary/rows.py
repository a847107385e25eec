"""The rows of one call: from memory or disk, a batch at a time, checked and taken through the network."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_choice, check_data
from rmtntk.integer import OutOfRange, Outside
from rmtntk.ternary.forward import Forward

__all__ = ["BATCH", "Rows", "check_rows"]

BATCH = 4096


class Rows:
    """Rows (n, p) of a call's `x`; iteration gives every batch of 4096 with its place.

    Entries cut to the quantiser's range are counted over all batches; :meth:`warn` is for the end of the call.

    Raises
    ------
    ValueError
        If `x` is not a matrix of the network's columns; arrays of more than a batch, on disk or not, are checked batch
        by batch.
    """

    def __init__(self, forward: Forward, x: Any, out_of_range: OutOfRange) -> None:
        check_choice(out_of_range, "out_of_range", ("error", "clip"))
        self._forward = forward
        self._x = x if _is_large(x) else check_rows(forward, x, "x")
        self._out_of_range = out_of_range
        self._outside = Outside()

    def __len__(self) -> int:
        return int(self._x.shape[0])

    def __iter__(self) -> Iterator[tuple[slice, AnyArray]]:
        for start in range(0, len(self), BATCH):
            place = slice(start, min(start + BATCH, len(self)))
            whole = place.stop - start == len(self)
            block = self._x if whole else check_rows(self._forward, self._x[place], f"x[{start}:{place.stop}]")
            yield place, block

    @property
    def n_features(self) -> int:
        """Number of features d of a row."""
        return self._forward.packed[-1].shape[0]

    def features(self, block: AnyArray) -> FloatArray:
        """Return the features (m, d) of a batch."""
        return self._forward(block, out_of_range=self._out_of_range, outside=self._outside)

    def warn(self) -> None:
        """Warn, once, if entries of the batches so far have been cut."""
        if self._forward.quantiser is not None:
            self._outside.warn(self._forward.quantiser)


def check_rows(forward: Forward, x: Any, name: str) -> AnyArray:
    """Return `x` as a matrix of the network's columns; bytes as they are where inputs are quantised.

    Raises
    ------
    ValueError
        If it is not one, or not finite.
    """
    raw = forward.quantiser is not None and isinstance(x, np.ndarray) and x.dtype == np.uint8
    data: AnyArray = x if raw and x.ndim == 2 and x.size else check_data(x, name)
    columns = forward.packed[0].shape[1]
    if data.shape[1] != columns:
        raise ValueError(f"`{name}` must have the model's {columns} features, got {data.shape[1]}")
    return data


def _is_large(x: Any) -> bool:
    """Whether `x` has rows to slice and more of them than a batch."""
    sliceable = isinstance(x, np.ndarray) or all(hasattr(x, name) for name in ("shape", "dtype", "__getitem__"))
    return sliceable and not hasattr(x, "toarray") and len(x.shape) == 2 and x.shape[0] > BATCH
