"""Coercion and checks of arguments: the only place that turns input into arrays and numbers.

Anything that NumPy or DLPack can read will do (pandas, memory maps, Zarr, Dask, tensors on the CPU); arrays of the
right type, order and alignment are not copied. Every message names the argument, what is required and what came.
"""

import numbers
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray, IntArray, Seed

__all__ = [
    "as_generator",
    "check_array",
    "check_choice",
    "check_columns",
    "check_data",
    "check_dtype",
    "check_integer",
    "check_labels",
    "check_pair",
    "check_real",
    "check_square",
    "check_squares",
    "check_widths",
    "label_list",
    "squared_norms",
    "to_host",
]

_HOST = (1, 3, 11, 13)  # DLPack's devices whose memory the CPU reads: kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged
_UNREADABLE = (TypeError, ValueError, RuntimeError, BufferError, AttributeError, NotImplementedError)


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except _UNREADABLE:
        return False
    return True


def _elsewhere(value: Any) -> str:
    """Return the name of the device that holds an array if it is none that the CPU reads; else nothing."""
    device = getattr(value, "device", None)
    try:
        kind, number = value.__dlpack_device__()
    except _UNREADABLE:  # none, or a device that DLPack does not know
        found = getattr(device, "type", "cpu")
        return str(device) if isinstance(found, str) and found != "cpu" else ""
    return "" if int(kind) in _HOST else str(device) if device is not None else f"device {int(kind)}:{number} of DLPack"


def to_host(value: Any, name: str) -> Any:
    """Return `value` itself if NumPy can read it, or a view of its memory if only DLPack can.

    Raises
    ------
    TypeError
        If it is a tensor that requires gradients, or one in the memory of another device: neither is copied unasked.
    """
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__") or _has_buffer(value):
        return value
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"`{name}` must not require gradients, which do not pass through rmtntk, got a {type(value).__name__} that "
            f"does: pass {name}.detach()"
        )
    device = _elsewhere(value)
    if device:
        raise TypeError(
            f"`{name}` must be in the CPU's memory, got a {type(value).__name__} on {device}: pass {name}.cpu(), or "
            "another copy that NumPy can read"
        )
    if any(hasattr(value, way) for way in ("__array__", "__array_interface__", "__array_struct__")):
        return value
    try:
        return np.from_dlpack(value)
    except _UNREADABLE as error:
        raise _not_an_array(value, name, error) from error


def _not_an_array(value: Any, name: str, error: Exception) -> TypeError:
    return TypeError(f"`{name}` must be what NumPy makes an array of, got a {type(value).__name__}: {error}")


