r"""One pass from a Gram matrix to the conjugate and neural tangent kernels of a deep network.

Every entry goes through all layers on its own. Its state is the covariance c of the pre-activations and two
gaps, 1 − ρ and 1 + ρ, each accurate when it is small: ρ itself, rounded near ±1, would lose half the digits
of the angle. Helpers stay in this file because Numba's disk cache does not notice edits elsewhere.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from rmtntk._jit._options import njit


class LayerTable(NamedTuple):
    """Constants of L layers; thresholds and series terms of all layers stand side by side.

    codes (L,) int64: family; constants (L, 4): α, β | a; first_step, first_term (L + 1,) int64: where a layer's
    thresholds and terms begin; jumps (T,); exact (L,) int64: 1 if nothing is added to or subtracted from the
    features; w2, b2: squared weight and bias scales.
    """

    codes: Any
    constants: Any
    first_step: Any
    first_term: Any
    jumps: Any
    exact: Any
    w2: float
    b2: float


class RowTable(NamedTuple):
    """What the layers make of n rows.

    norm0 (n,): norm of the row; and per layer: scale (L, n) λ; mean (L, n) E[σ]; shift (L, n) E[σ] − centre;
    norm (L, n) sqrt(E[σ²]); thresholds (n, T) s/λ; upper (n, T) P(ξ > s/λ); series (n, S) Hermite coefficients;
    tails, slope_tails (L, n) Σ_{k≥K} c_k², Σ_{k≥K} k c_k²; ck_diagonal, ntk_diagonal (n,): closed forms.
    """

    norm0: Any
    scale: Any
    mean: Any
    shift: Any
    norm: Any
    thresholds: Any
    upper: Any
    series: Any
    tails: Any
    slope_tails: Any
    ck_diagonal: Any
    ntk_diagonal: Any


class Rules(NamedTuple):
    """Gauss–Legendre rules on [0, 1]: nodes, weights (3, 20) and how many of them count (3,)."""

    nodes: Any
    weights: Any
    counts: Any


HOMOGENEOUS = 0
ERF = 1
STEP = 2
SERIES = 3

# Gauss–Legendre rules on [0, 1] for the bivariate normal integral, by |ρ| (Genz 2004 uses the same orders).
_RULES = [np.polynomial.legendre.leggauss(count) for count in (8, 12, 20)]
RULES = Rules(np.zeros((3, 20)), np.zeros((3, 20)), np.array([8, 12, 20]))
for _k, (_x, _w) in enumerate(_RULES):
    RULES.nodes[_k, : len(_x)] = 0.5 * (_x + 1.0)
    RULES.weights[_k, : len(_w)] = 0.5 * _w

NEAR_GAP = 0.1  # below, a layer hands on the gap of its features rather than one minus their correlation
DIRECT_GAP = 1e-4  # below, 1 − |ρ| is recomputed from the rows themselves
ROUNDING_GAP = 16.0 * 2.0**-104  # (4 eps)²: squared distance of two roundings of one unit vector
SAME_THRESHOLD = 8.0 * 2.0**-52  # relative: thresholds of two rows whose norms differ by rounding only
STEP_SWITCH = 0.925  # above this |ρ| the step's integral starts from ρ = ±1 instead of 0
# Four-point Gauss–Legendre on [−1, 1], as tuples: compiled in as constants.
GAUSS4_NODES = (-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526)
GAUSS4_WEIGHTS = (0.34785484513745385, 0.6521451548625461, 0.6521451548625461, 0.34785484513745385)
INV_2PI = 1.0 / (2.0 * math.pi)
SQRT_2PI = math.sqrt(2.0 * math.pi)


@njit()
def sine_minus_tcos(t):
    """Sin t − t cos t for 0 ≤ t ≤ π/2, to full relative accuracy."""
    if t > 0.7:
        return math.sin(t) - t * math.cos(t)
    z = t * t
    # Σ (−1)^{k+1} 2k/(2k+1)! t^{2k+1}; the next term is below 1e-17 relative at t = 0.7
    s = -16.0 / 355687428096000.0
    s = 14.0 / 1307674368000.0 + z * s
    s = -12.0 / 6227020800.0 + z * s
    s = 10.0 / 39916800.0 + z * s
    s = -8.0 / 362880.0 + z * s
    s = 6.0 / 5040.0 + z * s
    s = -4.0 / 120.0 + z * s
    s = 2.0 / 6.0 + z * s
    return t * z * s


@njit()
def homogeneous_dual(alpha, beta, c, su, sv, gap):
    """Covariance, derivative dual and near gap for σ(t) = α max(t,0) + β max(−t,0); gap = 1 − |ρ|.

    Returns (E[σσ], E[σ'σ'], gap_out, side) where gap_out = 1 − side·ρ_out.
    """
    t = 2.0 * math.asin(math.sqrt(0.5 * gap))  # angle to the nearer of ±1
    a = sine_minus_tcos(t)
    square = alpha * alpha + beta * beta
    plus = (alpha + beta) ** 2
    half = 0.5 * square
    scale = su * sv
    if c >= 0.0:
        drop = (square * math.pi * gap - plus * a) * INV_2PI
        value = (half - drop) * scale
        slope = (square * (math.pi - t) - 2.0 * alpha * beta * t) * INV_2PI
        return value, slope, drop / half, 1.0
    rise = (plus * a - 2.0 * alpha * beta * math.pi * gap) * INV_2PI
    value = (alpha * beta + rise) * scale
    slope = (square * t - 2.0 * alpha * beta * (math.pi - t)) * INV_2PI
    if alpha * beta < 0.0 and value < 0.0:
        return value, slope, (0.5 * plus + rise) / half, -1.0
    return value, slope, (0.5 * (alpha - beta) ** 2 - rise) / half, 1.0


@njit()
def erf_spread(s, t):
    """E[(erf(sξ/√2) − erf(tξ/√2))²] = (2/π) ∬ (1 + x² + y²)^{-3/2} over [t, s]², without cancellation."""
    if abs(s - t) > 0.01 * math.sqrt(1.0 + s * t):
        asin_s = math.atan2(s * s, math.sqrt(1.0 + 2.0 * s * s))
        asin_t = math.atan2(t * t, math.sqrt(1.0 + 2.0 * t * t))
        return max(0.0, 2.0 / math.pi * (asin_s + asin_t - 2.0 * math.atan2(s * t, math.sqrt(1.0 + s * s + t * t))))
    half = 0.5 * (s - t)
    middle = 0.5 * (s + t)
    total = 0.0
    for a in range(4):
        x = middle + half * GAUSS4_NODES[a]
        for b in range(4):
            y = middle + half * GAUSS4_NODES[b]
            total += GAUSS4_WEIGHTS[a] * GAUSS4_WEIGHTS[b] / (1.0 + x * x + y * y) ** 1.5
    return 2.0 / math.pi * half * half * total


@njit()
def erf_dual(a, c, su, sv, gap, nu, nv):
    """Same for σ(t) = erf(a t); nu, nv = sqrt(E[σ²]) of the two rows."""
    side = 1.0 if c >= 0.0 else -1.0
    qu = 2.0 * a * a * su * su
    qv = 2.0 * a * a * sv * sv
    product = 2.0 * a * a * su * sv
    root = math.sqrt(1.0 + qu + qv + product * product * gap * (2.0 - gap))
    z = product * (1.0 - gap)
    value = 2.0 / math.pi * math.atan2(z, root)
    slope = 4.0 * a * a / math.pi / root
    # E at |ρ| = 1 minus E at ρ: sin of the difference of two arcsines, whose numerator factors
    top_root = math.sqrt(1.0 + qu + qv)
    sine = product * gap * (product + z) / (product * root + z * top_root) if product > 0.0 else 0.0
    drop = 2.0 / math.pi * math.asin(min(1.0, sine))
    spread = 0.0
    if su != sv:
        spread = erf_spread(math.sqrt(qu), math.sqrt(qv))
    norm = nu * nv
    gap_out = (spread - (nu - nv) ** 2 + 2.0 * drop) / (2.0 * norm) if norm > 0.0 else 1.0
    return side * value, slope, gap_out, side


@njit()
def normal_upper(x):
    """P(ξ > x)."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))


