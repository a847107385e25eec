"""The limiting spectrum of G against closed forms, mpmath, fixed points, linear algebra and sampled matrices."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.linalg import toeplitz

from rmtntk.errors import ConvergenceError
from rmtntk.mixture import GaussianMixture
from rmtntk.stieltjes import Bulk

RATIOS = [1 / 50, 0.5, 0.99, 1.0, 1.01, 2.0, 50.0, 1e4]
KINDS = ["scalar", "diagonal", "commuting", "full", "one full"]


def covariances(kind, p=16):
    rng = np.random.default_rng(7)
    rotation = np.linalg.qr(rng.standard_normal((p, p)))[0]
    diagonal = rng.uniform(0.1, 3.0, (3, p))
    full = np.stack([toeplitz(0.5 ** np.arange(p)), toeplitz((-0.3) ** np.arange(p)), np.diag(np.linspace(0.1, 2, p))])
    return {
        "scalar": np.array([1.0, 0.3, 2.0]),
        "diagonal": diagonal,
        "commuting": np.stack([(rotation * d) @ rotation.T for d in diagonal]),
        "full": full,
        "one full": full[:1],
    }[kind]


def dense(cov, p):
    return [c * np.eye(p) if np.ndim(c) == 0 else np.diag(c) if np.ndim(c) == 1 else c for c in cov]


def resolvent(matrices, counts, p, delta, zeta):
    return np.linalg.inv(
        sum(n / p * c / (1 + d) for n, c, d in zip(counts, matrices, delta, strict=True)) - zeta * np.eye(p)
    )


def long_fixed_point(matrices, counts, p, zeta):
    """δ by halved steps of the printed equation until they end."""
    delta = np.full(len(matrices), 0.1 + 0.1j)
    for _ in range(50_000):
        q = resolvent(matrices, counts, p, delta, zeta)
        new = np.array([np.trace(c @ q) / p for c in matrices])
        if np.abs(new - delta).max() < 1e-15 * np.abs(delta).max():
            break
        delta = 0.5 * (delta + new)
    return delta


def sampled(cov, counts, p, seed):
    """Eigenvalues of G, all n of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for c, n in zip(cov, counts, strict=True):
        noise = rng.standard_normal((int(n), p))
        rows.append(noise * np.sqrt(c) if np.ndim(c) < 2 else noise @ np.linalg.cholesky(c).T)
    z = np.concatenate(rows) / np.sqrt(p)
    values = np.linalg.eigvalsh(z @ z.T if len(z) < p else z.T @ z)
    return np.sort(np.append(values, np.zeros(max(0, len(z) - p))))


def distance(values, cdf):
    """Kolmogorov–Smirnov distance on both sides of each jump, ties at rounding zeros counted once."""
    n = len(values)
    values = np.where(np.abs(values) < 1e-10 * values[-1], 0.0, values)
    here = cdf(values)
    upper = np.searchsorted(values, values, side="right") / n
    lower = np.searchsorted(values, values, side="left") / n
    positive = values > 0.0
    return max(np.abs(upper - here).max(), np.abs(lower - here)[positive].max())


# Marchenko–Pastur


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_marchenko_pastur(ratio, scale):
    p, n = 1000, 1000 / ratio
    gamma = n / p
    bulk = Bulk([scale], [n], p)
    left, right = (1 - np.sqrt(gamma)) ** 2, (1 + np.sqrt(gamma)) ** 2
    # the left edge is a difference of squares of numbers near 1: the formula itself loses digits
    assert_allclose(
        bulk.edges, [[scale * left, scale * right]], rtol=1e-12 + 1e-15 * right / max(left, 1e-300) * (left > 0)
    )
    x = left + (right - left) * np.linspace(0, 1, 999)[1:-1]
    density = np.sqrt((x - left) * (right - x)) / (2 * np.pi * gamma * x)
    assert_allclose(bulk.density(scale * x) * scale, density, rtol=1e-10)
    assert_allclose(bulk.atom, max(0.0, 1.0 - 1.0 / gamma), atol=4e-16)  # a difference from 1
    assert bulk.mass_error < 1e-12
    middle = 0.3 * left + 0.7 * right
    want = bulk.atom + quad(  # x = left + (middle − left) t²: no square root at the left end
        lambda t: 2 * t * (middle - left) * _mp_density(left + (middle - left) * t * t, left, right, gamma), 0, 1,
        epsabs=1e-13, epsrel=1e-13, limit=400,
    )[0]  # fmt: skip
    assert_allclose(bulk.cdf(scale * middle), want, atol=1e-10)


