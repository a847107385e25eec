r"""Conjugate kernel, NNGP kernel and neural tangent kernel of infinitely wide networks.

With Λ_l = w² K_{l−1} + b²: K_l = E[σ_l(u)σ_l(v)], NTK_0 = Λ_1, NTK_l = Λ_{l+1} + w² NTK_{l−1} ∘ E[σ_l'σ_l'].
"""

import numbers
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rmtntk._jit import gram as loops
from rmtntk._threads import parallel_loops
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_dtype, check_pair, squared_norms
from rmtntk.dual import LayerTable, RowTable, split_rows, tables
from rmtntk.errors import AccuracyError, InfiniteDiagonalError
from rmtntk.moments import has_jump
from rmtntk.network import Network, input_rows, layer_scales, resolve_tau0

__all__ = ["KernelDiagonals", "ck", "ck_ntk", "kernel_diagonals", "nngp", "ntk"]

Diagonal = Literal["nan"] | float | FloatArray | None


class _Pair(NamedTuple):
    ck: AnyArray
    ntk: AnyArray
    error_ck: float
    error_ntk: float


class KernelDiagonals(NamedTuple):
    """Diagonals of CK and NTK, shape (n,); the NTK's is inf for activations that jump."""

    ck: FloatArray
    ntk: FloatArray