@njit()
def step_spread(first, last, jumps, ru, rv, direct):
    """E[(σ(su ξ) − σ(sv ξ))²] of a step: Σ Δ_j² P(ξ between r_j and r'_j) if these intervals do not overlap.

    `direct` is the value by subtraction, taken where they do.
    """
    total = 0.0
    reached = -math.inf
    for j in range(first, last):
        low = min(ru[j], rv[j])
        high = max(ru[j], rv[j])
        if low < reached:
            return max(0.0, direct)
        reached = high
        if not (math.isfinite(low) and math.isfinite(high)):
            return max(0.0, direct)
        if high - low < 0.01:
            half = 0.5 * (high - low)
            middle = 0.5 * (high + low)
            mass = 0.0
            for a in range(4):
                point = middle + half * GAUSS4_NODES[a]
                mass += GAUSS4_WEIGHTS[a] * math.exp(-0.5 * point * point)
            mass *= half / SQRT_2PI
        elif low > 0.0:
            mass = normal_upper(low) - normal_upper(high)
        else:
            mass = normal_upper(-high) - normal_upper(-low)
        total += jumps[j] * jumps[j] * mass
    return total


@njit()
def orthant_deficit(h, k, gap, rules):
    """∫_ρ^1 φ₂(h, k; r) dr with gap = 1 − ρ ≤ 0.075 (Genz 2004, section 2.3, Drezner–Wesolowsky expansion)."""
    if gap <= 0.0 or not (math.isfinite(h) and math.isfinite(k)):
        return 0.0
    a2 = gap * (2.0 - gap)
    a = math.sqrt(a2)
    bs = (h - k) ** 2
    hk = h * k
    if 0.5 * (bs / a2 + hk) > 700.0:
        return 0.0
    c = (4.0 - hk) / 8.0
    d = (12.0 - hk) / 16.0
    total = 0.0
    exponent = -0.5 * (bs / a2 + hk)
    if exponent > -700.0:
        total = a * math.exp(exponent) * (1.0 - c * (bs - a2) * (1.0 - d * bs / 5.0) / 3.0 + c * d * a2 * a2 / 5.0)
    if hk > -100.0:
        b = math.sqrt(bs)
        tail = SQRT_2PI * normal_upper(b / a)
        total -= math.exp(-0.5 * hk) * tail * b * (1.0 - c * bs * (1.0 - d * bs / 5.0) / 3.0)
    for m in range(20):
        x = a * rules.nodes[2, m]
        xs = x * x
        rs = math.sqrt(1.0 - xs)
        exponent = -0.5 * (bs / xs + hk)
        if exponent > -700.0:
            exact = math.exp(-hk * xs / (2.0 * (1.0 + rs) ** 2)) / rs
            total += a * rules.weights[2, m] * math.exp(exponent) * (exact - (1.0 + c * xs * (1.0 + d * xs)))
    return max(0.0, total * INV_2PI)


