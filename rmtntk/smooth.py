r"""Layers given by Hermite series: coefficients of every row, what is left out, and what replaces them near ρ = ±1."""

import math
from typing import NamedTuple

import numpy as np

from rmtntk._blas import one_blas_thread
from rmtntk._jit import errors, layout, near, series
from rmtntk._typing import FloatArray
from rmtntk.activations import Activation
from rmtntk.hermite import MAX_TERMS, hermite_coefficients
from rmtntk.interpolation import DIRECT_COUNT, LogInterpolant
from rmtntk.moments import has_jump, moment_arrays, polynomial_series, slopes
from rmtntk.pieces import tabulate

__all__ = [
    "Bend",
    "RowMoments",
    "SeriesArrays",
    "bend",
    "curvature",
    "row_moments",
    "series_arrays",
    "series_limit",
    "tail_table",
]

_NEGLIGIBLE = 1e-17  # share of the variance that no sum in float64 would notice
_ROUNDING = 1e-13  # of differences of moments
_BLOCK = 4  # series are cut to a multiple of the loops' unrolling
_contiguous = np.ascontiguousarray


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
    floors: tuple[float, float] = (0.0, 0.0)


class Bend(NamedTuple):
    """How fast E[σ'σ'] changes with c: `kind` of ``_jit/errors.py`` and its size."""

    kind: int = errors.SMOOTH
    size: float = 0.0


