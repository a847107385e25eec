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
    """
    line = HEAD + FIELDS * number
    amplitude2 = constants[number, FAMILY] * constants[number, FAMILY]
    frequency = constants[number, FAMILY + 1]
    sine2 = constants[number, FAMILY + 2]
    cosine2 = constants[number, FAMILY + 3]
    scale_v = columns[line + SCALE, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = abs(frequency) * rows[line + SCALE, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            sv = abs(frequency) * scale_v[k]
            product = su * sv
            c = product * (1.0 - g)
            decay = exponential(-0.5 * (su - sv) * (su - sv) - product * g)
            fall = -exponential_minus_one(-c)  # 1 − e^{−|c|}
            double = fall * (2.0 - fall)  # 1 − e^{−2|c|}
            sinh = 0.5 * decay * double
            cosh = decay - sinh
            bowl = 0.5 * decay * fall * fall  # e^{…} (cosh c − 1)
            down = math.copysign(1.0, q)
            state[CK + base + k] = amplitude2 * (cosine2 * sinh * down + sine2 * bowl)
            state[SLOPE + base + k] = amplitude2 * frequency * frequency * (cosine2 * cosh + sine2 * sinh * down)


@njit(fma=True)
def trig_distances(rows, columns, constants, number, state, i0, m, j0, w):
    r"""E[(f_u − f_v)²], or + for sines at ρ < 0.

    = A² [1 − e^{−d₋/2} + cos 2φ (e^{−d₊/2} − (e^{−2a} + e^{−2b})/2)], and with d₋ + d₊ = 2(a + b) the last term is
    cos 2φ e^{−(a+b)} (expm1(d₋/2) − 2 sinh²((a − b)/2)).
    """
    line = HEAD + FIELDS * number
    amplitude2 = constants[number, FAMILY] * constants[number, FAMILY]
    frequency = abs(constants[number, FAMILY + 1])
    twice = constants[number, FAMILY + 3] - constants[number, FAMILY + 2]  # cos 2φ
    odd = constants[number, FAMILY + 2] == 0.0
    for i in range(m):
        base = i * STRIDE
        su = frequency * rows[line + SCALE, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            if abs(q) >= NEAR:
                continue
            before = state[OLD + base + k]
            g = abs(before)
            sv = frequency * columns[line + SCALE, j0 + k]
            side = math.copysign(1.0, before)
            if odd and math.copysign(1.0, q) < 0.0:
                side = -side
            one = g if side > 0.0 else 2.0 - g  # 1 − ρ
            half = 0.5 * (su - sv) * (su - sv) + su * sv * one
            total = su * su + sv * sv
            far = su * su - sv * sv
            # e^{−total} expm1(half) and e^{−total} sinh²(far/2), each without overflow
            rise = math.exp(half - total) - math.exp(-total) if half > 1.0 else math.exp(-total) * math.expm1(half)
            skew = math.expm1(-abs(far))
            bent = 0.25 * math.exp(abs(far) - total) * skew * skew
            state[WORK + base + k] = amplitude2 * max(0.0, -math.expm1(-half) + twice * (rise - 2.0 * bent))


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
            apart = math.exp(su * su) * math.expm1(sv * sv - su * su)
            both = math.exp(su * su + sv * sv)
            state[WORK + base + k] = amplitude2 * (apart * apart - 2.0 * both * math.expm1(-half))


@njit(fma=True)
def gaussian(rows, columns, constants, number, state, i0, m, j0, w):
    """A e^{s t²}: with κ = −2s and a = κ λ²: E = A²/√D, D = (1+a)(1+b) − c² = 1 + a + b + ab (1 − ρ²)."""
    line = HEAD + FIELDS * number
    amplitude2 = constants[number, FAMILY] * constants[number, FAMILY]
    kappa = -2.0 * constants[number, FAMILY + 1]
    scale_v = columns[line + SCALE, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        a = kappa * su * su
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            b = kappa * scale_v[k] * scale_v[k]
            c = kappa * math.copysign(su * scale_v[k] * (1.0 - g), q)
            root_a = math.sqrt(1.0 + a)
            root_b = math.sqrt(1.0 + b)
            # everything over (1 + a)(1 + b), so that large norms do not overflow
            ratio = (c / root_a) / root_b
            share = ((1.0 + a) / root_a / root_b + b / root_a / root_b) / (root_a * root_b)
            share = share + (a / (root_a * root_a)) * (b / (root_b * root_b)) * (g * (2.0 - g))
            root = math.sqrt(share)
            top = amplitude2 / (root_a * root_b)
            state[CK + base + k] = top * (ratio * ratio / (root * (1.0 + root)))
            state[SLOPE + base + k] = top * kappa * (ratio / (root_a * root_b)) / (share * root)


@njit(fma=True)
def gaussian_distances(rows, columns, constants, number, state, i0, m, j0, w):
    r"""E[(f_u − f_v)²] = A² [(1+2a)^{-½} + (1+2b)^{-½} − 2 D^{-½}], split at ρ = 1 where D = 1 + a + b."""
    line = HEAD + FIELDS * number
    amplitude2 = constants[number, FAMILY] * constants[number, FAMILY]
    kappa = -2.0 * constants[number, FAMILY + 1]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        a = kappa * su * su
        for k in range(w):
            if abs(state[Q + base + k]) >= NEAR:
                continue
            g = abs(state[OLD + base + k])
            sv = columns[line + SCALE, j0 + k]
            b = kappa * sv * sv
            middle = 1.0 + a + b
            lost = a * b * (g * (2.0 - g))
            root = math.sqrt(middle + lost)
            root_m = math.sqrt(middle)
            drop = lost / (root * root_m * (root + root_m))
            x = kappa * (su - sv) * (su + sv) / middle
            # (1+x)^{-½} + (1−x)^{-½} − 2 with 1 − √(1−x²) = e
            w_x = math.sqrt((1.0 - x) * (1.0 + x))
            e = x * x / (1.0 + w_x)
            apart = e * (2.0 - 1.0 / (1.0 + math.sqrt(1.0 - 0.5 * e))) / (w_x * root_m)
            state[WORK + base + k] = amplitude2 * (apart + 2.0 * drop)


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
    the ascending coefficients of P_k, Q_k, P_{k−1}, Q_{k−1}. EXTRA holds λ^k and k λ^{k−1}.
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
            q = state[Q + base + k]
            g = abs(q)
            s = math.sqrt(g * (2.0 - g))
            t = s + s * g * angle_excess(g)
            rest = 2.0 * HALF_PI - t if math.copysign(1.0, q) > 0.0 else t  # π minus the angle of ρ
            rho = math.copysign(1.0 - g, q)
            p1 = table[0, degree - 1]
            q1 = table[1, degree - 1]
            p2 = table[2, degree - 1]
            q2 = table[3, degree - 1]
            for n in range(degree - 2, -1, -1):
                p1 = table[0, n] + rho * p1
                q1 = table[1, n] + rho * q1
                p2 = table[2, n] + rho * p2
                q2 = table[3, n] + rho * q2
            state[CK + base + k] = power_u * power_v[k] * (INV_2PI * (p1 * s + q1 * rest) - mean2)
            state[SLOPE + base + k] = slope_u * slope_v[k] * (INV_2PI * (p2 * s + q2 * rest))


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
    """λ_u λ_v e^{γ(ρ + s)} (Shankar et al. 2020): Cov = λ_u λ_v e^{γ s} (e^{γρ} − 1), derivative γ e^{γ(ρ + s)}."""
    line = HEAD + FIELDS * number
    gamma = constants[number, FAMILY]
    floor = constants[number, FAMILY + 1]  # e^{γ s}
    scale_v = columns[line + SCALE, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            rise = exponential_minus_one(gamma * math.copysign(1.0 - abs(q), q))
            state[CK + base + k] = su * scale_v[k] * floor * rise
            state[SLOPE + base + k] = gamma * floor * (1.0 + rise)


@njit(fma=True)
def exp_normalized_distances(rows, columns, constants, number, state, i0, m, j0, w):
    """e^{γ(1+s)} [(λ_u − λ_v)² + 2 λ_u λ_v (1 − e^{−γ(1−ρ)})]."""
    line = HEAD + FIELDS * number
    gamma = constants[number, FAMILY]
    top = constants[number, FAMILY + 1] * math.exp(gamma)
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