@njit()
def step_dual(first, last, jumps, ru, rv, pu, pv, c, su, sv, gap, nu, nv, mu, mv, rules):
    """Same for a step with thresholds first … last−1, except that the first result is the *covariance*."""
    side = 1.0 if c >= 0.0 else -1.0
    rho = 1.0 - gap
    cov = 0.0
    slope = 0.0
    gap_out = 1.0
    sine_sq = gap * (2.0 - gap)
    sine = math.sqrt(sine_sq)
    for i in range(first, last):
        for j in range(first, last):
            h = ru[i]
            k = side * rv[j]
            if not (math.isfinite(h) and math.isfinite(k)):
                continue
            if gap <= 0.0:
                if abs(h - k) <= SAME_THRESHOLD * abs(h):  # the density of (u, u) is concentrated on u = v
                    slope += jumps[i] * jumps[j] * math.inf
            else:
                exponent = -0.5 * (h - k) ** 2 / sine_sq - h * k / (2.0 - gap)
                slope += jumps[i] * jumps[j] * math.exp(exponent) / sine
    slope *= INV_2PI / (su * sv)
    if rho <= STEP_SWITCH:
        rule = 0 if rho < 0.3 else (1 if rho < 0.75 else 2)
        angle = side * math.asin(rho)
        for m in range(rules.counts[rule]):
            psi = angle * rules.nodes[rule, m]
            sin_psi = math.sin(psi)
            inverse = 0.5 / ((1.0 - sin_psi) * (1.0 + sin_psi))
            inner = 0.0
            for i in range(first, last):
                h = ru[i]
                for j in range(first, last):
                    k = rv[j]
                    if math.isfinite(h) and math.isfinite(k):
                        inner += jumps[i] * jumps[j] * math.exp(-(h * h - 2.0 * h * k * sin_psi + k * k) * inverse)
            cov += rules.weights[rule, m] * inner
        cov *= angle * INV_2PI
        norm = nu * nv
        if norm > 0.0:
            gap_out = 1.0 - (cov + mu * mv) / norm
        return cov, slope, gap_out, 1.0
    # near ±1: the value there is closed, and what is missing is integrated from there
    top = 0.0
    deficit = 0.0
    for i in range(first, last):
        for j in range(first, last):
            weight = jumps[i] * jumps[j]
            if side > 0.0:
                top += weight * (min(pu[i], pv[j]) - pu[i] * pv[j])
            else:
                top += weight * (max(0.0, pu[i] + pv[j] - 1.0) - pu[i] * pv[j])
            deficit += side * weight * orthant_deficit(ru[i], side * rv[j], gap, rules)
    cov = top - deficit
    norm = nu * nv
    if norm > 0.0:
        if side > 0.0:
            spread = 0.0
            if su != sv:
                spread = step_spread(first, last, jumps, ru, rv, nu * nu + nv * nv - 2.0 * (top + mu * mv))
            gap_out = (spread - (nu - nv) ** 2 + 2.0 * deficit) / (2.0 * norm)
        else:
            gap_out = 1.0 - (cov + mu * mv) / norm
    return cov, slope, gap_out, 1.0


