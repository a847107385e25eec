r"""Per-layer tables that turn activations into loops: the dual activations E[σ(u)σ(v)] and E[σ'(u)σ'(v)].

The closed forms themselves are in ``_jit/gram.py``. Here each layer is translated into numbers (family code,
constants, thresholds, Hermite coefficients), and each sample into its scales through the layers, which also
gives the kernels' diagonals.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from rmtntk._jit import gram as loops
from rmtntk._typing import FloatArray, IntArray
from rmtntk.hermite import hermite_series
from rmtntk.moments import moment_arrays, scaled_thresholds, slopes
from rmtntk.network import LayerScales, Network

__all__ = ["LayerTable", "RowTable", "layer_table", "row_table", "split_rows"]


class LayerTable(NamedTuple):
    """What the loops need of the layers; see ``_jit/gram.py`` for the shapes."""

    codes: IntArray
    constants: FloatArray
    first_step: IntArray
    jumps: FloatArray
    exact: IntArray
    w2: float
    b2: float


class RowTable(NamedTuple):
    """What the loops need of the rows of one data matrix, and the closed-form diagonals."""

    norm0: FloatArray
    scale: FloatArray
    mean: FloatArray
    shift: FloatArray
    norm: FloatArray
    thresholds: FloatArray
    upper: FloatArray
    series: FloatArray
    first_term: IntArray
    tails: FloatArray
    ck_diagonal: FloatArray
    ntk_diagonal: FloatArray


_CODES = {
    "homogeneous": loops.HOMOGENEOUS,
    "erf": loops.ERF,
    "step": loops.STEP,
    "polynomial": loops.SERIES,
    "smooth": loops.SERIES,
}


def layer_table(net: Network, scales: LayerScales) -> LayerTable:
    """Translate the layers."""
    constants = np.zeros((net.depth, 4))
    jumps: list[FloatArray] = []
    first_step = [0]
    for k, act in enumerate(net.activations):
        if act.family == "homogeneous":
            constants[k, :2] = slopes(act)
        elif act.family == "erf":
            constants[k, 0] = 1.0
        count = 0
        if act.is_step:
            jumps.append(np.diff(act.levels))
            count = len(jumps[-1])
        first_step.append(first_step[-1] + count)
    return LayerTable(
        codes=np.array([_CODES[act.family] for act in net.activations], dtype=np.int64),
        constants=constants,
        first_step=np.array(first_step, dtype=np.int64),
        jumps=np.concatenate(jumps) if jumps else np.zeros(0),
        exact=np.array([int(centre == 0.0 and net.bias_std == 0.0) for centre in scales.centre], dtype=np.int64),
        w2=net.weight_std**2,
        b2=net.bias_std**2,
    )


def row_table(net: Network, scales: LayerScales, squared_norm: FloatArray) -> RowTable:
    """Follow every row's own scale through the layers; `squared_norm` (n,) is the diagonal of K_0."""
    n = len(squared_norm)
    w2, b2 = net.weight_std**2, net.bias_std**2
    variance = w2 * squared_norm + b2
    shape = (net.depth, n)
    scale, mean, shift, norm = (np.empty(shape) for _ in range(4))
    thresholds, upper, series = [np.zeros((n, 0))], [np.zeros((n, 0))], [np.zeros((n, 0))]
    first_term, tails = [0], np.zeros(shape)
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
        terms = 0
        if act.family in ("polynomial", "smooth"):
            coefficients, tails[k] = hermite_series(act, scale[k])
            series.append(coefficients)
            terms = coefficients.shape[1]
        first_term.append(first_term[-1] + terms)
        ck = field.variance + shift[k] ** 2
        variance = w2 * ck + b2
        # A zero row of an unbiased network has no NTK below this layer, whatever E[σ'²] is there.
        below = np.where(ntk == 0.0, 0.0, ntk * np.where(ntk == 0.0, 0.0, field.d1_squared))
        ntk = variance + w2 * below
    return RowTable(
        norm0=np.sqrt(squared_norm),
        scale=scale,
        mean=mean,
        shift=shift,
        norm=norm,
        thresholds=np.ascontiguousarray(np.concatenate(thresholds, axis=1)),
        upper=np.ascontiguousarray(np.concatenate(upper, axis=1)),
        series=np.ascontiguousarray(np.concatenate(series, axis=1)),
        first_term=np.array(first_term, dtype=np.int64),
        tails=tails,
        ck_diagonal=ck,
        ntk_diagonal=ntk,
    )


def split_rows(table: RowTable, n_first: int) -> tuple[RowTable, RowTable]:
    """Cut a table made for the rows of two matrices, stacked, into one for each."""
    per_row = {"thresholds", "upper", "series", "norm0", "ck_diagonal", "ntk_diagonal"}

    def part(rows: slice) -> RowTable:
        cut = {
            name: np.ascontiguousarray(value[rows] if name in per_row else value[:, rows])
            for name, value in table._asdict().items()
            if name != "first_term"
        }
        return RowTable(first_term=table.first_term, **cut)

    return part(slice(0, n_first)), part(slice(n_first, None))