def _check_network(net: Any) -> Network:
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
        Type of the result; arithmetic is float64 in either case.
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

    Notes
    -----
    Costs O(n m p) for the product plus O(n m L). Entries of closed forms are accurate to a few eps times
    sqrt(K_ii K_jj), also at ρ → ±1.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), eq. (4); Cho and Saul (2009) for ReLU; Williams (1997) for erf.
    """
    pair = _compute(net, x, y, want_ck=True, want_ntk=False)
    return _finish(pair.ck, dtype, pair.error_ck, return_error)


def nngp(net: Network, x: ArrayLike, y: ArrayLike | None = None, *, dtype: DTypeLike = np.float64) -> AnyArray:
    """Covariance w² K_L + b² of the outputs of a network with random readout; see :func:`ck`."""
    kernel = _compute(net, x, y, want_ck=True, want_ntk=False).ck
    kernel *= net.weight_std**2
    kernel += net.bias_std**2
    return kernel.astype(check_dtype(dtype), copy=False)


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
    pair = _compute(net, x, y, want_ck=False, want_ntk=True, diagonal=diagonal)
    return _finish(pair.ntk, dtype, pair.error_ntk, return_error)


def ck_ntk(
    net: Network,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    dtype: DTypeLike = np.float64,
    diagonal: Diagonal = None,
) -> tuple[AnyArray, AnyArray]:
    """Both kernels in one pass; see :func:`ck` and :func:`ntk`."""
    kind = check_dtype(dtype)
    pair = _compute(net, x, y, want_ck=True, want_ntk=True, diagonal=diagonal)
    return pair.ck.astype(kind, copy=False), pair.ntk.astype(kind, copy=False)


def kernel_diagonals(net: Network, x: ArrayLike) -> KernelDiagonals:
    """Diagonals of CK and NTK in closed form, O(n (p + L)), without forming a matrix."""
    _check_network(net)
    rows = input_rows(net, check_pair(x, None)[0])
    scales = layer_scales(net, resolve_tau0(net, rows))
    _, table = tables(net, scales, squared_norms(rows, "x"))
    return KernelDiagonals(table.ck_diagonal, table.ntk_diagonal)


def _finish(kernel: AnyArray, dtype: DTypeLike, error: float, return_error: bool) -> AnyArray | tuple[AnyArray, float]:
    kernel = kernel.astype(check_dtype(dtype), copy=False)
    return (kernel, error) if return_error else kernel


def _compute(
    net: Network,
    x: ArrayLike,
    y: ArrayLike | None,
    *,
    want_ck: bool,
    want_ntk: bool,
    diagonal: Diagonal = None,
) -> _Pair:
    _check_network(net)
    x_data, y_data = check_pair(x, y)
    jumps = want_ntk and any(has_jump(act) for act in net.activations)
    fill = _check_diagonal(diagonal, len(x_data), symmetric=y_data is None)
    if jumps and diagonal is None and y_data is None:
        raise InfiniteDiagonalError(
            "the NTK of a network with jumps (steps, sign, heaviside) is infinite on the diagonal: pass "
            "diagonal='nan', a number or an array of shape (n,), or use ck"
        )
    rows_x = _writable(input_rows(net, x_data))
    scales = layer_scales(net, resolve_tau0(net, rows_x))
    rows_y = rows_x if y_data is None else _writable(input_rows(net, y_data))
    squared_x = squared_norms(rows_x, "x")
    squared_y = squared_x if y_data is None else squared_norms(rows_y, "y")
    gram = rows_x @ rows_y.T
    ntk_out = np.empty_like(gram) if want_ck and want_ntk else gram
    errors = np.zeros((len(gram), 2))
    if y_data is None:
        layers, table_x = tables(net, scales, squared_x)
        table_y = table_x
        with parallel_loops():
            loops.symmetric_kernels(gram, ntk_out, want_ck, want_ntk, errors, rows_x, layers, table_x, loops.RULES)
    else:
        squared = np.concatenate([squared_x, squared_y])
        layers, both = tables(net, scales, squared)
        table_x, table_y = split_rows(both, len(rows_x))
        with parallel_loops():
            loops.cross_kernels(
                gram, ntk_out, want_ck, want_ntk, errors, rows_x, rows_y, layers, table_x, table_y, loops.RULES
            )
    if jumps:
        _fill_infinite(ntk_out, fill, symmetric=y_data is None)
    bound_ck, bound_ntk = (float(value) for value in errors.max(axis=0))
    _check_accuracy(net, layers, table_x, table_y, bound_ck, bound_ntk if want_ntk else 0.0)
    return _Pair(gram, ntk_out, bound_ck, bound_ntk)


def _writable(rows: FloatArray) -> FloatArray:
    """Copy read-only rows, O(n p): Numba would compile every loop a second time for them."""
    return rows if rows.flags.writeable else rows.copy()


def _check_diagonal(diagonal: Any, n: int, *, symmetric: bool) -> FloatArray | float | None:
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
    bad = ~np.isfinite(kernel)
    if symmetric and isinstance(fill, np.ndarray):
        np.fill_diagonal(kernel, fill)
        np.fill_diagonal(bad, False)
    if not bad.any():
        return
    if fill is None or isinstance(fill, np.ndarray):
        i, j = (int(k) for k in np.argwhere(bad)[0])
        raise InfiniteDiagonalError(
            f"the NTK of a network with jumps is infinite where inputs coincide or are opposite, as rows {i} and {j} "
            f"are ({int(bad.sum())} entries): pass diagonal='nan' or a number, or remove such rows"
        )
    kernel[bad] = fill


def _check_accuracy(
    net: Network, layers: LayerTable, x: RowTable, y: RowTable, bound_ck: float, bound_ntk: float
) -> None:
    smooth = [act for act in net.activations if act.family == "smooth"]
    if not smooth:
        return
    tolerance = max(act.tolerance for act in smooth)
    unit_ck = float(np.sqrt(x.ck_diagonal.max() * y.ck_diagonal.max()))
    ntk_values = np.concatenate([x.ntk_diagonal, y.ntk_diagonal])
    finite = ntk_values[np.isfinite(ntk_values)]
    unit_ntk = max(float(finite.max()) if finite.size else 0.0, unit_ck)
    for kind, bound, unit in (("conjugate kernel", bound_ck, unit_ck), ("NTK", bound_ntk, unit_ntk)):
        if bound > tolerance * unit:
            raise AccuracyError(
                f"the {kind} of {net} is known here only to {bound / unit:.2e} of its diagonal, but its activations "
                f"ask for {tolerance:.1e}: rows are too nearly parallel for a series of "
                f"{np.diff(layers.first_term).max()} terms. Take custom(..., tolerance=...) or a closed form",
                bound,
            )