@njit()
def series_dual(first, last, hu, hv, c, su, sv, gap, nu, nv):
    """Same for a Hermite series with terms first … last−1 (orders 0, 1, …); the first result is the covariance."""
    side = 1.0 if c >= 0.0 else -1.0
    rho = 1.0 - gap
    cov = 0.0
    slope = 0.0
    missing = 0.0  # 1 − |ρ|^k, without cancellation
    power = 1.0
    sign = 1.0  # side^k
    apart = 0.0  # ‖f − g‖²
    together = 0.0  # ‖f + g‖²
    for k in range(last - first):
        u = hu[first + k]
        v = sign * hv[first + k]  # the partner at correlation |ρ|
        if k > 0:
            slope += k * side * u * v * power  # side^{k−1} = side · side^k
            missing += power * gap
            power *= rho
            cov += u * v * power
        apart += (u - v) ** 2 + 2.0 * u * v * missing
        together += (u + v) ** 2 - 2.0 * u * v * missing
        sign *= side
    if su * sv > 0.0:
        slope /= su * sv
    norm = nu * nv
    if norm == 0.0:
        return cov, slope, 1.0, 1.0
    if apart <= together:
        return cov, slope, (apart - (nu - nv) ** 2) / (2.0 * norm), 1.0
    return cov, slope, (together - (nu - nv) ** 2) / (2.0 * norm), -1.0