def _mp_density(x, left, right, gamma):
    return np.sqrt(max(0.0, (x - left) * (right - x))) / (2 * np.pi * gamma * x) if x > 0 else 0.0


# Solutions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zeta", [0.5 + 0.3j, 0.05 + 0.1j, 1 - 0.4j, -0.5, 40.0])
def test_solution_is_the_fixed_point(kind, zeta):
    p = 16
    cov = covariances(kind, p)
    counts = np.array([10.0, 25.0, 7.0])[: len(cov)]
    bulk, matrices = Bulk(cov, counts, p), dense(cov, p)
    point = bulk.solve(zeta)
    delta = long_fixed_point(matrices, counts, p, zeta)
    # rtol: the iteration ends at steps of 1e-15, hence within 1e-15 over its contraction rate
    assert_allclose(point.delta, delta, rtol=1e-11, atol=1e-13)
    assert np.isrealobj(point.delta) == np.isrealobj(np.asarray(zeta))
    assert_allclose(point.q, -1 / (zeta * (1 + delta)), rtol=1e-11)
    assert_allclose(point.loads, counts / p / (1 + delta), rtol=1e-11)
    assert_allclose(point.m, counts @ point.q / counts.sum(), rtol=1e-13)
    q = resolvent(matrices, counts, p, delta, zeta)
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((p, 2)), rng.standard_normal((p, 3))
    assert_allclose(bulk.quadratic(point, left, right), left.T @ q @ right, rtol=1e-9, atol=1e-11)
    assert_allclose(bulk.quadratic(point, left), left.T @ q @ left, rtol=1e-9, atol=1e-11)
    assert_allclose(bulk.apply(point, right), q @ right, rtol=1e-9, atol=1e-11)
    want = [[np.trace(a @ q @ b @ q) / p for b in matrices] for a in matrices]
    assert_allclose(bulk.trace_products(point), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zeta", [0.5 + 0.3j, 0.7, -0.5, 40.0])
def test_derivatives(kind, zeta):
    p = 16
    cov = covariances(kind, p)
    bulk = Bulk(cov, np.array([10.0, 25.0, 7.0])[: len(cov)], p)
    point, step = bulk.solve(zeta), 1e-4
    before, after = bulk.solve(zeta - step, point), bulk.solve(zeta + step, point)
    delta_slope, q_slope = point.derivative()
    block = np.random.default_rng(0).standard_normal((p, 2))
    # central differences: step² times a third derivative of order 100, and rounding over step
    near = {"rtol": 3e-6, "atol": 1e-9}
    assert_allclose(delta_slope, (after.delta - before.delta) / (2 * step), **near)
    assert_allclose(q_slope, (after.q - before.q) / (2 * step), **near)
    assert_allclose(point.m_slope, (after.m - before.m) / (2 * step), **near)
    difference = (bulk.quadratic(after, block) - bulk.quadratic(before, block)) / (2 * step)
    assert_allclose(bulk.quadratic_derivative(point, block), difference, rtol=3e-6, atol=1e-6)


def test_real_axis_is_the_limit_from_above():
    bulk = Bulk(covariances("diagonal"), [10.0, 25.0, 7.0], 16)
    point = bulk.solve(1.5)
    assert point.inside
    assert (point.q.imag > 0).all()
    assert_allclose(point.q, bulk.solve(1.5 + 1e-9j).q, rtol=1e-7)
    assert_allclose(bulk.density(1.5), point.m.imag / np.pi, rtol=1e-11)
    assert_allclose(bulk.class_densities([1.5])[0], point.q.imag / np.pi, rtol=1e-11)
    assert_allclose(bulk.solve(1.5, bulk.solve(1.4)).q, point.q, rtol=1e-13)  # wherever it starts
    assert_allclose(bulk.solve(1.5, bulk.solve(90.0)).q, point.q, rtol=1e-13)


def test_unit_of_measurement_is_free():
    cov, counts = covariances("diagonal"), [10.0, 25.0, 7.0]
    one, two = Bulk(cov, counts, 16), Bulk(1e-9 * cov, counts, 16)
    assert_allclose(two.edges, 1e-9 * one.edges, rtol=1e-12)
    assert_allclose(two.solve(1e-9 * (0.4 + 0.1j)).delta, one.solve(0.4 + 0.1j).delta, rtol=1e-12)


# Edges


def cubic_edges(c1, c2, g1, g2):
    """Edges of two scalar classes to 40 digits: zeros of the discriminant of a cubic.

    v = 1 + Σ γ_a c_a q_a and q_a = 1/(c_a/v − ζ) give (v − 1)(c1 − ζv)(c2 − ζv) = v Σ γ_a c_a (c_other − ζv).
    """
    with mp.workdps(40):
        c, g = [mp.mpf(c1), mp.mpf(c2)], [mp.mpf(g1), mp.mpf(g2)]

        def discriminant(z):
            a = z * z
            b = -z * (c[0] + c[1]) - z * z + z * (g[0] * c[0] + g[1] * c[1])
            e = c[0] * c[1] + z * (c[0] + c[1]) - (g[0] + g[1]) * c[0] * c[1]
            d = -c[0] * c[1]
            return 18 * a * b * e * d - 4 * b**3 * d + b * b * e * e - 4 * a * e**3 - 27 * a * a * d * d

        # discriminant/ζ² has degree 4 in ζ: five values give its coefficients
        nodes = [mp.mpf(k) / 3 + mp.mpf("0.1") for k in range(5)]
        system = mp.matrix([[z**k for k in range(5)] for z in nodes])
        coefficients = mp.lu_solve(system, mp.matrix([discriminant(z) / z**2 for z in nodes]))
        companion = mp.zeros(4)
        for k in range(4):
            companion[k, 3] = -coefficients[k] / coefficients[4]
            if k:
                companion[k, k - 1] = 1
        roots = mp.eig(companion, left=False, right=False)
        return sorted(float(r.real) for r in roots if abs(r.imag) < mp.mpf(10) ** -17 and r.real > mp.mpf(10) ** -12)


@pytest.mark.parametrize(
    "c2, g1, g2",
    [(10.0, 0.3, 0.2), (10.0, 2.0, 0.1), (3.0, 0.6, 0.6), (0.02, 5.0, 0.5), (4.0, 0.2, 30.0), (40.0, 0.7, 0.4)],
)
def test_two_scalar_classes_against_the_discriminant(c2, g1, g2):
    p = 1000
    got = Bulk([1.0, c2], [g1 * p, g2 * p], p).edges.ravel()
    assert_allclose(got, cubic_edges(1.0, c2, g1, g2), rtol=1e-12)


def test_one_diagonal_class_against_its_inverse():
    """Silverstein and Choi: edges are the extrema of x(q) where x rises; 30 digits."""
    p, n = 1000, 10_000
    values, shares = [1.0, 3.0, 10.0], [0.5, 0.3, 0.2]
    got = Bulk(np.repeat(values, [500, 300, 200])[None, :], [n], p).edges
    assert got.shape == (3, 2)
    with mp.workdps(30):
        gamma = mp.mpf(n) / p

        def x(q):
            return -1 / q + sum(mp.mpf(w) * c / (1 + gamma * c * q) for c, w in zip(values, shares, strict=True))

        def slope(q):
            return 1 / q**2 - gamma * sum(
                w * mp.mpf(c) ** 2 / (1 + gamma * c * q) ** 2 for c, w in zip(values, shares, strict=True)
            )

        bulk = Bulk(np.repeat(values, [500, 300, 200])[None, :], [n], p)
        for edge, inward in zip(got.ravel(), [1, -1] * 3, strict=True):
            near = bulk.solve(edge * (1 - 1e-6 * inward)).q[0]
            root = mp.findroot(slope, (mp.mpf(float(near)), mp.mpf(float(near)) * (1 + mp.mpf(10) ** -5)))
            assert_allclose(edge, float(x(root)), rtol=1e-13)


def test_tiny_gaps_close_where_they_should():
    """Two scalar classes: the second bulk leaves the first at one value of c; the narrowest is 5e-13 of x."""
    p, g1, g2 = 1000, 2.0, 0.1
    low, high = mp.mpf(3), mp.mpf(10)
    for _ in range(60):  # bisect on the number of real roots of the discriminant
        middle = (low + high) / 2
        low, high = (middle, high) if len(cubic_edges(1.0, middle, g1, g2)) == 2 else (low, middle)
    critical = float(high)
    for excess in [1e-2, 1e-4, 1e-6, 1e-8]:
        bulk = Bulk([1.0, critical * (1 + excess)], [g1 * p, g2 * p], p)
        want = cubic_edges(1.0, critical * (1 + excess), g1, g2)
        assert_allclose(bulk.edges.ravel(), want, rtol=1e-10)
        assert bulk.mass_error < 1e-9
    for lack in [1e-2, 1e-4, 1e-6]:
        bulk = Bulk([1.0, critical * (1 - lack)], [g1 * p, g2 * p], p)
        assert len(bulk.edges) == 1
        assert bulk.mass_error < 1e-7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [[6.0, 3.0, 2.0], [60.0, 3.0, 20.0]])
