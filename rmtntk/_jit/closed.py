r"""Families with a closed dual of their own: sines, exponentials, Gaussians, GELU, powers of ReLU, exp_normalized.

Every pair enters by its signed gap q and the two variances a, b (in units the family chooses). Where a difference would
cancel it is written as a sum of terms of one sign, with Var(u − v) = (λ_u − λ_v)² + 2 λ_u λ_v (1 − ρ) from the gap.
"""

import math

from rmtntk._jit._options import njit
from rmtntk._jit.elementary import (
    HALF_PI,
    INV_2PI,
    angle_excess,
    arcsine_on_circle,
    exponential,
    exponential_minus_one,
)  # fmt: skip
from rmtntk._jit.erf import NODES, WEIGHTS
from rmtntk._jit.layout import (
    CK,
    EXTRA,
    FAMILY,
    FIELDS,
    HEAD,
    MEAN,
    NEAR,
    OLD,
    SCALE,
    SLOPE,
    STRIDE,
    WORK,
    Q,
)  # fmt: skip


@njit(fma=True)
def trig(rows, columns, constants, number, state, i0, m, j0, w):
    r"""A sin(f t + φ), in units of 1/f: Cov = A² e^{−(a+b)/2} (cos²φ sinh c + sin²φ (cosh c − 1)).

    With e^{|c| − (a+b)/2} = e^{−d/2}, d = Var(|u| − |v|), and sinh|c| e^{−|c|} = −expm1(−2|c|)/2, nothing overflows.
    EXTRA holds |f| λ.
    """
    line = HEAD + FIELDS * number
    amplitude2 = constants[number, FAMILY] * constants[number, FAMILY]
    frequency = constants[number, FAMILY + 1]
    sine2 = constants[number, FAMILY + 2]
    cosine2 = constants[number, FAMILY + 3]
    scale_v = columns[line + EXTRA, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + EXTRA, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            sv = scale_v[k]
            # products from the left: su · sv alone may overflow, and ∞ · 0 is not 0
            decay = exponential(-0.5 * (su - sv) * (su - sv) - su * g * sv)
            fall = -exponential_minus_one(-(su * (1.0 - g) * sv))  # 1 − e^{−|c|}
            double = fall * (2.0 - fall)  # 1 − e^{−2|c|}
            sinh = 0.5 * decay * double
            cosh = decay - sinh
            bowl = 0.5 * decay * fall * fall  # e^{…} (cosh c − 1)
            down = math.copysign(1.0, q)
            state[CK + base + k] = amplitude2 * (cosine2 * sinh * down + sine2 * bowl)
            state[SLOPE + base + k] = amplitude2 * frequency * frequency * (cosine2 * cosh + sine2 * sinh * down)


@njit(fma=True)
def trig_distances(rows, columns, constants, number, state, i0, m, j0, w):
    r"""E[(f_u − f_v)²], or + for sines at ρ < 0: products of what vanishes with D = Var(u − v) or P = Var(u + v).

    E[(sin u − sin v)²] = (1 − e^{−D/2}) (1 + e^{−P/2}) − B and E[(cos u − cos v)²] = (1 − e^{−D/2}) (1 − e^{−P/2}) + B,
    B = e^{−(a+b)} (cosh(a − b) − 1); sine and cosine are uncorrelated, so that cos²φ and sin²φ weigh the two.
    """
    line = HEAD + FIELDS * number
    amplitude2 = constants[number, FAMILY] * constants[number, FAMILY]
    sine2 = constants[number, FAMILY + 2]
    cosine2 = constants[number, FAMILY + 3]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + EXTRA, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            if abs(q) >= NEAR:
                continue
            before = state[OLD + base + k]
            g = abs(before)
            sv = columns[line + EXTRA, j0 + k]
            apart = (su - sv) * (su - sv)
            near = 0.5 * apart + su * g * sv  # ½ Var(|u| − |v|)
            far = 0.5 * apart + su * (2.0 - g) * sv
            flipped = math.copysign(1.0, before) < 0.0
            if sine2 == 0.0 and math.copysign(1.0, q) < 0.0:
                flipped = not flipped
            minus = far if flipped else near
            plus = near if flipped else far
            fall = -math.expm1(-minus)
            skew = math.expm1(-abs(su - sv) * (su + sv))
            least = min(su, sv)
            bent = 0.5 * math.exp(-2.0 * least * least) * skew * skew
            sines = fall * (1.0 + math.exp(-plus)) - bent
            cosines = bent - fall * math.expm1(-plus)
            state[WORK + base + k] = amplitude2 * (cosine2 * sines + sine2 * cosines)


@njit(fma=True)
def exponential_family(rows, columns, constants, number, state, i0, m, j0, w):
    """A e^{r t}: Cov = A² e^{(a+b)/2} (e^c − 1), with λ in units of 1/r; EXTRA holds A e^{a/2}."""
    line = HEAD + FIELDS * number
    rate = abs(constants[number, FAMILY + 1])
    scale_v = columns[line + SCALE, j0 : j0 + w]
    mean_v = columns[line + MEAN, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = rate * rows[line + SCALE, i0 + i]
        mean_u = rows[line + MEAN, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            c = math.copysign(su * (rate * scale_v[k]) * (1.0 - abs(q)), q)
            rise = exponential_minus_one(c)
            product = mean_u * mean_v[k]
            state[CK + base + k] = product * rise
            state[SLOPE + base + k] = rate * rate * (product + product * rise)


@njit(fma=True)
def exponential_distances(rows, columns, constants, number, state, i0, m, j0, w):
    """E[(f_u − f_v)²] = A² [(e^a − e^b)² + 2 e^{a+b} (1 − e^{−d/2})], d = Var(u − v)."""
    line = HEAD + FIELDS * number
    amplitude2 = constants[number, FAMILY] * constants[number, FAMILY]
    rate = abs(constants[number, FAMILY + 1])
    for i in range(m):
        base = i * STRIDE
        su = rate * rows[line + SCALE, i0 + i]
        for k in range(w):
            if abs(state[Q + base + k]) >= NEAR:
                continue
            before = state[OLD + base + k]
            sv = rate * columns[line + SCALE, j0 + k]
            one = abs(before) if math.copysign(1.0, before) > 0.0 else 2.0 - abs(before)
            half = 0.5 * (su - sv) * (su - sv) + su * sv * one
            apart = math.exp(su * su) * math.expm1((sv - su) * (sv + su))
            both = math.exp(su * su + sv * sv)
            state[WORK + base + k] = amplitude2 * (apart * apart - 2.0 * both * math.expm1(-half))


@njit(fma=True)
def gaussian(rows, columns, constants, number, state, i0, m, j0, w):
    r"""A e^{s t²}: with κ = −2s, a = κ λ² and D = (1+a)(1+b) − c²: E = A²/√D, E[σ'σ'] = A² κ c/√D³.

    D/((1+a)(1+b)) = ½ (V_u W_v + V_v W_u) + S_u S_v (1 − ρ²), a sum of positive terms for growing e^{s t²} too in which
    no norm is squared: W = 1/(1+a) from MEAN = A √W, and EXTRA holds S = a/(1+a) and V = (1+2a)/(1+a).
    """
    line = HEAD + FIELDS * number
    inverse = 1.0 / (constants[number, FAMILY] * constants[number, FAMILY])
    kappa = -2.0 * constants[number, FAMILY + 1]
    scale_v = columns[line + SCALE, j0 : j0 + w]
    mean_v = columns[line + MEAN, j0 : j0 + w]
    share_v = columns[line + EXTRA, j0 : j0 + w]
    rest_v = columns[line + EXTRA + 1, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        mean_u = rows[line + MEAN, i0 + i]
        weight_u = mean_u * mean_u * inverse
        share_u = rows[line + EXTRA, i0 + i]
        rest_u = rows[line + EXTRA + 1, i0 + i]
        slope_u = kappa * kappa * rows[line + SCALE, i0 + i] * weight_u
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            rho = 1.0 - g
            weight_v = mean_v[k] * mean_v[k] * inverse
            both = share_u * share_v[k]
            root = math.sqrt(0.5 * (rest_u * weight_v + rest_v[k] * weight_u) + both * (g * (2.0 - g)))
            over = 1.0 / root
            top = mean_u * mean_v[k] * over
            state[CK + base + k] = top * (both * rho * rho / (1.0 + root))
            slope = (slope_u * over) * (scale_v[k] * weight_v * over)
            state[SLOPE + base + k] = top * slope * math.copysign(rho, q)


@njit(fma=True)
def gaussian_distances(rows, columns, constants, number, state, i0, m, j0, w):
    r"""E[(f_u − f_v)²] = A² [(1+2a)^{-½} + (1+2b)^{-½} − 2 D^{-½}], split at ρ = 1 where D = 1 + a + b."""
    line = HEAD + FIELDS * number
    inverse = 1.0 / (constants[number, FAMILY] * constants[number, FAMILY])
    kappa = -2.0 * constants[number, FAMILY + 1]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        mean_u = rows[line + MEAN, i0 + i]
        weight_u = mean_u * mean_u * inverse
        share_u = rows[line + EXTRA, i0 + i]
        rest_u = rows[line + EXTRA + 1, i0 + i]
        for k in range(w):
            if abs(state[Q + base + k]) >= NEAR:
                continue
            g = abs(state[OLD + base + k])
            sv = columns[line + SCALE, j0 + k]
            mean_v = columns[line + MEAN, j0 + k]
            weight_v = mean_v * mean_v * inverse
            rest_v = columns[line + EXTRA + 1, j0 + k]
            # roots of D/((1 + a)(1 + b)) at |ρ| and at 1
            middle = 0.5 * (rest_u * weight_v + rest_v * weight_u)
            lost = share_u * columns[line + EXTRA, j0 + k] * (g * (2.0 - g))
            root = math.sqrt(middle + lost)
            top = math.sqrt(middle)
            drop = (lost / root) / (top * (root + top))
            # (1+x)^{-½} + (1−x)^{-½} − 2 with 1 − √(1−x²) = e, where 1 ± x = (1 + 2a)/(1 + a + b), (1 + 2b)/…
            weight = mean_u * mean_v * inverse / top  # (1 + a + b)^{-½}
            x = kappa * ((su - sv) * weight) * ((su + sv) * weight)
            w_x = math.sqrt((rest_u * weight_v / middle) * (rest_v * weight_u / middle))
            e = x * x / (1.0 + w_x)
            apart = e * (2.0 - 1.0 / (1.0 + math.sqrt(1.0 - 0.5 * e))) / (w_x * top)
            state[WORK + base + k] = mean_u * mean_v * (apart + 2.0 * drop)


@njit(fma=True)
def gelu(rows, columns, constants, number, state, i0, m, j0, w):
    r"""T Φ(t) (Tsuchida et al. 2021), with A = 1 + a, B = 1 + b, P = √(ab/AB), r = ρ P and R = √(1 − r²).

    2π Cov = c (π/2 + asin r) + √(ab) P [ρ²/(A B R) − r²/(1 + R)]: the printed form rearranged so that large variances
    do not cancel; 2π E[σ'σ'] = π/2 + asin r + r (1/A + 1/B)/R + r/(A B R³).
    """
    line = HEAD + FIELDS * number
    scale_v = columns[line + SCALE, j0 : j0 + w]
    bent_v = columns[line + EXTRA, j0 : j0 + w]
    rest_v = columns[line + EXTRA + 1, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        s_u = rows[line + EXTRA, i0 + i]  # λ/√(1 + λ²)
        t_u = rows[line + EXTRA + 1, i0 + i]  # 1/√(1 + λ²)
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            s_v = bent_v[k]
            t_v = rest_v[k]
            product = s_u * s_v
            both = t_u * t_v
            rho = math.copysign(1.0 - g, q)
            r = product * rho
            root = math.sqrt(t_u * t_u + s_u * s_u * (t_v * t_v) + product * product * (g * (2.0 - g)))
            angle = HALF_PI + arcsine_on_circle(r, root)
            bracket = rho * rho * both * both / root - r * r / (1.0 + root)
            state[CK + base + k] = INV_2PI * (su * scale_v[k]) * (rho * angle + product * bracket)
            state[SLOPE + base + k] = INV_2PI * (
                angle + r * (t_u * t_u + t_v * t_v) / root + (r / root) * (both / root) * (both / root)
            )


@njit(fma=True)
def gelu_curvature(s, t):
    """E[ξ² σ'(sξ) σ'(tξ)] of GELU, by parts."""
    w_s = 1.0 / (1.0 + s * s)
    w_t = 1.0 / (1.0 + t * t)
    v = 1.0 / (1.0 + s * s + t * t)
    angle = 0.25 + math.atan2(s * t, math.sqrt(1.0 + s * s + t * t)) * INV_2PI
    root = math.sqrt(v)
    # E[ξ φ(sξ) Φ(tξ)] = t w_s √v/2π, and E[ξ³ φ(sξ) Φ(tξ)] from it
    total = angle + INV_2PI * s * t * root * (w_s + w_t)
    total += INV_2PI * s * t * root * (w_s * (2.0 * w_s + v) + w_t * (2.0 * w_t + v))
    return total + INV_2PI * s * t * 3.0 * v * v * root


@njit(fma=True)
def gelu_spread(s, t):
    """E[(σ(sξ) − σ(tξ))²] = ∬ E[ξ² σ'σ'] over [t, s]²: four nodes each way after halving until they are enough."""
    if abs(s - t) > 0.02 * math.sqrt(1.0 + s * t):
        total = 0.0
        for sign in range(3):
            x = s if sign != 1 else t
            y = t if sign != 0 else s
            angle = HALF_PI + math.atan2(x * y, math.sqrt(1.0 + x * x + y * y))
            product = x * y / (math.sqrt(1.0 + x * x) * math.sqrt(1.0 + y * y))
            both = 1.0 / ((1.0 + x * x) * (1.0 + y * y))
            root = math.sqrt(1.0 + x * x + y * y) * math.sqrt(both)
            value = INV_2PI * x * y * (angle + product * (both / root + root))
            total += value if sign < 2 else -2.0 * value
        return max(0.0, total)
    half = 0.5 * (s - t)
    middle = 0.5 * (s + t)
    total = 0.0
    for a in range(4):
        for b in range(4):
            total += WEIGHTS[a] * WEIGHTS[b] * gelu_curvature(middle + half * NODES[a], middle + half * NODES[b])
    return half * half * total


@njit(fma=True)
def gelu_distances(rows, columns, constants, number, state, i0, m, j0, w):
    """E[(f_u − f_v)²]: the spread at ρ = 1 and twice what the dual loses from there, each difference factored."""
    line = HEAD + FIELDS * number
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        s_u = rows[line + EXTRA, i0 + i]
        t_u = rows[line + EXTRA + 1, i0 + i]
        for k in range(w):
            if abs(state[Q + base + k]) >= NEAR:
                continue
            before = state[OLD + base + k]
            sv = columns[line + SCALE, j0 + k]
            s_v = columns[line + EXTRA, j0 + k]
            t_v = columns[line + EXTRA + 1, j0 + k]
            gap = abs(before) if math.copysign(1.0, before) > 0.0 else 2.0 - abs(before)  # 1 − ρ
            rho = 1.0 - gap
            product = s_u * s_v
            both = t_u * t_v
            lost = gap * (2.0 - gap)
            top_sq = t_u * t_u + s_u * s_u * (t_v * t_v)
            top = math.sqrt(top_sq)
            root = math.sqrt(top_sq + product * product * lost)
            angle = math.atan2(product, top)
            if rho > 0.0:
                fall = math.asin(min(1.0, product * lost / (root + top * rho)))
            else:
                fall = angle - math.atan2(product * rho, root)
            rise = both * both * (1.0 / root + product * product / (root * top * (root + top)))
            drop = gap * (HALF_PI + angle) + rho * fall + product * lost * (rise - product * product / (root + top))
            apart = gelu_spread(su, sv) if su != sv else 0.0
            state[WORK + base + k] = apart + 2.0 * INV_2PI * su * sv * drop


@njit(fma=True)
def rectified(rows, columns, constants, number, table, state, i0, m, j0, w):
    r"""max(t, 0)^k: the arc-cosine kernels of order k and k − 1 (Cho and Saul 2009).

    E = λ_u^k λ_v^k I_k, E[σ'σ'] = k² (λ_u λ_v)^{k−1} I_{k−1}, I_k = (P_k(ρ) sin t + Q_k(ρ)(π − t))/2π; table holds
    the ascending coefficients of P_k, Q_k, P_{k−1}, Q_{k−1}. EXTRA holds λ^k and k λ^{k−1}. The four polynomials grow
    in four planes, so that the innermost loop is that over pairs.
    """
    line = HEAD + FIELDS * number
    mean2 = constants[number, FAMILY]
    degree = table.shape[1]
    power_v = columns[line + EXTRA, j0 : j0 + w]
    slope_v = columns[line + EXTRA + 1, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        power_u = rows[line + EXTRA, i0 + i]
        slope_u = rows[line + EXTRA + 1, i0 + i]
        for k in range(w):
            state[CK + base + k] = table[0, degree - 1]
            state[WORK + base + k] = table[1, degree - 1]
            state[SLOPE + base + k] = table[2, degree - 1]
            state[OLD + base + k] = table[3, degree - 1]
        for n in range(degree - 2, -1, -1):
            p1 = table[0, n]
            q1 = table[1, n]
            p2 = table[2, n]
            q2 = table[3, n]
            for k in range(w):
                q = state[Q + base + k]
                rho = math.copysign(1.0 - abs(q), q)
                state[CK + base + k] = p1 + rho * state[CK + base + k]
                state[WORK + base + k] = q1 + rho * state[WORK + base + k]
                state[SLOPE + base + k] = p2 + rho * state[SLOPE + base + k]
                state[OLD + base + k] = q2 + rho * state[OLD + base + k]
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            s = math.sqrt(g * (2.0 - g))
            t = s + s * g * angle_excess(g)
            rest = 2.0 * HALF_PI - t if math.copysign(1.0, q) > 0.0 else t  # π minus the angle of ρ
            value = INV_2PI * (state[CK + base + k] * s + state[WORK + base + k] * rest)
            slope = INV_2PI * (state[SLOPE + base + k] * s + state[OLD + base + k] * rest)
            state[CK + base + k] = power_u * power_v[k] * (value - mean2)
            state[SLOPE + base + k] = slope_u * slope_v[k] * slope


@njit(fma=True)
def rectified_distances(rows, columns, constants, number, table, state, i0, m, j0, w):
    """E[(f_u − f_v)²] = (λ_u^k − λ_v^k)² I_k(1) + 2 (λ_u λ_v)^k ∫_ρ^1 k² I_{k−1}, eight nodes in the angle."""
    line = HEAD + FIELDS * number
    order2 = constants[number, FAMILY + 1]  # k²
    top = constants[number, FAMILY + 2]  # I_k(1)
    degree = table.shape[1]
    for i in range(m):
        base = i * STRIDE
        power_u = rows[line + EXTRA, i0 + i]
        for k in range(w):
            if abs(state[Q + base + k]) >= NEAR:
                continue
            before = state[OLD + base + k]
            gap = abs(before) if math.copysign(1.0, before) > 0.0 else 2.0 - abs(before)
            angle = 2.0 * math.asin(math.sqrt(0.5 * gap))
            power_v = columns[line + EXTRA, j0 + k]
            drop = 0.0
            for node in range(4):
                for half in range(2):
                    t = 0.25 * angle * (2.0 * half + 1.0 + NODES[node])
                    rho = math.cos(t)
                    p2 = table[2, degree - 1]
                    q2 = table[3, degree - 1]
                    for n in range(degree - 2, -1, -1):
                        p2 = table[2, n] + rho * p2
                        q2 = table[3, n] + rho * q2
                    s = math.sin(t)
                    drop += WEIGHTS[node] * s * INV_2PI * (p2 * s + q2 * (2.0 * HALF_PI - t))
            drop *= 0.25 * angle * order2
            state[WORK + base + k] = (power_u - power_v) * (power_u - power_v) * top + 2.0 * power_u * power_v * drop


@njit(fma=True)
def exp_normalized(rows, columns, constants, number, state, i0, m, j0, w):
    """λ_u λ_v e^{γ(ρ + s)} (Shankar et al. 2020): Cov = λ_u λ_v e^{γ s} (e^{γρ} − 1), derivative γ e^{γ(ρ + s)}.

    From the larger end down, e^{γ(1 + s)} e^{−γ g} for ρ > 0, so that a large γ neither overflows nor costs digits.
    """
    line = HEAD + FIELDS * number
    gamma = constants[number, FAMILY]
    floor = constants[number, FAMILY + 1]  # e^{γ s}
    top = constants[number, FAMILY + 2]  # e^{γ (1 + s)}
    scale_v = columns[line + SCALE, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            high = top * exponential(-gamma * g)
            fall = exponential_minus_one(-gamma * (1.0 - g))  # e^{−γ|ρ|} − 1
            up = math.copysign(1.0, q) > 0.0
            state[CK + base + k] = su * scale_v[k] * (-high * fall if up else floor * fall)
            state[SLOPE + base + k] = gamma * (high if up else floor + floor * fall)


@njit(fma=True)
def exp_normalized_distances(rows, columns, constants, number, state, i0, m, j0, w):
    """e^{γ(1+s)} [(λ_u − λ_v)² + 2 λ_u λ_v (1 − e^{−γ(1−ρ)})]."""
    line = HEAD + FIELDS * number
    gamma = constants[number, FAMILY]
    top = constants[number, FAMILY + 2]  # e^{γ (1 + s)}
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        for k in range(w):
            if abs(state[Q + base + k]) >= NEAR:
                continue
            before = state[OLD + base + k]
            gap = abs(before) if math.copysign(1.0, before) > 0.0 else 2.0 - abs(before)
            sv = columns[line + SCALE, j0 + k]
            state[WORK + base + k] = top * ((su - sv) * (su - sv) - 2.0 * su * sv * math.expm1(-gamma * gap))