@njit()
def tail_slope(rho, terms):
    """Sup of k ρ^{k−1} over k ≥ terms."""
    if rho <= 0.0:
        return 1.0 if terms <= 1 else 0.0
    if rho >= 1.0:
        return math.inf
    best = max(float(terms), -1.0 / math.log(rho))
    return best * rho ** (best - 1.0)


@njit()
def slope_derivative(layer, i, j, c, su, sv, gap, layers, x, y):
    """Bound of |∂E[σ'σ']/∂c|, to carry errors of c into the NTK."""
    scale = su * sv
    if scale == 0.0:
        return 0.0
    sine_sq = gap * (2.0 - gap)
    code = layers.codes[layer]
    if code == HOMOGENEOUS:
        plus = (layers.constants[layer, 0] + layers.constants[layer, 1]) ** 2
        return plus * INV_2PI / (scale * math.sqrt(sine_sq)) if plus > 0.0 else 0.0
    if code == ERF:
        a2 = layers.constants[layer, 0] ** 2
        root_sq = 1.0 + 2.0 * a2 * (su * su + sv * sv) + (2.0 * a2 * scale) ** 2 * sine_sq
        return 16.0 * a2**3 / math.pi * abs(c) / root_sq**1.5
    rho = 1.0 - gap
    side = 1.0 if c >= 0.0 else -1.0
    total = 0.0
    if code == STEP:
        for a in range(layers.first_step[layer], layers.first_step[layer + 1]):
            for b in range(layers.first_step[layer], layers.first_step[layer + 1]):
                h = x.thresholds[i, a]
                k = side * y.thresholds[j, b]
                if not (math.isfinite(h) and math.isfinite(k)):
                    continue
                if sine_sq == 0.0:
                    return math.inf
                density = math.exp(-0.5 * (h - k) ** 2 / sine_sq - h * k / (2.0 - gap)) / math.sqrt(sine_sq)
                bend = abs(rho) / sine_sq + abs((h - rho * k) * (k - rho * h)) / sine_sq**2
                total += abs(layers.jumps[a] * layers.jumps[b]) * density * bend
        return total * INV_2PI / (scale * scale)
    power = 1.0
    first_term = layers.first_term[layer]
    for k in range(2, layers.first_term[layer + 1] - first_term):
        total += k * (k - 1.0) * abs(x.series[i, first_term + k] * y.series[j, first_term + k]) * power
        power *= rho
    return total / (scale * scale)


@njit()
def layer_dual(layer, i, j, c, su, sv, gap, layers, x, y, rules):
    """Covariance-like value, derivative dual and near gap of one layer, and the CK entry K_ij after centring."""
    nu = x.norm[layer, i]
    nv = y.norm[layer, j]
    mu = x.mean[layer, i]
    mv = y.mean[layer, j]
    shifts = x.shift[layer, i] * y.shift[layer, j]
    code = layers.codes[layer]
    if code == HOMOGENEOUS:
        value, slope, gap_out, side = homogeneous_dual(
            layers.constants[layer, 0], layers.constants[layer, 1], c, su, sv, gap
        )
        centre = mu - x.shift[layer, i]
        return value - centre * (mu + mv) + centre * centre, slope, gap_out, side
    if code == ERF:
        value, slope, gap_out, side = erf_dual(layers.constants[layer, 0], c, su, sv, gap, nu, nv)
        return value + shifts, slope, gap_out, side
    if code == STEP:
        if su * sv == 0.0:  # an input of zero: a constant feature
            gap_out = 1.0 - mu * mv / (nu * nv) if nu * nv > 0.0 else 1.0
            return shifts, 0.0, gap_out, 1.0
        value, slope, gap_out, side = step_dual(
            layers.first_step[layer], layers.first_step[layer + 1], layers.jumps, x.thresholds[i], y.thresholds[j],
            x.upper[i], y.upper[j], c, su, sv, gap, nu, nv, mu, mv, rules,
        )  # fmt: skip
        return value + shifts, slope, gap_out, side
    value, slope, gap_out, side = series_dual(
        layers.first_term[layer], layers.first_term[layer + 1], x.series[i], y.series[j], c, su, sv, gap, nu, nv
    )
    return value + shifts, slope, gap_out, side