def test_outside_is_real_and_inside_is_not(kind, counts):
    cov = covariances(kind)
    bulk = Bulk(cov, counts[: len(cov)], 16)
    for left, right in bulk.edges:
        for x in (left * (1 - 1e-7), right * (1 + 1e-7)):
            point = bulk.solve(x)
            assert not point.inside
            assert np.isrealobj(point.q)
            assert (point.derivative()[1] > 0).all()
        for x in (left * (1 + 1e-7), right * (1 - 1e-7)):
            assert bulk.solve(x).inside


# Masses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [[6.0, 3.0, 2.0], [8.0, 4.0, 4.0], [60.0, 3.0, 20.0]])
def test_density_integrates_to_what_the_atom_leaves(kind, counts):
    cov = covariances(kind)
    bulk = Bulk(cov, counts[: len(cov)], 16)
    total = 0.0
    for left, right in bulk.edges:
        # x = left + (right − left) sin²: Gauss–Legendre sees no square roots; mass_error is the tables' own integral
        nodes, weights = np.polynomial.legendre.leggauss(600)
        angle = 0.25 * np.pi * (nodes + 1)
        x = left + (right - left) * np.sin(angle) ** 2
        total += 0.25 * np.pi * weights @ (bulk.density(x) * (right - left) * np.sin(2 * angle))
    assert_allclose(total, 1.0 - bulk.atom, atol=1e-8)
    assert bulk.mass_error < 1e-8
    grid = np.concatenate([[-1.0, -1e-9, 0.0], np.linspace(0, 1.1 * bulk.edges[-1, 1], 500)])
    values = bulk.cdf(grid)
    assert (np.diff(values) > -1e-12).all()
    assert_allclose(values[[0, 1, 2, -1]], [0.0, 0.0, bulk.atom, 1.0], atol=1e-14)


