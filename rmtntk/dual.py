r"""From activations and rows to the numbers that the loops over pairs need.

The dual activations E[σ(u)σ(v)] and E[σ'(u)σ'(v)] themselves are in ``_jit/``, a file per family. Here every layer
becomes a line of constants and, where it needs them, Hermite coefficients, and every row is followed through the
layers on its own, which also gives the diagonals of the kernels in closed form.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from rmtntk._jit import errors, layout
from rmtntk._typing import FloatArray
from rmtntk.activations import Activation
from rmtntk.hermite import MAX_TERMS, hermite_coefficients, step_coefficients
from rmtntk.interpolation import DIRECT_COUNT, LogInterpolant
from rmtntk.moments import has_jump, moment_arrays, polynomial_series, scaled_thresholds, sine_cosine, slopes
from rmtntk.network import LayerScales, Network

__all__ = ["LayerData", "Plan", "RowMoments", "plan", "row_moments"]

STEP_TERMS = 160
_BLOCK = 4  # series are cut to a multiple of the loops' unrolling
_NONE = np.zeros((0, 0))


class RowMoments(NamedTuple):
    """E[σ], E[σ²], E[(σ − m)²], E[σ'²] for every row, each (n,); series coefficients (K, n), from order 1 on, or None.

    tails (K + 1,): largest Σ_{k>j} c_k² over the rows, j = 0 … K, in units of E[(σ − m)²]; `rest`, `slope_rest`
    (n,): Σ c_k² and Σ k c_k² beyond the last coefficient.
    """

    mean: FloatArray
    second: FloatArray
    variance: FloatArray
    d1_squared: FloatArray
    coefficients: FloatArray | None = None
    tails: FloatArray | None = None
    rest: FloatArray | None = None
    slope_rest: FloatArray | None = None


class Bend(NamedTuple):
    """How fast E[σ'σ'] changes with c: `kind` of ``_jit/errors.py`` and its size."""

    kind: int = errors.SMOOTH
    size: float = 0.0


class LayerData(NamedTuple):
    """Arrays of one layer beyond its line in the table of rows; empty where the family has none.

    terms (K, n): Hermite coefficients, or the polynomials of an arc-cosine kernel; tails (K / 4, 2): order from which
    something is left out, and how much; jumps (T,), thresholds, upper (n, T): of steps; bend, order: for the bounds,
    the latter the first order left out.
    """

    loop: str
    terms: FloatArray = _NONE
    tails: FloatArray = _NONE
    jumps: FloatArray = np.zeros(0)
    thresholds: FloatArray = _NONE
    upper: FloatArray = _NONE
    bend: Bend = Bend()
    order: float = 0.0


@dataclass(frozen=True, eq=False)
class Plan:
    """A network at one τ_0, and what its layers make of n rows.

    Attributes
    ----------
    constants : ndarray, shape (L, N_CONSTANTS)
        See ``_jit/layout.py``.
    rows : ndarray, shape (HEAD + L · FIELDS, n)
        See ``_jit/layout.py``.
    layers : tuple of LayerData
        What is not in these two.
    ck_diagonal, ntk_diagonal : ndarray, shape (n,)
        Closed forms; the NTK's is inf for activations that jump.
    left : ndarray, shape (L, 3, n)
        Per layer, what a truncated series leaves out of E[σ²] and of λ² E[σ'²], and sqrt(E[σ''²]).
    row_slope : ndarray, shape (L, n)
        E[σ'²] per layer.
    row_ntk : ndarray, shape (L + 1, n)
        Diagonals of NTK_0 … NTK_L.
    """

    constants: FloatArray
    rows: FloatArray
    layers: tuple[LayerData, ...]
    ck_diagonal: FloatArray
    ntk_diagonal: FloatArray
    left: FloatArray
    row_slope: FloatArray
    row_ntk: FloatArray

    def inverse_square(self, k: int) -> FloatArray:
        """1/λ² of layer k for every row, 0 where λ = 0."""
        return np.asarray(self.rows[layout.HEAD + k * layout.FIELDS + layout.INVERSE] ** 2)

    def __getitem__(self, part: slice) -> "Plan":
        """Return the plan of some of the rows."""
        layers = tuple(
            layer._replace(
                terms=layer.terms if layer.loop == "rectified" else _contiguous(layer.terms[:, part]),
                thresholds=_contiguous(layer.thresholds[part]),
                upper=_contiguous(layer.upper[part]),
            )
            for layer in self.layers
        )
        return Plan(
            self.constants,
            _contiguous(self.rows[:, part]),
            layers,
            self.ck_diagonal[part],
            self.ntk_diagonal[part],
            _contiguous(self.left[:, :, part]),
            self.row_slope[:, part],
            self.row_ntk[:, part],
        )


_contiguous = np.ascontiguousarray


def plan(net: Network, scales: LayerScales, norm: FloatArray, factor: float = 1.0) -> Plan:
    """Translate the layers, and follow every row through them.

    `norm`, shape (n,), are the norms of the rows in K_0 = factor · X Xᵀ.
    """
    depth, n = net.depth, len(norm)
    w2, b2 = net.weight_std**2, net.bias_std**2
    constants = np.zeros((depth, layout.N_CONSTANTS))
    rows = np.zeros((layout.HEAD + depth * layout.FIELDS, n))
    left, row_slope, row_ntk = np.zeros((depth, 3, n)), np.zeros((depth, n)), np.zeros((depth + 1, n))
    constants[0, layout.INPUT] = factor
    rows[layout.NORM0] = norm
    rows[layout.INVERSE0] = _inverse(norm)
    scale = norm * net.weight_std if b2 == 0.0 else np.hypot(norm * net.weight_std, net.bias_std)
    ntk = scale**2
    ck, row_ntk[0] = ntk, ntk
    layers = []
    for k, act in enumerate(net.activations):
        centre = float(scales.centre[k])
        field = row_moments(act, scale)
        shift = field.mean - centre
        ck = field.variance + shift**2
        after = np.sqrt(w2 * ck + b2)
        own = rows[layout.HEAD + k * layout.FIELDS :][: layout.FIELDS]
        own[layout.SCALE] = scale
        own[layout.INVERSE] = _inverse(scale)
        own[layout.SHIFT] = shift
        own[layout.MEAN] = field.mean
        own[layout.NORM] = np.sqrt(field.second)
        own[layout.NEXT] = after
        line = constants[k]
        line[layout.W2], line[layout.B2], line[layout.OUTER2] = w2, b2, 1.0
        line[layout.EXACT] = float(centre == 0.0 and b2 == 0.0)
        line[layout.LAST] = float(k == depth - 1)
        if k < depth - 1:
            own[layout.INVERSE_NEXT] = _inverse(after)
        layer = _family(act, field, scale, line, own, centre)
        if field.rest is not None and field.slope_rest is not None and field.coefficients is not None:
            left[k, 0], left[k, 1] = field.rest, field.slope_rest
            layer = layer._replace(order=float(len(field.coefficients) + 1))
        left[k, 2] = _curvature(act, field, scale)
        layers.append(layer._replace(bend=_bend(act)))
        # A zero row of an unbiased network has no NTK below this layer, whatever E[σ'²] is there.
        below = np.where(ntk == 0.0, 0.0, ntk * np.where(ntk == 0.0, 0.0, field.d1_squared))
        ntk = after**2 + w2 * below
        row_slope[k], row_ntk[k + 1] = field.d1_squared, ntk
        scale = after
    return Plan(constants, rows, tuple(layers), ck, ntk, left, row_slope, row_ntk)


def _inverse(value: FloatArray) -> FloatArray:
    return np.divide(1.0, value, out=np.zeros_like(value), where=value > 0.0)


def _family(
    act: Activation, field: RowMoments, scale: FloatArray, line: FloatArray, own: FloatArray, centre: float
) -> LayerData:
    """Fill the family's own constants and lines, and return its arrays."""
    family, own_lines = line[layout.FAMILY :], own[layout.EXTRA :]
    if act.family == "homogeneous":
        alpha, beta = slopes(act)
        half, mean = 0.5 * (alpha**2 + beta**2), (alpha + beta) / math.sqrt(2.0 * math.pi)
        w2, b2 = line[layout.W2], line[layout.B2]
        cross = w2 * ((half - mean**2) * w2 * centre**2 + half * b2)
        family[:3] = alpha, beta, math.sqrt(max(0.0, cross))
        return LayerData("homogeneous")
    if act.family == "erf":
        outer, rate, offset = act.constants
        line[layout.OUTER2] = outer**2
        line[layout.ODD] = float(offset == 0.0)
        family[0] = rate
        own_lines[:] = _share(math.sqrt(2.0) * abs(rate) * scale)
        return LayerData("erf")
    if act.family == "trig":
        amplitude, frequency, phase = act.constants
        sine, cosine = sine_cosine(phase)
        family[:4] = amplitude, frequency, sine**2, cosine**2
        line[layout.ODD] = float(sine == 0.0)
        return LayerData("trig")
    if act.family in ("exponential", "gaussian"):
        family[:2] = act.constants
        return LayerData(act.family)
    if act.family == "gelu":
        own_lines[:] = _share(scale)
        return LayerData("gelu")
    if act.family == "exp_normalized":
        gamma, shift = act.constants
        family[:2] = gamma, math.exp(gamma * shift)
        return LayerData("exp_normalized")
    if act.family == "rectified":
        degree = int(act.constants[0])
        table = arc_cosine_table(degree)
        family[:3] = _half_moment(degree) ** 2, degree**2, 0.5 * math.prod(range(1, 2 * degree, 2))
        own_lines[0] = scale**degree
        own_lines[1] = degree * scale ** (degree - 1)
        return LayerData("rectified", terms=table)
    if act.is_step:
        return _step_layer(act, field, scale, line, family)
    assert field.coefficients is not None
    assert field.tails is not None
    start, step = _parity(field.coefficients, np.sqrt(field.second))
    family[:3] = start, step, 0.0
    # the mean of an odd function by quadrature is rounding
    even = np.abs(field.mean) > 1e-15 * np.sqrt(field.second)
    line[layout.ODD] = float(start == 1 and step == 2 and not even.any())
    terms = field.coefficients[start - 1 :: step]
    pad = -len(terms) % _BLOCK
    if pad:
        terms = np.concatenate([terms, np.zeros((pad, len(scale)))])
    return LayerData("series", _contiguous(terms), _tail_table(field.tails, start, step))


def _bend(act: Activation) -> Bend:
    if act.family == "homogeneous":
        alpha, beta = slopes(act)
        return Bend(errors.KINK, (alpha + beta) ** 2)
    if act.is_step:
        return Bend(errors.JUMP, float(np.abs(np.diff(act.levels)).sum()) ** 2)
    return Bend()


def _curvature(act: Activation, field: RowMoments, scale: FloatArray) -> FloatArray:
    """sqrt(E[σ''²]) for every row, or a bound; of the terms kept for a series."""
    one = np.ones_like(scale)
    square = scale * scale
    if field.coefficients is not None:
        orders = np.arange(1.0, len(field.coefficients) + 1.0)
        total = np.sqrt((orders * (orders - 1.0)) @ field.coefficients**2)
        return np.divide(total, square, out=np.zeros_like(total), where=square > 0.0)
    if act.family == "erf":
        outer, rate, _ = act.constants
        return 4.0 / math.sqrt(math.pi) * abs(outer * rate**3) * scale / (1.0 + 4.0 * rate**2 * square) ** 0.75
    if act.family == "trig":
        amplitude, frequency, _ = act.constants
        return abs(amplitude) * frequency**2 * one
    if act.family == "exponential":
        amplitude, rate = act.constants
        return abs(amplitude) * rate**2 * np.exp(rate**2 * square)
    if act.family == "gaussian":
        amplitude, rate = act.constants
        shrink = 1.0 - 4.0 * rate * square
        v = square / shrink
        inside = 4.0 * rate**2 + 16.0 * rate**3 * v + 48.0 * rate**4 * v**2
        return abs(amplitude) * np.sqrt(np.maximum(inside, 0.0) / np.sqrt(shrink))
    if act.family == "gelu":
        return 2.0 / math.sqrt(2.0 * math.pi) * one  # |σ''| = |2 − t²| φ(t)
    if act.family == "rectified":
        degree = int(act.constants[0])
        moment = 0.5 * math.prod(range(1, 2 * degree - 4, 2))
        return degree * (degree - 1) * scale ** (degree - 2) * math.sqrt(moment)
    if act.family == "exp_normalized":
        gamma, shift = act.constants
        top = gamma * math.exp(0.5 * gamma * (1.0 + shift))
        return np.divide(top, scale, out=np.zeros_like(scale), where=scale > 0.0)
    return 0.0 * one  # kinks and jumps have bounds of their own


def _share(q: FloatArray) -> FloatArray:
    """Return q/√(1 + q²) and 1/√(1 + q²), (2, n), without overflow."""
    root = np.hypot(1.0, q)
    return np.stack([q / root, 1.0 / root])


def _step_layer(
    act: Activation, field: RowMoments, scale: FloatArray, line: FloatArray, family: FloatArray
) -> LayerData:
    jumps = np.diff(act.levels)
    if len(jumps) == 1 and act.thresholds[0] == 0.0:
        family[0] = float(jumps[0]) ** 2
        line[layout.ODD] = float(act.levels[0] == -act.levels[1])
        return LayerData("jump")
    terms = step_coefficients(act, scale, STEP_TERMS)
    left_out = field.variance - np.cumsum(terms**2, axis=0)
    unit = np.where(field.variance > 0.0, field.variance, 1.0)
    tails = _tail_table(np.concatenate([[1.0], (np.maximum(left_out, 0.0) / unit).max(axis=1)]), 1, 1)
    family[:3] = 1.0, 1.0, _series_limit(tails)
    thresholds = scaled_thresholds(act, scale)
    return LayerData("step", terms, tails, jumps, _contiguous(thresholds), _contiguous(special.ndtr(-thresholds)))


def _half_moment(degree: int) -> float:
    """E[max(ξ, 0)^degree]."""
    return 2.0 ** (0.5 * degree - 1.0) * math.gamma(0.5 * (degree + 1.0)) / math.sqrt(math.pi)


def arc_cosine_table(degree: int) -> FloatArray:
    r"""Coefficients of the arc-cosine kernels 2π I_k = P_k(ρ) sin t + Q_k(ρ)(π − t), t = arccos ρ.

    I_k' = k² I_{k−1} gives Q_k' = k² Q_{k−1} and (1 − ρ²) P_k' − ρ P_k = k² (1 − ρ²) P_{k−1} − Q_k, which determine
    both with I_k(0) = E[max(ξ, 0)^k]². All coefficients are integers.

    Returns
    -------
    ndarray, shape (4, degree + 1)
        Ascending coefficients of P_k, Q_k, P_{k−1}, Q_{k−1} at k = degree ≥ 1.

    References
    ----------
    Cho and Saul (2009), J_k = 2π I_k.
    """
    size = degree + 1
    p, q = [0] * size, [1] + [0] * degree
    for k in range(1, degree + 1):
        before = (p, q)
        square = math.prod(range(k - 1, 0, -2)) ** 2  # ((k − 1)!!)²
        q = [square if k % 2 == 0 else 0] + [k * k * before[1][j] // (j + 1) for j in range(degree)]
        right = [k * k * (before[0][j] - (before[0][j - 2] if j > 1 else 0)) - q[j] for j in range(size)]
        p = [square if k % 2 == 1 else 0] + [0] * degree
        for j in range(degree):
            p[j + 1] = (right[j] + (j * p[j - 1] if j else 0)) // (j + 1)
    return np.array([p, q, *before], dtype=np.float64)


def _parity(coefficients: FloatArray, unit: FloatArray) -> tuple[int, int]:
    """Return (first order, step) of the coefficients that are not zero."""
    size = np.abs(coefficients).max(axis=1, initial=0.0) if unit.size else np.zeros(len(coefficients))
    negligible = 4e-16 * float(unit.max(initial=0.0))
    if (size[1::2] <= negligible).all():
        return 1, 2
    if (size[0::2] <= negligible).all():
        return 2, 2
    return 1, 1


def _tail_table(tails: FloatArray, start: int, step: int) -> FloatArray:
    """Return (order, left out) after 4, 8, … stored terms; tails[j] is what orders above j hold."""
    orders = np.arange(start + step * _BLOCK, len(tails) - 1 + step * _BLOCK + start, step * _BLOCK)
    left = [float(tails[order - 1]) if order - 1 < len(tails) else float(tails[-1]) for order in orders]
    table = np.array([[float(order), value] for order, value in zip(orders, left, strict=True)])
    wanted = -(-len(range(start - 1, len(tails) - 1, step)) // _BLOCK)
    return _contiguous(table[:wanted])


def _series_limit(tails: FloatArray) -> float:
    """Return the gap below which all terms together are not enough for 1e-17 of the variance."""
    order, left = tails[-1]
    low, high = 0.0, 1.0 - 1e-6
    for _ in range(60):
        rho = 0.5 * (low + high)
        if left * rho ** (order - 1.0) * (order + 1.0 / (1.0 - rho)) < 1e-17:
            low = rho
        else:
            high = rho
    return 1.0 - low


def row_moments(act: Activation, scale: FloatArray) -> RowMoments:
    """Return what the kernels need of σ at each scale, (n,); scales that are many are interpolated."""
    if act.family == "homogeneous":
        alpha, beta = slopes(act)
        half, mean = 0.5 * (alpha**2 + beta**2), (alpha + beta) / math.sqrt(2.0 * math.pi)
        square = scale * scale
        return RowMoments(mean * scale, half * square, (half - mean**2) * square, np.full_like(scale, half))
    if act.family != "smooth":
        field = moment_arrays(act, scale)
        base = RowMoments(field.mean, field.second, field.variance, field.d1_squared)
        if act.family != "polynomial":
            return base
        coefficients = polynomial_series(act, scale).T[1:]
        return _with_series(base, coefficients, np.zeros_like(scale), np.zeros_like(scale))
    return _smooth_moments(act, scale)


def _with_series(base: RowMoments, coefficients: FloatArray, rest: FloatArray, slope_rest: FloatArray) -> RowMoments:
    squares = coefficients**2
    unit = np.where(base.variance > 0.0, base.variance, 1.0)
    above = np.concatenate([np.cumsum(squares[::-1], axis=0)[::-1], np.zeros((1, len(unit)))])
    tails = ((above + rest) / unit).max(axis=1)
    return base._replace(coefficients=coefficients, tails=tails, rest=rest, slope_rest=slope_rest)


def _smooth_moments(act: Activation, scale: FloatArray) -> RowMoments:
    scales, inverse = np.unique(scale, return_inverse=True)
    inverse = inverse.reshape(-1)
    positive = scales[scales > 0.0]
    if len(positive) <= DIRECT_COUNT:
        fields = _direct(act, positive) if len(positive) else np.zeros((0, _FIELDS + MAX_TERMS))
        nodes = fields
    else:
        interpolant = LogInterpolant(lambda tau: _scaled_fields(act, tau), positive, f"the activation {act}")
        nodes = _unscaled(act, interpolant.node_values)
    # Orders whose squares add up to less than this share are left out, unless the series ends before.
    squares = nodes[:, _FIELDS + 1 :] ** 2
    share = np.cumsum(squares[:, ::-1], axis=1)[:, ::-1] / np.maximum(nodes[:, 2], 1e-300)[:, None]
    wanted = int(np.count_nonzero((share > 1e-17).any(axis=0))) if len(nodes) else 1
    keep = slice(0, _FIELDS + 1 + min(MAX_TERMS - 1, max(wanted, 1)))
    fields = _unscaled(act, interpolant(positive, keep)) if len(positive) > DIRECT_COUNT else fields[:, keep]
    table = np.zeros((len(scales), fields.shape[1]))
    table[scales > 0.0] = fields
    if (scales == 0.0).any():
        at_zero = moment_arrays(act, np.zeros(1))
        first = np.stack([at_zero.mean, at_zero.second, at_zero.variance, at_zero.d1_squared, at_zero.mean], axis=1)
        table[scales == 0.0, : _FIELDS + 1] = first
    table = table[inverse]
    base = RowMoments(*(_contiguous(table[:, k]) for k in range(4)))
    coefficients = _contiguous(table[:, _FIELDS + 1 :].T)
    truncated = coefficients.shape[0] >= MAX_TERMS - 1
    # Rounding of the sum: the rest is known to about 1e-14 of E[σ²] and never reported below that.
    rest = np.maximum(base.second - base.mean**2 - np.sum(coefficients**2, axis=0), 1e-14 * base.second)
    orders = np.arange(1, len(coefficients) + 1)
    slope_total = scale**2 * base.d1_squared
    slope_rest = np.maximum(slope_total - orders @ coefficients**2, 1e-13 * slope_total)
    done = _with_series(base, coefficients, rest, slope_rest)
    if not truncated:  # what is left out is rounding: keep it from holding more terms in the sums than it is worth
        squares = coefficients**2
        above = np.concatenate([np.cumsum(squares[::-1], axis=0)[::-1], np.zeros((1, len(scale)))])
        unit = np.where(base.variance > 0.0, base.variance, 1.0)
        done = done._replace(tails=(above / unit).max(axis=1))
    return done


_FIELDS = 4


def _direct(act: Activation, tau: FloatArray) -> FloatArray:
    """Mean, second moment, variance, E[σ'²], c_0, c_1, …; (n, 4 + 320)."""
    field = moment_arrays(act, tau)
    first = np.stack([field.mean, field.second, field.variance, field.d1_squared], axis=1)
    return np.concatenate([first, hermite_coefficients(act, tau)], axis=1)


def _scaled_fields(act: Activation, tau: FloatArray) -> FloatArray:
    """Return the same as functions of order one: in units of sqrt(E[σ²]), logarithms of what is positive."""
    raw = _direct(act, tau)
    unit = np.sqrt(raw[:, 1])
    raw[:, 0] /= unit
    raw[:, 4:] /= unit[:, None]
    if has_jump(act):
        raw[:, 3] = 1.0
    raw[:, 1:4] = np.log(raw[:, 1:4])
    return raw


def _unscaled(act: Activation, fields: FloatArray) -> FloatArray:
    fields = fields.copy()
    fields[:, 1:4] = np.exp(fields[:, 1:4])
    if has_jump(act):
        fields[:, 3] = np.inf
    unit = np.sqrt(fields[:, 1])
    fields[:, 0] *= unit
    fields[:, 4:] *= unit[:, None]
    return fields
