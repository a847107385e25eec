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

from rmtntk._jit import layout, near
from rmtntk._typing import FloatArray
from rmtntk.activations import Activation
from rmtntk.errors import AccuracyError
from rmtntk.hermite import step_coefficients
from rmtntk.moments import has_jump, scaled_thresholds, sine_cosine, slopes
from rmtntk.network import LayerScales, Network
from rmtntk.smooth import Bend, RowMoments, bend, curvature, row_moments, series_arrays, series_limit, tail_table

__all__ = ["LayerData", "Plan", "plan"]

STEP_TERMS = 160
_REACH = 5e153
_NONE = np.zeros((0, 0))


class LayerData(NamedTuple):
    """Arrays of one layer beyond its line in the table of rows; empty where the family has none.

    terms (K, n): Hermite coefficients, or the polynomials of an arc-cosine kernel; tails (K / 4, 2): order from which
    something is left out, and how much; jumps (T,), thresholds, upper (n, T): of steps; bend, order: for the bounds,
    the latter the first order
    left out; pieces: σ by polynomials, where the series is too short for near rows.
    """

    loop: str
    terms: FloatArray = _NONE
    tails: FloatArray = _NONE
    jumps: FloatArray = np.zeros(0)
    thresholds: FloatArray = _NONE
    upper: FloatArray = _NONE
    bend: Bend = Bend()
    order: float = 0.0
    pieces: near.Pieces | None = None


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
    # Bounds are for series only; without one nobody reads these tables.
    bounded = n if any(act.family == "smooth" for act in net.activations) else 0
    left, row_slope, row_ntk = (np.zeros((*shape, bounded)) for shape in ((depth, 3), (depth,), (depth + 1,)))
    constants[0, layout.INPUT] = factor
    rows[layout.NORM0] = norm
    rows[layout.INVERSE0] = _inverse(norm)
    with np.errstate(over="ignore"):
        scale = norm * net.weight_std if b2 == 0.0 else np.hypot(norm * net.weight_std, net.bias_std)
        ntk = scale**2
    _check_finite(ntk, "the inputs' covariance", norm)
    inverse = _inverse(scale)
    ck, row_ntk[0] = ntk, ntk[:bounded]
    layers = []
    for k, act in enumerate(net.activations):
        centre = float(scales.centre[k])
        field = row_moments(act, scale)
        shift = field.mean - centre
        with np.errstate(over="ignore"):
            ck = field.variance + shift**2
            after = np.sqrt(w2 * ck + b2)
        _check_finite(after, f"layer {k + 1} ({act})", norm)
        own = rows[layout.HEAD + k * layout.FIELDS :][: layout.FIELDS]
        own[layout.SCALE] = scale
        own[layout.INVERSE] = inverse
        own[layout.SHIFT] = shift
        own[layout.MEAN] = field.mean
        own[layout.NORM] = np.sqrt(field.second)
        own[layout.NEXT] = after
        line = constants[k]
        line[layout.W2], line[layout.B2], line[layout.OUTER2] = w2, b2, 1.0
        # A constant that centring takes away from every row alike is as good as none.
        plain = centre == 0.0 or (act.family in ("erf", "step") and not shift.any())
        line[layout.EXACT] = float(plain and b2 == 0.0)
        line[layout.LAST] = float(k == depth - 1)
        if k < depth - 1:
            inverse = own[layout.INVERSE_NEXT] = _inverse(after)
        layer = _family(act, field, scale, line, own, centre)
        if bounded and field.rest is not None and field.slope_rest is not None and field.coefficients is not None:
            left[k, 0], left[k, 1] = field.rest, field.slope_rest
            layer = layer._replace(order=float(len(field.coefficients) + 1))
        if bounded:
            left[k, 2] = curvature(act, field, scale)
            layer = layer._replace(bend=bend(act))
        layers.append(layer)
        # A zero row of an unbiased network has no NTK below this layer, whatever E[σ'²] is there.
        with np.errstate(over="ignore"):
            below = np.multiply(ntk, field.d1_squared, out=np.zeros(n), where=ntk != 0.0)
            ntk = after**2 + w2 * below
        if not any(has_jump(earlier) for earlier in net.activations[: k + 1]):
            _check_finite(ntk, f"the NTK of layer {k + 1} ({act})", norm)
        row_slope[k], row_ntk[k + 1] = field.d1_squared[:bounded], ntk[:bounded]
        scale = after
    return Plan(constants, rows, tuple(layers), ck, ntk, left, row_slope, row_ntk)