@pytest.mark.parametrize(("k", "p", "n"), [(1, 40, 80), (3, 30, 300)])
def test_next_to_an_edge(k, p, n):
    """Real outside and complex inside from 1e-9 to 1e-11 of an edge; half-way to the root a residual of 4e-12 is left.

    A root is a rounding of the equation's terms (1e-14: a sum of p terms), not a place where Newton's steps are small.
    """
    bulk = Bulk(np.exp(0.5 * np.random.default_rng(0).standard_normal((k, p))), np.full(k, n / k), p)
    for low, high in bulk.edges:
        for edge, outward in ((low, -1.0), (high, 1.0)):
            for distance in (1e-9, 1e-10, 1e-11):
                for side in (-1.0, 1.0):
                    point = bulk.solve(edge * (1.0 + side * outward * distance))
                    assert point.inside == (side < 0.0)
                    assert point.residual < 1e-14


def test_ten_classes_next_to_an_edge():
    """The root at 1e-9 of the left edge was taken for one inside: q differs there by 3e-6 only."""
    rng = np.random.default_rng(0)
    rng.standard_normal((10, 784))  # the draw that showed it
    bulk = Bulk(np.exp(rng.standard_normal((10, 784)) * 0.5), np.full(10, 5000.0), 784)
    edge = 40.60983603046698
    for distance in (3e-9, 1e-9, 1e-10):
        outside, inside = bulk.solve(edge * (1.0 - distance)), bulk.solve(edge * (1.0 + distance))
        assert not outside.inside
        assert inside.inside
        assert max(outside.residual, inside.residual) < 1e-14


