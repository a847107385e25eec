"""Raw inputs to integers, and what to do with those out of range."""

import math
import sys
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._jit import bitplane
from rmtntk._threads import Numbers, get_num_threads, run
from rmtntk._validation import check_choice, check_data, check_integer, check_real

__all__ = ["InputQuantiser", "OutOfRange", "OutOfRangeWarning", "Outside", "check_quantiser", "quantise"]

_ROWS = 512
_ONE_THREAD = 1 << 22  # fewer entries are not worth a second thread

OutOfRange = Literal["error", "clip"]


class OutOfRangeWarning(UserWarning):
    """Inputs were outside the quantiser's range and have been cut to it; the message says how many."""


class InputQuantiser(NamedTuple):
    """Raw inputs become integers: code = rint((x − low)/step), 0 ≤ code < 2^bits; bits ≤ 8."""

    bits: int
    low: float
    step: float

    @property
    def largest(self) -> int:
        """Largest code."""
        return (1 << self.bits) - 1


class Outside:
    """Entries outside a quantiser's range, counted over the batches of one call."""

    def __init__(self) -> None:
        self.total = 0
        self.size = 0
        self.smallest = math.inf
        self.largest = -math.inf

    def add(self, data: NDArray[Any], total: int) -> None:
        """Count a batch with `total` entries outside."""
        self.total += total
        self.size += data.size
        if total:
            self.smallest = min(self.smallest, float(data.min()))
            self.largest = max(self.largest, float(data.max()))

    def describe(self, quantiser: InputQuantiser) -> str:
        """Return how many of how many, and the extremes that are outside."""
        low, high = np.rint((np.array([self.smallest, self.largest]) - quantiser.low) / quantiser.step)
        extremes = [f"smallest {self.smallest:g}"] if low < 0 else []
        extremes += [f"largest {self.largest:g}"] if high > quantiser.largest else []
        return f"{self.total} of {self.size} entries outside ({', '.join(extremes)})"

    def warn(self, quantiser: InputQuantiser) -> None:
        """Warn with their number, if there are any, at the line outside of this package that asked for the call."""
        if self.total:
            high = quantiser.low + quantiser.step * quantiser.largest
            warnings.warn(
                f"`x` has been cut to the quantiser's range [{quantiser.low:g}, {high:g}]: {self.describe(quantiser)}",
                OutOfRangeWarning,
                stacklevel=_level_outside(),
            )


def _level_outside() -> int:
    """`stacklevel` for a warning of the caller: that of the nearest frame outside of this package."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


def check_quantiser(quantiser: InputQuantiser) -> InputQuantiser:
    """Return the quantiser with its fields checked."""
    if not isinstance(quantiser, InputQuantiser):
        raise TypeError(f"`quantiser` must be an InputQuantiser(bits, low, step), got {quantiser!r}")
    bits = check_integer(quantiser.bits, "quantiser.bits", low=1, high=8)
    low = check_real(quantiser.low, "quantiser.low")
    step = check_real(quantiser.step, "quantiser.step", low=0.0, open_low=True)
    return InputQuantiser(bits, low, step)


def quantise(
    quantiser: InputQuantiser, x: ArrayLike, *, out_of_range: OutOfRange = "error", outside: Outside | None = None
) -> NDArray[np.uint8]:
    """Return the codes rint((x − low)/step) of raw inputs, shape (n, p).

    Parameters
    ----------
    quantiser : InputQuantiser
        Bits, low and step.
    x : array_like, shape (n, p)
        Raw inputs.
    out_of_range : {"error", "clip"}
        What to do with entries whose code is not in 0 … 2^bits − 1: raise, or cut them to the range and warn.
    outside : Outside, optional
        Where entries that were cut are counted, for the caller to warn of at the end.

    Raises
    ------
    ValueError
        If entries are out of range; the message has their number and the range.

    Warns
    -----
    OutOfRangeWarning
        If entries were cut and `outside` is not given; the message has their number.
    """
    quantiser = check_quantiser(quantiser)
    check_choice(out_of_range, "out_of_range", ("error", "clip"))
    if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 2 and x.size:
        codes, total = _quantise_bytes(quantiser, x)
        _report(quantiser, x, total, out_of_range, outside)
        return codes
    data = check_data(x, keep_float32=True)
    codes = np.empty(data.shape, dtype=np.uint8)
    starts = range(0, len(data), _ROWS)
    counts = [0] * len(starts)

    def task(_: int) -> None:
        for number in numbers:
            part = slice(starts[number], starts[number] + _ROWS)
            block = data[part].astype(np.float64, copy=False)
            counts[number] = bitplane.quantise(
                block, quantiser.low, quantiser.step, float(quantiser.largest), codes[part]
            )

    numbers = Numbers(len(starts))
    run(task, 1 if data.size < _ONE_THREAD else min(get_num_threads(), len(starts)), numbers)
    _report(quantiser, data, sum(counts), out_of_range, outside)
    return codes


def _quantise_bytes(quantiser: InputQuantiser, x: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Codes of bytes by a table of all 256, and how many are outside."""
    values = np.rint((np.arange(256.0) - quantiser.low) / quantiser.step)
    table = np.clip(values, 0, quantiser.largest).astype(np.uint8)
    outside = table != values
    total = int(outside[x].sum()) if outside.any() else 0
    return np.ascontiguousarray(x) if (table == np.arange(256)).all() else table[x], total


def _report(
    quantiser: InputQuantiser, data: NDArray[Any], total: int, out_of_range: OutOfRange, outside: Outside | None
) -> None:
    """Raise, or count where the caller says, or warn."""
    found = Outside() if outside is None or out_of_range == "error" else outside
    found.add(data, total)
    if total and out_of_range == "error":
        high = quantiser.low + quantiser.step * quantiser.largest
        raise ValueError(
            f"`x` must be in the quantiser's range [{quantiser.low:g}, {high:g}] to within half a step of "
            f'{quantiser.step:g}, got {found.describe(quantiser)}: rescale the data, or pass out_of_range="clip" '
            "(rmtntk predict: --out-of-range clip) to cut them"
        )
    if outside is None:
        found.warn(quantiser)