class SeriesArrays(NamedTuple):
    """Terms (K, n), without those that vanish by parity; see `tail_table`; σ by pieces, if rows may be too near."""

    terms: FloatArray
    tails: FloatArray
    pieces: near.Pieces | None


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
    with one_blas_thread():  # products too small for more
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
        off = np.zeros(_FIELDS + MAX_TERMS)
        fields = _direct(act, positive) if len(positive) else np.zeros((0, _FIELDS + MAX_TERMS))
        nodes = fields
    else:
        interpolant = LogInterpolant(lambda tau: _scaled_fields(act, tau), positive, f"the activation {act}")
        nodes, off = _unscaled(act, interpolant.node_values), 4.0 * interpolant.errors
    # Orders whose squares add up to less than this share are left out, unless the series ends before.
    share = np.cumsum(nodes[:, :_FIELDS:-1] ** 2, axis=1)[:, ::-1] / np.maximum(nodes[:, 2], 1e-300)[:, None]
    wanted = int(np.count_nonzero((share > _NEGLIGIBLE).any(axis=0))) if len(nodes) else 1
    keep = slice(0, _FIELDS + 1 + min(MAX_TERMS - 1, max(wanted, 1)))
    fields = _unscaled(act, interpolant(positive, keep)) if len(positive) > DIRECT_COUNT else fields[:, keep]
    table = np.zeros((len(scales), fields.shape[1]))
    table[scales > 0.0] = fields
    if (scales == 0.0).any():
        at_zero = moment_arrays(act, np.zeros(1))
        first = np.stack([at_zero.mean, at_zero.second, at_zero.variance, at_zero.d1_squared, at_zero.mean], axis=1)
        table[scales == 0.0, : _FIELDS + 1] = first
    table = table[inverse]
    mean, second, variance, d1_squared = (_contiguous(table[:, k]) for k in range(4))
    base = RowMoments(mean, second, variance, d1_squared)
    coefficients = _contiguous(table[:, _FIELDS + 1 :].T)
    truncated = coefficients.shape[0] >= MAX_TERMS - 1
    orders = np.arange(1, len(coefficients) + 1)
    slope_total = scale**2 * base.d1_squared
    squares = coefficients**2
    rest = base.second - base.mean**2 - np.sum(squares, axis=0)
    slope_rest = slope_total - orders @ squares
    # The subtractions are rounded to about 1e-14. Where the coefficients have come to an end, they say so better.
    ended = ~np.full_like(scale, truncated, dtype=bool) & (rest <= _ROUNDING * base.second)
    rest = np.where(ended, _NEGLIGIBLE * base.variance, np.maximum(rest, 1e-14 * base.second))
    ended_slope = ended & (slope_rest <= 10.0 * _ROUNDING * slope_total)
    slope_rest = np.where(ended_slope, MAX_TERMS * rest, np.maximum(slope_rest, 1e-13 * slope_total))
    # Coefficients are off by δ_k: 2 Σ |c_k δ_k|, in units of E[σ²], and 2 Σ k |c_k δ_k|, in units of λ² E[σ'²].
    delta, delta_slope = np.linalg.norm(off[_FIELDS:]), math.sqrt(float(orders @ off[keep][_FIELDS + 1 :] ** 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(np.sqrt(base.second / slope_total), posinf=0.0)
    floors = (1e-14 + 2.0 * float(delta), 1e-13 + 2.0 * delta_slope * float(ratio.max(initial=0.0)))
    if not truncated:  # what is left out is rounding: keep it from holding more terms in the sums than it is worth
        rest_share = 0.0
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            rest_share = float(np.nan_to_num(rest / base.variance).max(initial=0.0))
    kept = len(coefficients)
    tails = np.zeros(kept + 1)
    if len(nodes):
        tails[:-1] = share[:, :kept].max(axis=0) - (0.0 if truncated else share[:, kept].max())
    tails = np.maximum(tails, 0.0) + rest_share
    return base._replace(coefficients=coefficients, tails=tails, rest=rest, slope_rest=slope_rest, floors=floors)


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


NEAR_RULE = near.rules(12)
_FINER_RULE = near.rules(20)
_SHARE = 0.02  # of the tolerance: what a series may leave out before it is called too short
_SMALLEST_FLOOR = 1e-13


def series_arrays(
    act: Activation, field: RowMoments, scale: FloatArray, line: FloatArray, own: FloatArray
) -> SeriesArrays:
    """Return the layer's arrays, and fill its constants and lines of rows."""
    assert field.coefficients is not None
    assert field.tails is not None
    start, step = _parity(field.coefficients, np.sqrt(field.second))
    line[series.START], line[series.STEP] = start, step
    line[series.FLOOR], line[series.SLOPE_FLOOR] = field.floors
    # the mean of an odd function by quadrature is rounding
    even = np.abs(field.mean) > 1e-15 * np.sqrt(field.second)
    line[layout.ODD] = float(start == 1 and step == 2 and not even.any())
    own[layout.VARIANCE] = field.variance
    own[layout.SLOPE_SQUARED] = field.d1_squared
    pieces = None
    limit = _too_near(act, field, scale)
    if limit > 0.0 and not has_jump(act):
        positive = scale[scale > 0.0]
        low, high = float(positive.min()), float(positive.max())
        pieces = tabulate(act, low, high)
        if pieces is not None:
            line[series.LIMIT] = limit
            ends = tuple(float(field.d1_squared[np.argmin(np.abs(scale - end))]) for end in (low, high))
            floors = _near_floors(pieces, low, high, limit, ends)
            line[series.FLOOR] = max(line[series.FLOOR], floors[0])
            line[series.SLOPE_FLOOR] = max(line[series.SLOPE_FLOOR], floors[1])
    terms = field.coefficients[start - 1 :: step]
    pad = -len(terms) % _BLOCK
    if pad:
        terms = np.concatenate([terms, np.zeros((pad, len(scale)))])
    return SeriesArrays(_contiguous(terms), tail_table(field.tails, start, step), pieces)


def _too_near(act: Activation, field: RowMoments, scale: FloatArray) -> float:
    """Return the gap 1 − |ρ| below which the series leaves out too much, 0 if it never does."""
    if field.rest is None or field.slope_rest is None or field.coefficients is None or act.family != "smooth":
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(np.nan_to_num(field.rest / field.second).max(initial=0.0))
        slope = float(np.nan_to_num(field.slope_rest / (scale**2 * field.d1_squared)).max(initial=0.0))
    allowed = _SHARE * act.tolerance
    if max(value, slope) <= max(allowed, 2e-13):  # rounding of the sums, below which neither is known
        return 0.0
    order = len(field.coefficients)  # the first one left out is one more
    return -math.expm1(-math.log(max(value, slope) / allowed) / order)


def _near_floors(
    pieces: near.Pieces, low: float, high: float, limit: float, steepness: tuple[float, ...]
) -> tuple[float, float]:
    """Relative errors of covariances and slopes of near pairs: what a finer rule changes, four times."""
    worst = np.full(2, _SMALLEST_FLOOR)
    edges = near.room(pieces)
    for su, sv, gap in (
        (low, low, limit), (high, high, limit), (high, -high, 0.1 * limit), (high, 0.97 * high, 0.01 * limit),
        (low, -low, 1e-5), (high, 0.5 * high, 0.0),
    ):  # fmt: skip
        found, finer = (
            np.array(near.pair(pieces, rule, su, sv, gap, edges, np.empty((3, len(rule.nodes)))))
            for rule in (NEAR_RULE, _FINER_RULE)
        )
        # of each distance relative to itself, but for the rounding of features nearly alike
        known = np.maximum(finer, [1e-4 * finer[1], 1e-4 * finer[0], 1e-300])
        known[2] = steepness[0] if su == low else steepness[1]
        change = np.abs(found - finer) / known
        worst = np.maximum(worst, 4.0 * np.array([change[:2].max(), change[2]]))
    return float(worst[0]), float(worst[1])


def bend(act: Activation) -> Bend:
    """Return what kinks and jumps add to the slope of E[σ'σ']."""
    if act.family == "homogeneous":
        alpha, beta = slopes(act)
        return Bend(errors.KINK, (alpha + beta) ** 2)
    if act.is_step:
        return Bend(errors.JUMP, float(np.abs(np.diff(act.levels)).sum()) ** 2)
    if act.family != "smooth" or not act.breakpoints:
        return Bend()
    points = np.array(act.breakpoints)
    step = 1e-6 * np.maximum(1.0, np.abs(points))
    a, b, c, d = (act.function(points + k * step) for k in (-2.0, -1.0, 1.0, 2.0))
    if has_jump(act):
        return Bend(errors.JUMP, float(np.abs(c - b).sum()) ** 2)
    change = np.abs((d - c) - (b - a)) / step
    return Bend(errors.KINK, float(change.sum()) ** 2) if change.max() > 1e-5 else Bend()


def curvature(act: Activation, field: RowMoments, scale: FloatArray) -> FloatArray:
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


def _parity(coefficients: FloatArray, unit: FloatArray) -> tuple[int, int]:
    """Return (first order, step) of the coefficients that are not zero."""
    size = np.abs(coefficients).max(axis=1, initial=0.0) if unit.size else np.zeros(len(coefficients))
    negligible = 4e-16 * float(unit.max(initial=0.0))
    if (size[1::2] <= negligible).all():
        return 1, 2
    if (size[0::2] <= negligible).all():
        return 2, 2
    return 1, 1


def tail_table(tails: FloatArray, start: int, step: int) -> FloatArray:
    """Return (order, left out) after 4, 8, … stored terms; tails[j] is what orders above j hold."""
    orders = np.arange(start + step * _BLOCK, len(tails) - 1 + step * _BLOCK + start, step * _BLOCK)
    left = [float(tails[order - 1]) if order - 1 < len(tails) else float(tails[-1]) for order in orders]
    table = np.array([[float(order), value] for order, value in zip(orders, left, strict=True)])
    wanted = -(-len(range(start - 1, len(tails) - 1, step)) // _BLOCK)
    return _contiguous(table[:wanted])


def series_limit(tails: FloatArray) -> float:
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