@njit()
def kernel_entry(i, j, c, gap_plus, gap_minus, layers, x, y, rules):
    """CK and NTK of one pair of rows, and bounds of what truncated series left out (to first order).

    c and the gaps are those of Λ_1.
    """
    w2 = layers.w2
    ntk = c
    ck = 0.0
    error_c = 0.0
    error_ck = 0.0
    error_ntk = 0.0
    depth = len(layers.codes)
    for layer in range(depth):
        su = x.scale[layer, i]
        sv = y.scale[layer, j]
        gap = gap_plus if c >= 0.0 else gap_minus
        gap = min(1.0, max(0.0, gap))  # rounding only: |c| ≤ su·sv by Cauchy–Schwarz
        if su * sv == 0.0:
            gap = 1.0
        ck, slope, gap_out, side = layer_dual(layer, i, j, c, su, sv, gap, layers, x, y, rules)
        cut = math.sqrt(x.tails[layer, i] * y.tails[layer, j])
        if cut > 0.0 or error_c > 0.0:
            rho = 1.0 - gap
            terms = layers.first_term[layer + 1] - layers.first_term[layer]
            bend = slope_derivative(layer, i, j, c, su, sv, gap, layers, x, y)
            error_ck = abs(slope) * error_c + cut * rho**terms
            # Cauchy–Schwarz on Σ_{k≥K} k c_k c'_k ρ^{k−1}, with the weights k on the coefficients or on the powers
            cut_slope = math.sqrt(x.slope_tails[layer, i] * y.slope_tails[layer, j]) * rho ** max(terms - 1, 0)
            error_slope = bend * error_c if error_c > 0.0 else 0.0  # bend may be infinite
            if cut > 0.0:
                error_slope += min(cut_slope, cut * tail_slope(rho, terms)) / (su * sv)
            error_ntk = w2 * (error_ck + error_ntk * abs(slope) + abs(ntk) * error_slope)
            through_gap = False  # as decided below for the next layer
            if layer + 1 < depth:
                next_scale = x.scale[layer + 1, i] * y.scale[layer + 1, j]
                near = next_scale > 0.0 and 1.0 - (w2 * ck + layers.b2) / next_scale < NEAR_GAP
                through_gap = layers.exact[layer] != 0 or (side > 0.0 and near)
            if through_gap and cut > 0.0:
                # The gap's tail is Σ_{k≥K} ½(u − v)² + uv(1 − ρ^k), and 1 − ρ^k ≤ min(1, k gap).
                spread = 0.0
                if su != sv:
                    spread = 0.5 * (math.sqrt(x.tails[layer, i]) + math.sqrt(y.tails[layer, j])) ** 2
                weighted = math.sqrt(x.slope_tails[layer, i] * y.slope_tails[layer, j])
                error_c = w2 * (abs(slope) * error_c + spread + min(cut, gap * weighted))
            else:
                error_c = w2 * error_ck
        product = 0.0 if ntk == 0.0 else ntk * slope
        c = w2 * ck + layers.b2
        ntk = c + w2 * product
        if layer + 1 < depth:
            tu = x.scale[layer + 1, i]
            tv = y.scale[layer + 1, j]
            if tu * tv == 0.0:
                gap_plus, gap_minus = 1.0, 1.0
            elif layers.exact[layer] != 0:  # no centring, no bias: the correlation is that of the features
                gap_plus = gap_out if side > 0.0 else 2.0 - gap_out
                gap_minus = gap_out if side < 0.0 else 2.0 - gap_out
            else:
                gap_plus = 1.0 - c / (tu * tv)
                gap_minus = 1.0 + c / (tu * tv)
                if side > 0.0 and gap_plus < NEAR_GAP:
                    # ‖f − g‖² does not depend on what is subtracted from, or added to, both features
                    nu = x.norm[layer, i]
                    nv = y.norm[layer, j]
                    near = w2 * ((nu - nv) ** 2 + 2.0 * nu * nv * gap_out) - (tu - tv) ** 2
                    gap_plus = near / (2.0 * tu * tv)
    return ck, ntk, error_ck, error_ntk


