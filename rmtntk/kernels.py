r"""Conjugate kernel, NNGP kernel and neural tangent kernel of infinitely wide networks.

With Λ_l = w² K_{l−1} + b²: K_l = E[σ_l(u)σ_l(v)], NTK_0 = Λ_1, NTK_l = Λ_{l+1} + w² NTK_{l−1} ∘ E[σ_l'σ_l'].
"""

import numbers
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rmtntk._blas import one_blas_thread
from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_dtype, check_pair, check_squares
from rmtntk.certificate import certify, check_accuracy
from rmtntk.dual import Plan, plan
from rmtntk.errors import AccuracyError, InfiniteDiagonalError
from rmtntk.interpolation import LogInterpolant
from rmtntk.moments import has_jump
from rmtntk.network import LayerScales, Network, layer_scales, tau0_of
from rmtntk.tiles import fill, squares

__all__ = ["KernelDiagonals", "ck", "ck_ntk", "kernel_diagonals", "nngp", "ntk"]

Diagonal = Literal["nan"] | float | FloatArray | None
_ROWS = 4096  # whose diagonals are computed together
_CHUNK = 1 << 20  # entries looked at together when infinite ones are filled


class _Pair(NamedTuple):
    ck: Any  # arrays, or None for the kernel that was not wanted
    ntk: Any
    error_ck: float
    error_ntk: float


class KernelDiagonals(NamedTuple):
    """Diagonals of CK and NTK, shape (n,); the NTK's is inf for activations that jump."""

    ck: FloatArray
    ntk: FloatArray


def check_network(net: Any) -> Network:
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    return net


def ck(
    net: Network,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    dtype: DTypeLike = np.float64,
    return_error: bool = False,
) -> Any:
    r"""Conjugate kernel K_L: the Gram matrix of the features of the last hidden layer.

    Parameters
    ----------
    net : Network
        The network. If its `tau0` is None, τ_0 is sqrt(mean ‖x_i‖²) over the rows of `x`.
    x : array_like, shape (n, p)
        Samples in rows.
    y : array_like, shape (m, p), optional
        Second set of samples; the default is `x` itself.
    dtype : {float64, float32}
        Type of the result. The layers' arithmetic is float64 in either case. If the data are float32 as well, so is
        the product X Yᵀ: entries are then off by up to (5 + L) 1.2e-7 √(K_ii K_jj), the diagonal by rounding only.
    return_error : bool
        Also return a bound of the truncation error of any entry (0 where all duals are closed forms).

    Returns
    -------
    ndarray, shape (n, m)
        K_L in units of squared features; exactly symmetric if `y` is None.

    Raises
    ------
    TypeError, ValueError
        If the data is not a finite matrix, or x and y differ in features.
    AccuracyError
        If an activation without a closed form misses its tolerance on this data.
    MemoryLimitError
        If the result would not fit into memory.

    Notes
    -----
    Costs O(n m p) for the product plus O(n m L); the memory beyond the result is O(n (p + L)) and some 12 MiB, as
    K_0 is formed in tiles. Entries of closed forms are accurate to a few eps times sqrt(K_ii K_jj), also at
    ρ → ±1. The result does not depend on the number of threads (:func:`rmtntk.set_num_threads`), to the last bit.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), eq. (4); Cho and Saul (2009) for ReLU; Williams (1997) for erf.
    """
    pair = _compute(net, x, y, dtype, want_ck=True, want_ntk=False)
    return (pair.ck, pair.error_ck) if return_error else pair.ck


def nngp(net: Network, x: ArrayLike, y: ArrayLike | None = None, *, dtype: DTypeLike = np.float64) -> AnyArray:
    """Covariance w² K_L + b² of the outputs of a network with random readout; see :func:`ck`."""
    kernel = _compute(net, x, y, dtype, want_ck=True, want_ntk=False).ck
    with np.errstate(over="ignore"):
        kernel *= net.weight_std**2
        kernel += net.bias_std**2
    if not np.isfinite(max(kernel.max(), -kernel.min())):
        raise ValueError(f"`dtype` {kernel.dtype} cannot hold entries times weight_std²: rescale the data")
    return kernel