def _as_float_array(value: ArrayLike, name: str, *, keep_float32: bool = False) -> AnyArray:
    if hasattr(value, "toarray"):  # SciPy's sparse matrices, of which NumPy would make an array of one object
        raise TypeError(f"`{name}` must be a dense array, got a sparse {type(value).__name__}: pass {name}.toarray()")
    given = to_host(value, name)
    try:
        array = np.asarray(given)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"`{name}` must be a rectangular array of real numbers: {error}") from None
    except (TypeError, RuntimeError, BufferError) as error:
        raise _not_an_array(value, name, error) from error
    if array.dtype.kind == "c":
        raise TypeError(f"`{name}` must be real, got {array.dtype} values: pass real and imaginary parts apart")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"`{name}` must hold numbers, got dtype {array.dtype}: convert it with astype(float)")
    if isinstance(array, np.ma.MaskedArray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must not be a masked array: fill or drop the masked entries first")
    if keep_float32 and array.dtype == np.float32:
        return np.asarray(array)
    with np.errstate(over="ignore"):  # of wider types; infinities are refused later
        return np.asarray(array, dtype=np.float64)


def _check_finite(array: AnyArray, name: str) -> None:
    # A sum is finite only if every entry is (or if it overflows, which the slow path then tells apart).
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()
    if not np.isfinite(total):
        bad = ~np.isfinite(array)
        if bad.any():
            where = tuple(int(k) for k in np.argwhere(bad)[0])
            raise ValueError(
                f"`{name}` must be finite, got {array[where]} at index {where} "
                f"({int(bad.sum())} of {array.size} entries are NaN or infinite)"
            )


def check_array(value: ArrayLike, name: str, ndim: int, *, keep_float32: bool = False, finite: bool = True) -> AnyArray:
    """Return a finite float64 array of `ndim` dimensions with no empty axis; float32 may stay so."""
    array = _as_float_array(value, name, keep_float32=keep_float32)
    if array.ndim != ndim:
        raise ValueError(f"`{name}` must have {ndim} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {array.shape}")
    if finite:
        _check_finite(array, name)
    return array


def check_data(value: ArrayLike, name: str = "x", *, keep_float32: bool = False, finite: bool = True) -> AnyArray:
    """Return samples as a finite, C-contiguous array of shape (n_samples, n_features), float64 unless kept float32."""
    array = _as_float_array(value, name, keep_float32=keep_float32)
    if array.ndim == 1:
        raise ValueError(
            f"`{name}` must have samples in rows, shape (n_samples, n_features), got shape {array.shape}: "
            f"reshape with {name}[None, :] for one sample, {name}[:, None] for one feature"
        )
    checked = check_array(array, name, 2, keep_float32=keep_float32, finite=finite)
    # BLAS rounds rows out of alignment (arrays out of a message) in another order.
    return np.require(checked, requirements=("C", "A"))


def check_columns(value: ArrayLike, name: str, n: int) -> tuple[FloatArray, bool]:
    """Return right sides, one or several, as a finite C-contiguous array (n, k) in float64, and whether it was (n,)."""
    array = _as_float_array(value, name)
    checked = check_array(array, name, 1 if array.ndim == 1 else 2)
    if len(checked) != n:
        raise ValueError(f"`{name}` must have one row per sample, {n}, got shape {checked.shape}")
    return np.ascontiguousarray(checked.reshape(n, -1)), array.ndim == 1


def check_pair(
    x: ArrayLike, y: ArrayLike | None, *, keep_float32: bool = False, finite: bool = True
) -> tuple[AnyArray, AnyArray | None]:
    """Return `x` and, if given, `y` as samples over the same features, both float32 or both float64.

    Callers that take :func:`squared_norms` next, which looks for NaN and infinity as well, say ``finite=False``.
    """
    x = check_data(x, "x", keep_float32=keep_float32, finite=finite)
    if y is None:
        return x, None
    y = check_data(y, "y", keep_float32=keep_float32, finite=finite)
    if x.dtype != y.dtype:
        x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
    if y.shape[1] != x.shape[1]:
        raise ValueError(f"`y` must have as many features as `x`, {x.shape[1]}, got shape {y.shape}")
    return x, y


def check_square(value: ArrayLike, name: str) -> FloatArray:
    """Return a finite symmetric matrix."""
    array = _as_float_array(value, name, keep_float32=True)
    single = array.dtype == np.float32
    matrix = check_array(array, name, 2)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`{name}` must be square, got shape {matrix.shape}")
    scale, gap = 0.0, 0.0
    for start in range(0, len(matrix), 256):  # a few rows at a time: no temporary of the matrix's size
        rows = matrix[start : start + 256]
        scale = max(scale, float(np.abs(rows).max()))
        gap = max(gap, float(np.abs(rows - matrix[:, start : start + 256].T).max()))
    # halves computed apart differ by rounding, which is that of float32 where the matrix is
    if gap > (1e-5 if single else 1e-8) * scale:
        raise ValueError(f"`{name}` must be symmetric, got entries that differ by {gap:.3g} across the diagonal")
    return matrix


def check_real(
    value: Any,
    name: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return a finite real number inside an interval."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real | np.ndarray):
        raise TypeError(f"`{name}` must be a real number, got {value!r}")
    if isinstance(value, np.ndarray) and (value.ndim != 0 or value.dtype.kind not in "fiu"):
        raise TypeError(f"`{name}` must be a single real number, got an array of shape {value.shape}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the floats
        number = np.inf if value > 0 else -np.inf  # type: ignore[operator]  # only integers overflow
    too_low = number <= low if open_low else number < low
    too_high = number >= high if open_high else number > high
    if not np.isfinite(number) or too_low or too_high:
        left = "(" if open_low or low == -np.inf else "["
        right = ")" if open_high or high == np.inf else "]"
        raise ValueError(f"`{name}` must be a finite number in {left}{low:g}, {high:g}{right}, got {number!r}")
    return number


def check_integer(value: Any, name: str, *, low: int | None = None, high: int | None = None) -> int:
    """Return an integer inside an interval."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer, got {value!r}")
    number = int(value)
    if (low is not None and number < low) or (high is not None and number > high):
        at_least = f"at least {low}" if low is not None else ""
        at_most = f"at most {high}" if high is not None else ""
        raise ValueError(f"`{name}` must be {' and '.join(filter(None, (at_least, at_most)))}, got {number}")
    return number


def check_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Return one of the allowed strings."""
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}")
    return value


def check_dtype(value: Any) -> np.dtype[Any]:
    """Return float32 or float64."""
    try:
        if value is None:  # NumPy takes it for float64
            raise TypeError
        dtype = np.dtype(value)
    except (TypeError, ValueError):
        raise TypeError(f"`dtype` must be float32 or float64, got {value!r}") from None
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"`dtype` must be float32 or float64, got {dtype}")
    return dtype


def check_widths(value: Any, depth: int) -> tuple[int, ...]:
    """Return one positive width per layer."""
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"`widths` must be a sequence of {depth} integers, got {value!r}")
    if len(value) != depth:
        raise ValueError(f"`widths` must have one entry per layer, {depth}, got {len(value)}: {tuple(value)!r}")
    return tuple(check_integer(width, f"widths[{k}]", low=1) for k, width in enumerate(value))