@njit()
def input_gap(x, y, i, j, norm_u, norm_v, c):
    """1 − |ρ| of two rows: from c where that is accurate, else from the difference of the unit vectors."""
    scale = norm_u * norm_v
    if scale == 0.0:
        return 1.0
    gap = 1.0 - abs(c) / scale
    if gap > DIRECT_GAP:
        return gap
    sign = 1.0 if c >= 0.0 else -1.0
    total = 0.0
    for k in range(x.shape[1]):
        difference = x[i, k] / norm_u - sign * (y[j, k] / norm_v)
        total += difference * difference
    # Unit vectors are rounded: rows that are parallel come out up to this far apart, and are taken as parallel.
    return 0.5 * total if total > ROUNDING_GAP else 0.0


@njit()
def entry_from_gram(i, j, c0, data_x, data_y, layers, x, y, rules):
    """CK and NTK of one pair of rows from its entry of K_0."""
    u = x.norm0[i]
    v = y.norm0[j]
    gap = input_gap(data_x, data_y, i, j, u, v, c0)
    c = layers.w2 * c0 + layers.b2
    gap_plus = gap if c0 >= 0.0 else 2.0 - gap
    gap_minus = 2.0 - gap if c0 >= 0.0 else gap
    if layers.b2 > 0.0:
        su = x.scale[0, i]
        sv = y.scale[0, j]
        gap_plus = (layers.w2 * ((u - v) ** 2 + 2.0 * u * v * gap_plus) - (su - sv) ** 2) / (2.0 * su * sv)
        gap_minus = 1.0 + c / (su * sv)
    return kernel_entry(i, j, c, gap_plus, gap_minus, layers, x, y, rules)


@njit(parallel=True)
def symmetric_kernels(gram, ntk_out, want_ck, want_ntk, errors, data, layers, rows, rules):
    """Turn `gram` (K_0) into the CK in place if wanted, and fill `ntk_out` (may be `gram` itself).

    errors[i] receives the largest truncation bounds, of CK and NTK, over the entries that iteration i owns.
    """
    n = gram.shape[0]
    for pair in prange((n + 1) // 2):  # rows k and n − 1 − k together cost the same for every k
        for turn in range(2):
            i = np.int64(pair) if turn == 0 else n - 1 - np.int64(pair)
            if turn == 1 and i == np.int64(pair):
                break
            for j in range(i + 1, n):
                ck, ntk, error_ck, error_ntk = entry_from_gram(i, j, gram[i, j], data, data, layers, rows, rows, rules)
                errors[i, 0] = max(errors[i, 0], error_ck)
                errors[i, 1] = max(errors[i, 1], error_ntk)
                if want_ck:
                    gram[i, j] = ck
                    gram[j, i] = ck
                if want_ntk:
                    ntk_out[i, j] = ntk
                    ntk_out[j, i] = ntk
            if want_ck:
                gram[i, i] = rows.ck_diagonal[i]
            if want_ntk:
                ntk_out[i, i] = rows.ntk_diagonal[i]


@njit(parallel=True)
def cross_kernels(gram, ntk_out, want_ck, want_ntk, errors, data_x, data_y, layers, x, y, rules):
    """Same for a rectangular K_0."""
    for row in prange(gram.shape[0]):
        i = np.int64(row)
        for j in range(gram.shape[1]):
            ck, ntk, error_ck, error_ntk = entry_from_gram(i, j, gram[i, j], data_x, data_y, layers, x, y, rules)
            errors[i, 0] = max(errors[i, 0], error_ck)
            errors[i, 1] = max(errors[i, 1], error_ntk)
            if want_ck:
                gram[i, j] = ck
            if want_ntk:
                ntk_out[i, j] = ntk