def test_low_rank_matrices_next_to_zero():
    """An inverse of condition 1/ζ leaves h right to rounding of tr C_a/p only: still real, and m → −atom/ζ."""
    factor = np.random.default_rng(3).standard_normal((2, 7, 2))
    bulk = Bulk(factor @ factor.transpose(0, 2, 1) / 2.0, [20.0, 20.0], 7)
    assert_allclose(bulk.atom, 1.0 - 4 / 40, rtol=1e-12)
    top = bulk.edges[-1, 1]
    for zeta in (1e-4 * top, 1e-6 * top, 1e-7 * top):
        point = bulk.solve(zeta)  # in the gap between the atom and the support
        assert not point.inside
        assert_allclose(zeta * point.m, -bulk.atom, rtol=1e-3)


def test_nearly_dependent_low_rank_matrices():
    """Three ranks of p/3: the left edge is tiny and as wrong as rounding of tr C_a/p, which is no gap."""
    p = 30
    factor = np.random.default_rng(17).standard_normal((3, p, p // 3))
    bulk = Bulk(factor @ factor.transpose(0, 2, 1) / (p // 3), [1.2 * p, 1.05 * p, 0.9 * p], p)
    assert_allclose(bulk.atom, 1.0 - 1.0 / 3.15, rtol=1e-12)
    assert (bulk.edges.ravel()[1:] > bulk.edges.ravel()[:-1]).all()
    assert bulk.mass_error < 1e-9


def test_zero_and_singular_covariances():
    p = 12
    blocks = np.zeros((3, p))
    blocks[0, :4], blocks[1, 4:] = 1.0, 2.0
    bulk = Bulk(blocks, [6.0, 4.0, 5.0], p)  # orthogonal ranges, and a class of nothing
    one, two = Bulk([[1.0] * 4 + [0.0] * 8], [6.0], p), Bulk([[0.0] * 4 + [2.0] * 8], [4.0], p)
    assert_allclose(bulk.atom, (2 + 0 + 5) / 15, rtol=1e-14)
    x = np.linspace(0.0, 6.0, 40)[1:]
    assert_allclose(bulk.density(x), (6 * one.density(x) + 4 * two.density(x)) / 15, rtol=1e-12, atol=1e-14)
    assert_allclose(bulk.cdf(x), (6 * one.cdf(x) + 4 * two.cdf(x) + 5) / 15, rtol=1e-12)
    assert_allclose(bulk.solve(-1.0).q[2], 1.0, rtol=1e-15)
    nothing = Bulk([0.0], [3.0], p)
    assert nothing.edges.shape == (0, 2)
    assert nothing.atom == 1.0
    assert nothing.cdf([-1.0, 0.0]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("full", [False, True])
def test_atom_is_the_rank_deficit(full):
    """Rank of sampled rows, of classes whose ranges overlap: a class may have too many rows though p > n."""
    p, counts = 30, [12, 10, 5]
    diagonal = np.zeros((3, p))
    diagonal[0, :6], diagonal[1, 3:12], diagonal[2, 10:] = 1.0, 2.0, 3.0
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.standard_normal((n, p)) * np.sqrt(d) for n, d in zip(counts, diagonal, strict=True)])
    cov = diagonal
    if full:
        rotation = np.linalg.qr(rng.standard_normal((p, p)))[0]
        shear = np.linalg.qr(rng.standard_normal((6, 6)))[0]
        first = np.zeros((p, p))
        first[:6, :6] = (shear * np.linspace(1, 2, 6)) @ shear.T  # does not commute with the second
        cov = rotation @ np.stack([first, np.diag(diagonal[1]), np.diag(diagonal[2])]) @ rotation.T
        cov = 0.5 * (cov + np.swapaxes(cov, 1, 2))
    bulk = Bulk(cov, counts, p)
    assert_allclose(bulk.atom, 1.0 - np.linalg.matrix_rank(rows) / sum(counts), atol=1e-14)
    assert bulk.mass_error < 1e-8


# Sampled matrices


@pytest.mark.parametrize(
    "cov, counts, p",
    [
        ([1.0, 4.0], [700, 300], 2000),
        ([1.0, 4.0], [700, 300], 500),
        ([0.2, 20.0], [500, 500], 1000),
        (np.linspace(0.1, 3.0, 1000)[None] ** [[1.0], [2.0]], [300, 500], 1000),
        (np.linspace(0.1, 3.0, 400)[None] ** [[1.0], [2.0]], [600, 400], 400),
        (toeplitz(0.6 ** np.arange(700))[None], [1000], 700),
        (np.stack([toeplitz(0.6 ** np.arange(60)), np.diag(np.linspace(0.1, 2, 60))]), [500, 500], 60),
    ],
    ids=["scalar wide", "scalar tall", "far apart", "diagonal", "diagonal tall", "Toeplitz", "two full"],
)
def test_sampled_spectra(cov, counts, p):
    """Eigenvalues are rigid: counts are off by a few whatever n is (1 to 4 here), and by tens if the law is wrong."""
    bulk = Bulk(cov, counts, p)
    assert distance(sampled(cov, counts, p, 1), bulk.cdf) < 8.0 / sum(counts)


def test_distance_falls_like_one_over_n():
    """Mean of 4 draws: n·distance is constant up to a logarithm, so the slope is −1; −0.7 excludes n^-1/2."""
    sizes = [125, 250, 500, 1000]
    means = []
    for n in sizes:
        p = n // 2
        cov = np.linspace(0.1, 3.0, p)[None] ** [[1.0], [2.0]]
        bulk = Bulk(cov, [0.4 * n, 0.6 * n], p)
        counts = [round(0.4 * n), round(0.6 * n)]
        means.append(np.mean([distance(sampled(cov, counts, p, seed), bulk.cdf) for seed in range(4)]))
    assert np.polyfit(np.log(sizes), np.log(means), 1)[0] < -0.7


@pytest.mark.slow
@pytest.mark.parametrize("p", [200, 2000, 8000])
@pytest.mark.parametrize("kind", ["scalar", "diagonal", "Toeplitz"])
def test_sampled_spectra_at_four_thousand(kind, p):
    cov = {
        "scalar": [1.0, 4.0],
        "diagonal": np.linspace(0.1, 3.0, p)[None] ** [[1.0], [2.0]],
        "Toeplitz": toeplitz(0.6 ** np.arange(p))[None],
    }[kind]
    counts = [1000, 3000] if len(cov) == 2 else [4000]
    assert distance(sampled(cov, counts, p, 0), Bulk(cov, counts, p).cdf) < 0.003


@settings(max_examples=15, deadline=None)
@given(
    k=st.integers(1, 4),
    p=st.integers(1, 8),
    log_ratio=st.floats(-4.0, 4.0),
    spread=st.floats(0.0, 6.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_diagonal_bulk(k, p, log_ratio, spread, seed):
    rng = np.random.default_rng(seed)
    cov = 10.0 ** (spread * (rng.random((k, p)) - 0.5))
    counts = p * np.exp(log_ratio) * rng.dirichlet(np.ones(k)) + 1e-6
    bulk = Bulk(cov, counts, p)
    assert bulk.mass_error < 1e-7
    assert (np.diff(bulk.edges.ravel()) > 0).all()
    middle = bulk.edges.mean()
    m = bulk.solve(complex(middle, 0.1 * middle)).m
    assert m.imag > 0


# Input


def test_mixture():
    mixture = GaussianMixture(np.zeros((2, 5)), [1.0, 2.0], [0.25, 0.75])
    bulk = Bulk.from_mixture(mixture, 40)
    assert bulk.counts.tolist() == [10.0, 30.0]
    assert (bulk.n, bulk.p) == (40.0, 5)
    with pytest.raises(TypeError, match="`mixture`"):
        Bulk.from_mixture(None, 40)


@pytest.mark.parametrize(
    "cov, counts, p, message",
    [
        ([1.0, 2.0], [3.0], 5, "`counts`"),
        ([1.0, 2.0], [3.0, 0.0], 5, "`counts`"),
        ([1.0, -2.0], [3.0, 1.0], 5, "`covariances`"),
        (np.ones((2, 4)), [3.0, 1.0], 5, "`covariances`"),
        (-np.eye(5)[None], [3.0], 5, "semi-definite"),
        (np.array([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, 2.0]]]), [3.0, 1.0], 2, "semi-definite"),
        (np.arange(4.0).reshape(1, 2, 2), [3.0], 2, "symmetric"),
        ([np.nan], [3.0], 2, "finite"),
    ],
)
def test_bad_input_is_refused(cov, counts, p, message):
    with pytest.raises(ValueError, match=message):
        Bulk(cov, counts, p)


def test_bad_points_are_refused():
    bulk = Bulk([1.0], [10.0], 5)
    with pytest.raises(ValueError, match="`zeta` must not be 0"):
        bulk.solve(0.0)
    with pytest.raises(ValueError, match="finite"):
        bulk.solve(np.nan)
    with pytest.raises(TypeError, match="`zeta`"):
        bulk.solve("1")
    with pytest.raises(ValueError, match="5 rows"):
        bulk.quadratic(bulk.solve(-1.0), np.ones((4, 2)))
    wide = Bulk([1.0], [5.0], 10)
    assert_allclose(wide.solve(0.0).q, 2.0, rtol=1e-13)  # q = 1/h, h = 1/(1 + q/2)
    with pytest.raises(ValueError, match="ζ = 0"):
        wide.apply(wide.solve(0.0), np.ones((10, 1)))


def test_nearly_coinciding_ranges_come_with_advice_that_helps():
    # three covariances of rank 5 in 40 dimensions, 4e-5 apart: eigenvalues 10 decades below the rest
    rng = np.random.default_rng(5)
    factor = rng.standard_normal((40, 5))
    factors = [factor + 4e-5 * rng.standard_normal((40, 5)) for _ in range(3)]
    covariances = np.stack([f @ f.T / 5.0 for f in factors])
    counts = np.full(3, 110.0)
    with pytest.raises(ConvergenceError, match=r"10\.\d decades.*add 1e-6 of the mean variance"):
        _ = Bulk(covariances, counts, 40).edges
    lift = np.trace(covariances[0]) / 40.0 * np.eye(40)
    some, more = (Bulk(covariances + ridge * lift, counts, 40).edges for ridge in (1e-6, 2e-6))
    assert some[-1] == pytest.approx(more[-1], rel=1e-5)
