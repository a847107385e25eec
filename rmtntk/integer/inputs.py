"""Raw inputs to integers, and what to do with those out of range."""

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._jit import bitplane
from rmtntk._threads import Numbers, get_num_threads, run
from rmtntk._validation import check_choice, check_data, check_integer, check_real

__all__ = ["InputQuantiser", "OutOfRange", "OutOfRangeWarning", "check_quantiser", "quantise"]

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


def check_quantiser(quantiser: InputQuantiser) -> InputQuantiser:
    """Return the quantiser with its fields checked."""
    if not isinstance(quantiser, InputQuantiser):
        raise TypeError(f"`quantiser` must be an InputQuantiser(bits, low, step), got {quantiser!r}")
    bits = check_integer(quantiser.bits, "quantiser.bits", low=1, high=8)
    low = check_real(quantiser.low, "quantiser.low")
    step = check_real(quantiser.step, "quantiser.step", low=0.0, open_low=True)
    return InputQuantiser(bits, low, step)


def quantise(quantiser: InputQuantiser, x: ArrayLike, *, out_of_range: OutOfRange = "error") -> NDArray[np.uint8]:
    """Return the codes rint((x − low)/step) of raw inputs, shape (n, p).

    Parameters
    ----------
    quantiser : InputQuantiser
        Bits, low and step.
    x : array_like, shape (n, p)
        Raw inputs.
    out_of_range : {"error", "clip"}
        What to do with entries whose code is not in 0 … 2^bits − 1: raise, or cut them to the range and warn.

    Raises
    ------
    ValueError
        If entries are out of range; the message has their number and the range.

    Warns
    -----
    OutOfRangeWarning
        If entries were cut; the message has their number.
    """
    quantiser = check_quantiser(quantiser)
    check_choice(out_of_range, "out_of_range", ("error", "clip"))
    if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 2 and x.size:
        return _quantise_bytes(quantiser, x, out_of_range)
    data = check_data(x, keep_float32=True)
    codes = np.empty(data.shape, dtype=np.uint8)
    starts = range(0, len(data), _ROWS)
    outside = [0] * len(starts)

    def task(_: int) -> None:
        for number in numbers:
            part = slice(starts[number], starts[number] + _ROWS)
            block = data[part].astype(np.float64, copy=False)
            outside[number] = bitplane.quantise(
                block, quantiser.low, quantiser.step, float(quantiser.largest), codes[part]
            )

    numbers = Numbers(len(starts))
    run(task, 1 if data.size < _ONE_THREAD else min(get_num_threads(), len(starts)), numbers)
    _check_range(quantiser, data, sum(outside), out_of_range)
    return codes


def _quantise_bytes(quantiser: InputQuantiser, x: NDArray[np.uint8], out_of_range: OutOfRange) -> NDArray[np.uint8]:
    """Codes of bytes by a table of all 256."""
    values = np.rint((np.arange(256.0) - quantiser.low) / quantiser.step)
    table = np.clip(values, 0, quantiser.largest).astype(np.uint8)
    outside = table != values
    if outside.any():
        _check_range(quantiser, x, int(outside[x].sum()), out_of_range)
    return np.ascontiguousarray(x) if (table == np.arange(256)).all() else table[x]


def _check_range(quantiser: InputQuantiser, data: NDArray[Any], total: int, out_of_range: OutOfRange) -> None:
    if total:
        high = quantiser.low + quantiser.step * quantiser.largest
        found = f"{total} of {data.size} entries outside (smallest {data.min():g}, largest {data.max():g})"
        if out_of_range == "error":
            raise ValueError(
                f"`x` must be in the quantiser's range [{quantiser.low:g}, {high:g}] to within half a step of "
                f'{quantiser.step:g}, got {found}: rescale the data, or pass out_of_range="clip" to cut them'
            )
        warnings.warn(
            f"`x` has been cut to the quantiser's range [{quantiser.low:g}, {high:g}]: {found}",
            OutOfRangeWarning,
            stacklevel=3,
        )