def label_list(labels: Any, name: str = "labels") -> list[Any]:
    """Return labels as a list of Python's objects; those of tensors and arrays compare by value only so."""
    if not callable(getattr(labels, "tolist", None)):
        if not any(hasattr(labels, way) for way in ("__array__", "__dlpack__")):
            return list(labels)
        labels = np.asarray(to_host(labels, name))
    return list(labels.tolist())


def check_labels(labels: Any, n_samples: int, name: str = "labels") -> tuple[list[Hashable], IntArray]:
    """Return the distinct labels, sorted where they can be, and each sample's index among them."""
    try:
        values = label_list(labels)
    except TypeError:
        raise TypeError(f"`{name}` must be a sequence of {n_samples} labels, got {labels!r}") from None
    if len(values) != n_samples:
        raise ValueError(f"`{name}` must have one entry per sample, {n_samples}, got {len(values)}")
    for k, value in enumerate(values):
        if isinstance(value, float) and np.isnan(value):
            raise ValueError(f"`{name}` must not hold NaN, got one at index {k}")
    try:
        distinct = list(dict.fromkeys(values))
    except TypeError:
        raise TypeError(f"`{name}` must hold hashable values (numbers, strings, tuples), got unhashable ones") from None
    with suppress(TypeError):  # mixed types have no order: keep the order of appearance
        distinct.sort()
    index = {value: k for k, value in enumerate(distinct)}
    return distinct, np.array([index[value] for value in values], dtype=np.int64)


def as_generator(rng: Seed) -> np.random.Generator:
    """Return `rng` itself, or a new generator seeded by it."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        raise TypeError(f"`rng` must be a numpy Generator or an integer seed, got {rng!r}")
    if rng < 0:
        raise ValueError(f"`rng` must be a non-negative seed, got {rng}")
    return np.random.default_rng(int(rng))


def squared_norms(rows: AnyArray, name: str) -> FloatArray:
    """Return ‖x_i‖², shape (n,), float64, or raise if one is not finite; inner products then cannot overflow either."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64, casting="safe")
    check_squares(squares, rows, name)
    return np.asarray(squares)


def check_squares(squares: FloatArray, rows: AnyArray, name: str) -> None:
    """Raise if a squared norm is not finite in the rows' own type, and say why."""
    limit = np.finfo(rows.dtype).max
    if not (squares <= limit).all():
        _check_finite(rows, name)
        k = int(np.argmin(squares <= limit))
        raise ValueError(f"`{name}` has a row ({k}) whose squared norm overflows {rows.dtype}: rescale the data")
