r"""Elementary functions as branch-free polynomials, so that loops over pairs become vector instructions.

Coefficients are Chebyshev truncations computed with 60 digits by ``validation/elementary_functions.py``, which also
states each truncation error; ``tests/test_elementary.py`` compares values with mpmath.
"""

import math

import numpy as np

from rmtntk._jit._options import njit

HALF_PI = 0.5 * math.pi
INV_2PI = 1.0 / (2.0 * math.pi)
_SHIFTER = 6755399441055744.0  # 1.5 · 2^52: adding it rounds to an integer and leaves that in the low bits


@njit(fma=True, forceinline=True)
def angle_excess(gap):
    """(t / sin t − 1) / g for the angle t with cos t = 1 − g, 0 ≤ g ≤ 1; truncation below 1.4e-16."""
    z = gap * gap
    even = -0.0007322493441276486
    even = -0.006513323121078568 + z * even
    even = -0.012437210916886224 + z * even
    even = -0.007441369869864283 + z * even
    even = -0.0014458774101586919 + z * even
    even = 0.0004395054656192323 + z * even
    even = 0.0024838076286979698 + z * even
    even = 0.011543997545483204 + z * even
    even = 0.057142857133007076 + z * even
    even = 0.33333333333333326 + z * even
    odd = 9.146570654297894e-05
    odd = 0.002775972086864069 + z * odd
    odd = 0.010552391369060499 + z * odd
    odd = 0.011042347067442745 + z * odd
    odd = 0.00396108648568708 + z * odd
    odd = 0.0007509108259274913 + z * odd
    odd = 0.0011902843904208328 + z * odd
    odd = 0.00532823917767311 + z * odd
    odd = 0.02539682590784378 + z * odd
    odd = 0.1333333333334086 + z * odd
    return even + gap * odd


@njit(fma=True, forceinline=True)
def angle_and_rest(gap):
    """The angle t with cos t = 1 − gap, and sin t − t cos t, both to relative accuracy."""
    sine = math.sqrt(gap * (2.0 - gap))
    excess = angle_excess(gap)
    return sine + sine * gap * excess, sine * gap * (1.0 - excess * (1.0 - gap))


@njit(fma=True, forceinline=True)
def arcsine(s):
    """Arcsine for |s| ≤ 1/√2, relative truncation error below 5.7e-17."""
    x = s * s
    z = x * x
    even = -2.3502692453285903
    even = -3.9036838450122584 + z * even
    even = -1.32937985806961 + z * even
    even = -0.1262343628704168 + z * even
    even = 0.005557159944675599 + z * even
    even = 0.01392612684348443 + z * even
    even = 0.022372076975934914 + z * even
    even = 0.044642857120591614 + z * even
    even = 0.16666666666666657 + z * even
    odd = 0.6800344496293879
    odd = 3.870992003410193 + z * odd
    odd = 2.700434763636163 + z * odd
    odd = 0.49466275045887054 + z * odd
    odd = 0.035808952975294614 + z * odd
    odd = 0.012027056218379902 + z * odd
    odd = 0.017354959478258897 + z * odd
    odd = 0.030381946308487458 + z * odd
    odd = 0.0750000000001052 + z * odd
    return s + s * x * (even + x * odd)


@njit(fma=True, forceinline=True)
def arcsine_on_circle(z, root):
    """Arcsine of z, given root = sqrt(1 − z²) ≥ 0 by its own formula."""
    small = abs(z) <= root
    base = z if small else root
    value = arcsine(base)
    return value if small else math.copysign(HALF_PI - value, z)


@njit(fma=True, forceinline=True)
def expm1_parts(x):
    """(p, 2^k) with e^x = 2^k (1 + p), |p| < .42, for −708 ≤ x ≤ 709; relative error of 1 + p below 3e-16."""
    shifted = x * 1.4426950408889634 + _SHIFTER
    k = np.float64(shifted).view(np.int64)  # k in the low bits; the shift below drops the high ones
    count = shifted - _SHIFTER
    r = (x - count * 0.6931471803691238) - count * 1.9082149292705877e-10
    p = 1.0 / 6227020800.0
    p = 1.0 / 479001600.0 + r * p
    p = 1.0 / 39916800.0 + r * p
    p = 1.0 / 3628800.0 + r * p
    p = 1.0 / 362880.0 + r * p
    p = 1.0 / 40320.0 + r * p
    p = 1.0 / 5040.0 + r * p
    p = 1.0 / 720.0 + r * p
    p = 1.0 / 120.0 + r * p
    p = 1.0 / 24.0 + r * p
    p = 1.0 / 6.0 + r * p
    p = 0.5 + r * p
    p = r + r * r * p
    power = np.int64((k + 1023) << 52).view(np.float64)
    return p, power


@njit(fma=True, forceinline=True)
def exponential(x):
    """e^x, 0 below −708 and the value at 709 above."""
    inside = min(709.0, max(-708.0, x))
    p, power = expm1_parts(inside)
    return power + power * p if x >= -708.0 else 0.0


@njit(fma=True, forceinline=True)
def exponential_minus_one(x):
    """e^x − 1 to relative accuracy, for x ≤ 709."""
    inside = min(709.0, max(-708.0, x))
    p, power = expm1_parts(inside)
    return (power - 1.0) + power * p
