r"""One pass from a Gram matrix to the conjugate and neural tangent kernels of a deep network.

Every entry goes through all layers on its own. Its state is the covariance c of the pre-activations and two
gaps, 1 − ρ and 1 + ρ, each accurate when it is small: ρ itself, rounded near ±1, would lose half the digits
of the angle. Helpers stay in this file because Numba's disk cache does not notice edits elsewhere.

Layer tables (L layers, n rows, T thresholds and S series terms over all layers together):

    codes (L,) int64; constants (L, 4): α, β | a, –; first_step, first_term (L + 1,) int64 offsets
    jumps (T,)
    per row: scale (L, n) λ; mean (L, n) E[σ]; shift (L, n) E[σ] − centre; norm (L, n) sqrt(E[σ²]);
             thresholds (n, T) s/λ; upper (n, T) P(ξ > s/λ); series (n, S); tails (L, n) Σ_{k≥K} c_k²
"""

import math

import numpy as np
from numba import prange

from rmtntk._jit._options import njit

HOMOGENEOUS = 0
ERF = 1
STEP = 2
SERIES = 3

# Gauss–Legendre rules on [0, 1] for the bivariate normal integral, by |ρ| (Genz 2004 uses the same orders).
_RULES = [np.polynomial.legendre.leggauss(count) for count in (8, 12, 20)]
NODES = np.zeros((3, 20))
WEIGHTS = np.zeros((3, 20))
COUNTS = np.array([8, 12, 20])
for _k, (_x, _w) in enumerate(_RULES):
    NODES[_k, : len(_x)] = 0.5 * (_x + 1.0)
    WEIGHTS[_k, : len(_w)] = 0.5 * _w

DIRECT_GAP = 1e-4  # below, 1 − |ρ| is recomputed from the rows themselves
STEP_SWITCH = 0.925  # above this |ρ| the step's integral starts from ρ = ±1 instead of 0
INV_2PI = 1.0 / (2.0 * math.pi)
SQRT_2PI = math.sqrt(2.0 * math.pi)


@njit()
def sine_minus_tcos(t):
    """sin t − t cos t for 0 ≤ t ≤ π/2, to full relative accuracy."""
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
        spread = max(0.0, nu * nu + nv * nv - 4.0 / math.pi * math.atan2(product, top_root))
    norm = nu * nv
    gap_out = (spread - (nu - nv) ** 2 + 2.0 * drop) / (2.0 * norm) if norm > 0.0 else 1.0
    return side * value, slope, gap_out, side