def ntk(
    net: Network,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    dtype: DTypeLike = np.float64,
    diagonal: Diagonal = None,
    return_error: bool = False,
) -> Any:
    r"""Neural tangent kernel NTK_L, readout weights included.

    Parameters
    ----------
    net, x, y, dtype, return_error
        As for :func:`ck`.
    diagonal : "nan", float or ndarray of shape (n,), optional
        What to put where two inputs coincide if an activation jumps: the NTK of such a network is infinite
        there, and finite elsewhere.

    Returns
    -------
    ndarray, shape (n, m)
        The kernel; exactly symmetric if `y` is None.

    Raises
    ------
    InfiniteDiagonalError
        If the NTK is infinite at some entry and `diagonal` is not given.
    TypeError, ValueError, AccuracyError
        As for :func:`ck`.

    References
    ----------
    Jacot, Gabriel and Hongler (2018); NTK-LC (Gu et al., NeurIPS 2022), eq. (5).
    """
    pair = _compute(net, x, y, dtype, want_ck=False, want_ntk=True, diagonal=diagonal)
    return (pair.ntk, pair.error_ntk) if return_error else pair.ntk


def ck_ntk(
    net: Network,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    dtype: DTypeLike = np.float64,
    diagonal: Diagonal = None,
) -> tuple[AnyArray, AnyArray]:
    """Both kernels in one pass; see :func:`ck` and :func:`ntk`."""
    pair = _compute(net, x, y, dtype, want_ck=True, want_ntk=True, diagonal=diagonal)
    return pair.ck, pair.ntk


@one_blas_thread()
def kernel_diagonals(net: Network, x: ArrayLike) -> KernelDiagonals:
    """Diagonals of CK and NTK in closed form, O(n (p + L)), without forming a matrix.

    Beside copies of the norms no more than some 25 MiB are needed. Above 4,096 rows the diagonals of networks with an
    activation without closed forms are interpolated in log ‖x‖, to 2e-13 relative as checked between the nodes.
    """
    check_network(net)
    rows = check_pair(x, None)[0]
    squared = net.input_factor(rows.shape[1]) * _squares(_writable(rows), "x")
    scales = layer_scales(net, tau0_of(net, squared))
    norm = np.sqrt(squared)
    known = _diagonals_along(net, scales, norm) if len(norm) > _ROWS else None
    out = np.empty((2, len(norm)))
    for start in range(0, len(norm), _ROWS):
        part = slice(start, start + _ROWS)
        out[:, part] = _diagonals(net, scales, norm[part]) if known is None else known(norm[part])
    return KernelDiagonals(out[0], out[1])


def _diagonals(net: Network, scales: LayerScales, norm: FloatArray) -> FloatArray:
    """Diagonals of both kernels, (2, n)."""
    table = plan(net, scales, norm)
    return np.stack([table.ck_diagonal, table.ntk_diagonal])


def _diagonals_along(net: Network, scales: LayerScales, norm: FloatArray) -> Callable[[FloatArray], FloatArray] | None:
    """Diagonals as a function of the norm by interpolation, or None where rows are better computed one by one."""
    positive = norm[norm > 0.0]
    if not any(act.family == "smooth" for act in net.activations) or not len(positive):
        return None
    jumps = any(map(has_jump, net.activations))

    def logarithms(tau: FloatArray) -> FloatArray:
        return np.log(_diagonals(net, scales, tau)[: 1 if jumps else 2].T)

    try:
        interpolant = LogInterpolant(logarithms, positive, str(net))
    except AccuracyError:  # too many panels, or an overflow, which has a better message row by row
        return None
    at_zero = _diagonals(net, scales, np.zeros(1))

    def along(tau: FloatArray) -> FloatArray:
        out = np.full((2, len(tau)), np.inf)
        nonzero = tau > 0.0
        out[: 1 if jumps else 2, nonzero] = np.exp(interpolant(tau[nonzero])).T
        out[:, ~nonzero] = at_zero
        return out

    return along


