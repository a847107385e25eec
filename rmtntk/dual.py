r"""Per-layer tables that turn activations into loops: the dual activations E[σ(u)σ(v)] and E[σ'(u)σ'(v)].

The closed forms themselves are in ``_jit/gram.py``. Here each layer is translated into numbers (family code,
constants, thresholds, Hermite coefficients), and each sample into its scales through the layers, which also
gives the kernels' diagonals.
"""

import numpy as np
from scipy import special

from rmtntk._jit import gram as loops
from rmtntk._jit.gram import LayerTable, RowTable
from rmtntk._typing import FloatArray
from rmtntk.hermite import hermite_series
from rmtntk.moments import moment_arrays, scaled_thresholds, slopes
from rmtntk.network import LayerScales, Network

__all__ = ["LayerTable", "RowTable", "split_rows", "tables"]


_CODES = {
    "homogeneous": loops.HOMOGENEOUS,
    "erf": loops.ERF,
    "step": loops.STEP,
    "polynomial": loops.SERIES,
    "smooth": loops.SERIES,
}


def layer_table(net: Network, scales: LayerScales, terms: list[int]) -> LayerTable:
    """Translate the layers; `terms` (L,) is the number of series terms of each."""
    constants = np.zeros((net.depth, 4))
    jumps: list[FloatArray] = []
    first_step = [0]
    for k, act in enumerate(net.activations):
        if act.family == "homogeneous":
            constants[k, :2] = slopes(act)
        elif act.family == "erf":
            constants[k, 0] = 1.0
        elif act.is_step:
            jumps.append(np.diff(act.levels))
        first_step.append(sum(len(part) for part in jumps))
    return LayerTable(
        codes=np.array([_CODES[act.family] for act in net.activations], dtype=np.int64),
        constants=constants,
        first_step=np.array(first_step, dtype=np.int64),
        first_term=np.concatenate([[0], np.cumsum(terms)]).astype(np.int64),
        jumps=np.concatenate(jumps) if jumps else np.zeros(0),
        exact=np.array([int(centre == 0.0 and net.bias_std == 0.0) for centre in scales.centre], dtype=np.int64),
        w2=net.weight_std**2,
        b2=net.bias_std**2,
    )


def tables(net: Network, scales: LayerScales, squared_norm: FloatArray) -> tuple[LayerTable, RowTable]:
    """Translate the layers, and follow every row's own scale through them.

    `squared_norm`, shape (n,), is the diagonal of K_0. Rows of two matrices go through together, so that both
    get Hermite series of the same length; :func:`split_rows` parts them again.
    """
    n = len(squared_norm)
    w2, b2 = net.weight_std**2, net.bias_std**2
    variance = w2 * squared_norm + b2
    shape = (net.depth, n)
    scale, mean, shift, norm = (np.empty(shape) for _ in range(4))
    thresholds, upper, series = [np.zeros((n, 0))], [np.zeros((n, 0))], [np.zeros((n, 0))]
    terms, tails, slope_tails = [], np.zeros(shape), np.zeros(shape)
    ntk = variance.copy()
    ck = squared_norm
    for k, act in enumerate(net.activations):
        scale[k] = np.sqrt(variance)
        field = moment_arrays(act, scale[k])
        mean[k] = field.mean
        shift[k] = field.mean - scales.centre[k]
        norm[k] = np.sqrt(field.second)
        if act.is_step:
            r = scaled_thresholds(act, scale[k])
            thresholds.append(r)
            upper.append(special.ndtr(-r))
        count = 0
        if act.family in ("polynomial", "smooth"):
            coefficients, tails[k], slope_tails[k] = hermite_series(act, scale[k])
            series.append(coefficients)
            count = coefficients.shape[1]
        terms.append(count)
        ck = field.variance + shift[k] ** 2
        variance = w2 * ck + b2
        # A zero row of an unbiased network has no NTK below this layer, whatever E[σ'²] is there.
        below = np.where(ntk == 0.0, 0.0, ntk * np.where(ntk == 0.0, 0.0, field.d1_squared))
        ntk = variance + w2 * below
    rows = RowTable(
        norm0=np.sqrt(squared_norm),
        scale=scale,
        mean=mean,
        shift=shift,
        norm=norm,
        thresholds=_joined(thresholds),
        upper=_joined(upper),
        series=_joined(series),
        tails=tails,
        slope_tails=slope_tails,
        ck_diagonal=ck,
        ntk_diagonal=ntk,
    )
    return layer_table(net, scales, terms), rows


def _joined(parts: list[FloatArray]) -> FloatArray:
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


_PER_ROW = {"thresholds", "upper", "series", "norm0", "ck_diagonal", "ntk_diagonal"}  # the others are (L, n)


def split_rows(table: RowTable, n_first: int) -> tuple[RowTable, RowTable]:
    """Cut a table made for the rows of two matrices, stacked, into one for each."""

    def part(rows: slice) -> RowTable:
        return RowTable(
            **{
                name: np.ascontiguousarray(value[rows] if name in _PER_ROW else value[:, rows])
                for name, value in table._asdict().items()
            }
        )

    return part(slice(0, n_first)), part(slice(n_first, None))