def _check_finite(value: FloatArray, what: str, norm: FloatArray) -> None:
    """Raise if one overflows; what two rows have together is then finite, too."""
    if not np.isfinite(value).all():
        worst = float(norm[np.argmax(~np.isfinite(value))])
        raise AccuracyError(
            f"{what} overflows float64 for a row of norm {worst:.6g}: rescale the data or lower `weight_std`", math.inf
        )


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
        _check_reach(act, abs(rate), scale)
        line[layout.OUTER2] = outer**2
        line[layout.ODD] = float(offset == centre)
        family[0] = rate
        own_lines[:] = _share(math.sqrt(2.0) * abs(rate) * scale)
        return LayerData("erf")
    if act.family == "trig":
        amplitude, frequency, phase = act.constants
        sine, cosine = sine_cosine(phase)
        family[:4] = amplitude, frequency, sine**2, cosine**2
        line[layout.ODD] = float(sine == 0.0)
        own_lines[0] = abs(frequency) * scale
        return LayerData("trig")
    if act.family == "exponential":
        family[:2] = act.constants
        return LayerData("exponential")
    if act.family == "gaussian":
        amplitude, rate = family[:2] = act.constants
        root = math.sqrt(2.0 * abs(rate))
        _check_reach(act, root, scale)
        share = field.mean / amplitude  # (1 + a)^{-½}, a = −2 rate λ²
        own_lines[0] = -math.copysign(1.0, rate) * (root * scale * share) ** 2
        own_lines[1] = (amplitude**2 / field.second * share) ** 2  # E[f²] = A² (1 + 2a)^{-½}
        return LayerData("gaussian")
    if act.family == "gelu":
        own_lines[:] = _share(scale)
        return LayerData("gelu")
    if act.family == "exp_normalized":
        gamma, shift = act.constants
        family[:3] = gamma, math.exp(gamma * shift), math.exp(gamma * (1.0 + shift))
        return LayerData("exp_normalized")
    if act.family == "rectified":
        degree = int(act.constants[0])
        table = arc_cosine_table(degree)
        family[:3] = _half_moment(degree) ** 2, degree**2, 0.5 * math.prod(range(1, 2 * degree, 2))
        own_lines[0] = scale**degree
        own_lines[1] = degree * scale ** (degree - 1)
        return LayerData("rectified", terms=table)
    if act.is_step:
        return _step_layer(act, field, scale, line, family, centre)
    arrays = series_arrays(act, field, scale, line, own)
    return LayerData("series", arrays.terms, arrays.tails, pieces=arrays.pieces)


def _check_reach(act: Activation, rate: float, scale: FloatArray) -> None:
    """Raise where rate · λ is so large that the square of its inverse is no normal float64."""
    largest = float(scale.max(initial=0.0))
    if rate * largest > _REACH:
        raise AccuracyError(
            f"the activation {act} has a kernel beyond float64 at scale τ = {largest:.6g}: τ times {rate:.6g}, its "
            f"rate, must be below {_REACH:g}",
            math.inf,
        )


def _share(q: FloatArray) -> FloatArray:
    """Return q/√(1 + q²) and 1/√(1 + q²), (2, n), without overflow."""
    root = np.hypot(1.0, q)
    return np.stack([q / root, 1.0 / root])


def _step_layer(
    act: Activation, field: RowMoments, scale: FloatArray, line: FloatArray, family: FloatArray, centre: float
) -> LayerData:
    jumps = np.diff(act.levels)
    if len(jumps) == 1 and act.thresholds[0] == 0.0:
        family[0] = float(jumps[0]) ** 2
        line[layout.ODD] = float(0.5 * (act.levels[0] + act.levels[1]) == centre)
        return LayerData("jump")
    terms = step_coefficients(act, scale, STEP_TERMS)
    left_out = field.variance - np.cumsum(terms**2, axis=0)
    unit = np.where(field.variance > 0.0, field.variance, 1.0)
    tails = tail_table(np.concatenate([[1.0], (np.maximum(left_out, 0.0) / unit).max(axis=1)]), 1, 1)
    family[:3] = 1.0, 1.0, series_limit(tails)
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