@njit()
def normal_upper(x):
    """P(ξ > x)."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))


@njit()
def orthant_deficit(h, k, gap, nodes, weights):
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
        x = a * nodes[2, m]
        xs = x * x
        rs = math.sqrt(1.0 - xs)
        exponent = -0.5 * (bs / xs + hk)
        if exponent > -700.0:
            exact = math.exp(-hk * xs / (2.0 * (1.0 + rs) ** 2)) / rs
            total += a * weights[2, m] * math.exp(exponent) * (exact - (1.0 + c * xs * (1.0 + d * xs)))
    return max(0.0, total * INV_2PI)


@njit()
def step_dual(first, last, jumps, ru, rv, pu, pv, c, su, sv, gap, nu, nv, mu, mv, nodes, weights, counts):
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
                slope += jumps[i] * jumps[j] * (math.inf if h == k else 0.0)
            else:
                exponent = -0.5 * (h - k) ** 2 / sine_sq - h * k / (2.0 - gap)
                slope += jumps[i] * jumps[j] * math.exp(exponent) / sine
    slope *= INV_2PI / (su * sv)
    if rho <= STEP_SWITCH:
        rule = 0 if rho < 0.3 else (1 if rho < 0.75 else 2)
        angle = side * math.asin(rho)
        for m in range(counts[rule]):
            psi = angle * nodes[rule, m]
            sin_psi = math.sin(psi)
            inverse = 0.5 / ((1.0 - sin_psi) * (1.0 + sin_psi))
            inner = 0.0
            for i in range(first, last):
                h = ru[i]
                for j in range(first, last):
                    k = rv[j]
                    if math.isfinite(h) and math.isfinite(k):
                        inner += jumps[i] * jumps[j] * math.exp(-(h * h - 2.0 * h * k * sin_psi + k * k) * inverse)
            cov += weights[rule, m] * inner
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
            deficit += side * weight * orthant_deficit(ru[i], side * rv[j], gap, nodes, weights)
    cov = top - deficit
    norm = nu * nv
    if norm > 0.0:
        if side > 0.0:
            spread = 0.0
            if su != sv:
                spread = max(0.0, nu * nu + nv * nv - 2.0 * (top + mu * mv))
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
    """sup of k ρ^{k−1} over k ≥ terms."""
    if rho <= 0.0:
        return 1.0 if terms <= 1 else 0.0
    if rho >= 1.0:
        return math.inf
    best = max(float(terms), -1.0 / math.log(rho))
    return best * rho ** (best - 1.0)


@njit()
def slope_derivative(
    code, constants, first_step, last_step, jumps, ru, rv, first_term, last_term, hu, hv, c, su, sv, gap
):
    """Bound of |∂E[σ'σ']/∂c|, to carry errors of c into the NTK."""
    scale = su * sv
    if scale == 0.0:
        return 0.0
    sine_sq = gap * (2.0 - gap)
    if code == HOMOGENEOUS:
        plus = (constants[0] + constants[1]) ** 2
        return plus * INV_2PI / (scale * math.sqrt(sine_sq)) if plus > 0.0 else 0.0
    if code == ERF:
        a2 = constants[0] ** 2
        root_sq = 1.0 + 2.0 * a2 * (su * su + sv * sv) + (2.0 * a2 * scale) ** 2 * sine_sq
        return 16.0 * a2**3 / math.pi * abs(c) / root_sq**1.5
    rho = 1.0 - gap
    side = 1.0 if c >= 0.0 else -1.0
    total = 0.0
    if code == STEP:
        for i in range(first_step, last_step):
            for j in range(first_step, last_step):
                h = ru[i]
                k = side * rv[j]
                if not (math.isfinite(h) and math.isfinite(k)):
                    continue
                if sine_sq == 0.0:
                    return math.inf
                density = math.exp(-0.5 * (h - k) ** 2 / sine_sq - h * k / (2.0 - gap)) / math.sqrt(sine_sq)
                bend = abs(rho) / sine_sq + abs((h - rho * k) * (k - rho * h)) / sine_sq**2
                total += abs(jumps[i] * jumps[j]) * density * bend
        return total * INV_2PI / (scale * scale)
    power = 1.0
    for k in range(2, last_term - first_term):
        total += k * (k - 1.0) * abs(hu[first_term + k] * hv[first_term + k]) * power
        power *= rho
    return total / (scale * scale)


@njit()
def kernel_entry(
    i, j, c, gap_plus, gap_minus, w2, b2, codes, constants, first_step, first_term, jumps,
    scale_x, mean_x, shift_x, norm_x, thresholds_x, upper_x, series_x, tails_x,
    scale_y, mean_y, shift_y, norm_y, thresholds_y, upper_y, series_y, tails_y, exact, nodes, weights, counts,
):  # fmt: skip
    """CK and NTK of one pair of rows, and bounds of what truncated series left out (to first order).

    c and the gaps are those of Λ_1.
    """
    ntk = c
    error_c = 0.0
    error_ck = 0.0
    error_ntk = 0.0
    ck = 0.0
    depth = len(codes)
    for layer in range(depth):
        su = scale_x[layer, i]
        sv = scale_y[layer, j]
        nu = norm_x[layer, i]
        nv = norm_y[layer, j]
        gap = gap_plus if c >= 0.0 else gap_minus
        gap = min(1.0, max(0.0, gap))  # rounding only: |c| ≤ su·sv by Cauchy–Schwarz
        if su * sv == 0.0:
            gap = 1.0
        code = codes[layer]
        if code == HOMOGENEOUS:
            value, slope, gap_out, side = homogeneous_dual(
                constants[layer, 0], constants[layer, 1], c, su, sv, gap
            )
            centre_u = mean_x[layer, i] - shift_x[layer, i]
            ck = value - centre_u * (mean_x[layer, i] + mean_y[layer, j]) + centre_u * centre_u
        elif code == ERF:
            value, slope, gap_out, side = erf_dual(constants[layer, 0], c, su, sv, gap, nu, nv)
            ck = value + shift_x[layer, i] * shift_y[layer, j]
        elif code == STEP:
            if su * sv == 0.0:
                value, slope, gap_out, side = 0.0, 0.0, 1.0, 1.0
                if nu * nv > 0.0:  # an input of zero: a constant feature
                    gap_out = 1.0 - mean_x[layer, i] * mean_y[layer, j] / (nu * nv)
            else:
                value, slope, gap_out, side = step_dual(
                    first_step[layer], first_step[layer + 1], jumps, thresholds_x[i], thresholds_y[j],
                    upper_x[i], upper_y[j], c, su, sv, gap, nu, nv, mean_x[layer, i], mean_y[layer, j],
                    nodes, weights, counts,
                )  # fmt: skip
            ck = value + shift_x[layer, i] * shift_y[layer, j]
        else:
            value, slope, gap_out, side = series_dual(
                first_term[layer], first_term[layer + 1], series_x[i], series_y[j], c, su, sv, gap, nu, nv
            )
            ck = value + shift_x[layer, i] * shift_y[layer, j]
        cut = math.sqrt(tails_x[layer, i] * tails_y[layer, j])
        if cut > 0.0 or error_c > 0.0:
            rho = 1.0 - gap
            bend = slope_derivative(
                code, constants[layer], first_step[layer], first_step[layer + 1], jumps, thresholds_x[i],
                thresholds_y[j], first_term[layer], first_term[layer + 1], series_x[i], series_y[j], c, su, sv, gap,
            )  # fmt: skip
            terms = first_term[layer + 1] - first_term[layer]
            error_ck = abs(slope) * error_c + cut * rho**terms
            error_slope = bend * error_c + cut * tail_slope(rho, terms) / (su * sv)
            error_ntk = error_ntk * abs(slope) + abs(ntk) * error_slope
            error_c = w2 * error_ck
            error_ntk = error_c + w2 * error_ntk
        product = 0.0 if ntk == 0.0 else ntk * slope
        c = w2 * ck + b2
        ntk = c + w2 * product
        if layer + 1 < depth:
            tu = scale_x[layer + 1, i]
            tv = scale_y[layer + 1, j]
            if tu * tv == 0.0:
                gap_plus, gap_minus = 1.0, 1.0
            elif exact[layer] != 0:  # no centring, no bias: the correlation is that of the features
                gap_plus = gap_out if side > 0.0 else 2.0 - gap_out
                gap_minus = gap_out if side < 0.0 else 2.0 - gap_out
            else:
                gap_plus = 1.0 - c / (tu * tv)
                gap_minus = 1.0 + c / (tu * tv)
                if side > 0.0 and gap_plus < 0.1:
                    # ‖f − g‖² does not depend on what is subtracted from, or added to, both features
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
    return 0.5 * total


@njit()
def entry_from_gram(
    i, j, c0, x, y, norm0_x, norm0_y, w2, b2, codes, constants, first_step, first_term, jumps,
    scale_x, mean_x, shift_x, norm_x, thresholds_x, upper_x, series_x, tails_x,
    scale_y, mean_y, shift_y, norm_y, thresholds_y, upper_y, series_y, tails_y, exact, nodes, weights, counts,
):  # fmt: skip
    """CK and NTK of one pair of rows from its entry of K_0."""
    u = norm0_x[i]
    v = norm0_y[j]
    gap = input_gap(x, y, i, j, u, v, c0)
    c = w2 * c0 + b2
    gap_plus = gap if c0 >= 0.0 else 2.0 - gap
    gap_minus = 2.0 - gap if c0 >= 0.0 else gap
    if b2 > 0.0:
        su = scale_x[0, i]
        sv = scale_y[0, j]
        gap_plus = (w2 * ((u - v) ** 2 + 2.0 * u * v * gap_plus) - (su - sv) ** 2) / (2.0 * su * sv)
        gap_minus = 1.0 + c / (su * sv)
    return kernel_entry(
        i, j, c, gap_plus, gap_minus, w2, b2, codes, constants, first_step, first_term, jumps,
        scale_x, mean_x, shift_x, norm_x, thresholds_x, upper_x, series_x, tails_x,
        scale_y, mean_y, shift_y, norm_y, thresholds_y, upper_y, series_y, tails_y, exact, nodes, weights, counts,
    )  # fmt: skip


@njit(parallel=True)
def symmetric_kernels(
    gram, ntk_out, want_ck, want_ntk, errors, diagonal_ck, diagonal_ntk, x, norm0, w2, b2, codes, constants, first_step,
    first_term, jumps, scale, mean, shift, norm, thresholds, upper, series, tails, exact, nodes, weights, counts,
):  # fmt: skip
    """Turn `gram` (K_0) into the CK in place if wanted, and fill `ntk_out` (may be `gram` itself).

    errors[i] receives the largest truncation bounds, of CK and NTK, over the entries that iteration i owns.
    """
    n = gram.shape[0]
    for row in prange((n + 1) // 2):  # rows k and n − 1 − k together cost the same for every k
        for turn in range(2):
            i = np.int64(row) if turn == 0 else n - 1 - np.int64(row)
            if turn == 1 and i == np.int64(row):
                break
            for j in range(i + 1, n):
                ck, ntk, error_ck, error_ntk = entry_from_gram(
                    i, j, gram[i, j], x, x, norm0, norm0, w2, b2, codes, constants, first_step, first_term, jumps,
                    scale, mean, shift, norm, thresholds, upper, series, tails,
                    scale, mean, shift, norm, thresholds, upper, series, tails, exact, nodes, weights, counts,
                )  # fmt: skip
                errors[i, 0] = max(errors[i, 0], error_ck)
                errors[i, 1] = max(errors[i, 1], error_ntk)
                if want_ck:
                    gram[i, j] = ck
                    gram[j, i] = ck
                if want_ntk:
                    ntk_out[i, j] = ntk
                    ntk_out[j, i] = ntk
            if want_ck:
                gram[i, i] = diagonal_ck[i]
            if want_ntk:
                ntk_out[i, i] = diagonal_ntk[i]


@njit(parallel=True)
def cross_kernels(
    gram, ntk_out, want_ck, want_ntk, errors, x, y, norm0_x, norm0_y, w2, b2, codes, constants, first_step, first_term, jumps,
    scale_x, mean_x, shift_x, norm_x, thresholds_x, upper_x, series_x, tails_x,
    scale_y, mean_y, shift_y, norm_y, thresholds_y, upper_y, series_y, tails_y, exact, nodes, weights, counts,
):  # fmt: skip
    """Same for a rectangular K_0."""
    for row in prange(gram.shape[0]):
        i = np.int64(row)
        for j in range(gram.shape[1]):
            ck, ntk, error_ck, error_ntk = entry_from_gram(
                i, j, gram[i, j], x, y, norm0_x, norm0_y, w2, b2, codes, constants, first_step, first_term, jumps,
                scale_x, mean_x, shift_x, norm_x, thresholds_x, upper_x, series_x, tails_x,
                scale_y, mean_y, shift_y, norm_y, thresholds_y, upper_y, series_y, tails_y, exact, nodes, weights, counts,
            )  # fmt: skip
            errors[i, 0] = max(errors[i, 0], error_ck)
            errors[i, 1] = max(errors[i, 1], error_ntk)
            if want_ck:
                gram[i, j] = ck
            if want_ntk:
                ntk_out[i, j] = ntk