@one_blas_thread()  # from the plan on: the last digits of products depend on the number of threads
def _compute(
    net: Network,
    x: ArrayLike,
    y: ArrayLike | None,
    dtype: DTypeLike,
    *,
    want_ck: bool,
    want_ntk: bool,
    diagonal: Diagonal = None,
) -> _Pair:
    check_network(net)
    kind = check_dtype(dtype)
    x_data, y_data = check_pair(x, y, keep_float32=kind == np.float32, finite=False)
    columns = x_data if y_data is None else y_data
    shape = (len(x_data), len(columns))
    jumps = want_ntk and any(has_jump(act) for act in net.activations)
    fill_value = check_diagonal(diagonal, len(x_data), symmetric=y_data is None)
    if jumps and diagonal is None and y_data is None:
        raise InfiniteDiagonalError(
            "the NTK of a network with jumps (steps, sign, heaviside) is infinite on the diagonal: pass "
            "diagonal='nan', a number or an array of shape (n,), or use ck"
        )
    count = int(want_ck) + int(want_ntk)
    check_memory(count * shape[0] * shape[1] * kind.itemsize, f"{count} kernel(s) of shape {shape}")
    factor = net.input_factor(x_data.shape[1])
    rows = _writable(x_data)
    others = None if y_data is None else _writable(y_data)
    squared = factor * _squares(rows, "x")
    both_squared = squared if others is None else np.concatenate([squared, factor * _squares(others, "y")])
    scales = layer_scales(net, tau0_of(net, squared))
    both = plan(net, scales, np.sqrt(both_squared), factor)
    certificate = certify(net, both, want_ntk=want_ntk)
    ck_out = np.empty(shape, dtype=kind) if want_ck else None
    ntk_out = np.empty(shape, dtype=kind) if want_ntk else None
    if others is None:
        first = second = both
    else:
        first, second = both[: len(x_data)], both[len(x_data) :]
    with np.errstate(over="ignore"):  # float32 results are checked below
        tracked = fill(rows, others, first, second, ck_out, ntk_out, track=certificate.track)
    if jumps and ntk_out is not None:
        _fill_infinite(ntk_out, fill_value, symmetric=y_data is None)
    check_range(first, second, kind, want_ck=want_ck, want_ntk=want_ntk and not jumps)
    bounds = tracked if certificate.track else certificate.bounds
    check_accuracy(net, both, bounds, want_ck=want_ck, want_ntk=want_ntk)
    return _Pair(ck_out, ntk_out, float(bounds[0]), float(bounds[1]))


def _writable(rows: AnyArray) -> AnyArray:
    """Copy read-only rows, O(n p): Numba would compile every loop a second time for them."""
    return rows if rows.flags.writeable else rows.copy()


def _squares(rows: AnyArray, name: str) -> FloatArray:
    found = squares(rows)
    check_squares(found, rows, name)
    return found


def check_range(first: Plan, second: Plan, kind: np.dtype[Any], *, want_ck: bool, want_ntk: bool) -> None:
    """Raise if the type cannot hold the kernels: no entry exceeds the root of the product of two diagonals."""
    for wanted, name in ((want_ck, "ck_diagonal"), (want_ntk, "ntk_diagonal")):
        top = float(np.sqrt(getattr(first, name).max()) * np.sqrt(getattr(second, name).max()))
        if wanted and not top <= float(np.finfo(kind).max):
            advice = "take float64 or rescale the data" if kind == np.float32 else "rescale the data"
            raise ValueError(f"`dtype` {kind} cannot hold entries up to {top:.3g}: {advice}")


def check_diagonal(diagonal: Any, n: int, *, symmetric: bool) -> FloatArray | float | None:
    if diagonal is None:
        return None
    if isinstance(diagonal, str):
        if diagonal != "nan":
            raise ValueError(f"`diagonal` must be 'nan', a number or an array of shape ({n},), got {diagonal!r}")
        return float("nan")
    if np.ndim(diagonal) == 0:
        if isinstance(diagonal, bool) or not isinstance(diagonal, numbers.Real):
            raise TypeError(f"`diagonal` must be 'nan', a number or an array of shape ({n},), got {diagonal!r}")
        return float(diagonal)
    values = check_array(diagonal, "diagonal", 1)
    if not symmetric:
        raise ValueError("`diagonal` must be 'nan' or a number for a cross kernel, got an array")
    if len(values) != n:
        raise ValueError(f"`diagonal` must have shape ({n},), got {values.shape}")
    return values


def _fill_infinite(kernel: AnyArray, fill: FloatArray | float | None, *, symmetric: bool) -> None:
    """Put the wanted values where the NTK of a jump is infinite, or say where that is."""
    if symmetric and isinstance(fill, np.ndarray):
        np.fill_diagonal(kernel, fill)
    step = max(1, _CHUNK // kernel.shape[1])
    count, where = 0, (0, 0)
    for start in range(0, len(kernel), step):
        part = kernel[start : start + step]
        bad = ~np.isfinite(part)
        if symmetric and isinstance(fill, np.ndarray):
            index = np.arange(len(part))
            bad[index, start + index] = False
        if not bad.any():
            continue
        if isinstance(fill, float):
            part[bad] = fill
            continue
        if count == 0:
            i, j = (int(k) for k in np.argwhere(bad)[0])
            where = (start + i, j)
        count += int(bad.sum())
    if count:
        raise InfiniteDiagonalError(
            f"the NTK of a network with jumps is infinite where inputs coincide or are opposite, as rows {where[0]} "
            f"and {where[1]} are ({count} entries): pass diagonal='nan' or a number, or remove such rows"
        )
