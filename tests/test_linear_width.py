"""Linear-width spectra: known laws, sampled networks, and what the equations promise."""

import numpy as np
import pytest
from cases import thinned
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad

import rmtntk as rn
from rmtntk.coefficients import coefficients
from rmtntk.linear_width import LinearWidthSpectrum, linear_width_spectrum

Array = NDArray[np.float64]
MIXED = rn.Network(["relu", "tanh", "erf"], weight_std=1.3)


def gaussian_rows(n: int, p: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, p)) / np.sqrt(p)


def input_eigenvalues(x: Array) -> Array:
    return np.linalg.eigvalsh(x @ x.T)


def isotropic(p: int, variance: float = 1.0) -> rn.GaussianMixture:
    return rn.GaussianMixture(np.zeros((1, p)), [variance])


def kolmogorov(law: LinearWidthSpectrum, eigenvalues: Array) -> float:
    """sup |F − F_n|, from both sides of every eigenvalue; rounding is taken off eigenvalues at an atom."""
    values = np.sort(eigenvalues)
    n, top = len(values), values[-1]
    for where, _ in law.atoms:
        values[np.abs(values - where) <= 1e-9 * top] = where
    points, first = np.unique(values, return_index=True)
    right = law.cdf(points)
    left = right.copy()
    for where, mass in law.atoms:
        left[points == where] -= mass
    return max(np.abs(right - np.append(first[1:], n) / n).max(), np.abs(left - first / n).max())


def integrals(law: LinearWidthSpectrum, points: int) -> Array:
    """∫ x^k dF, k = 0, 1, 2, by the substitution that removes square-root edges, atoms included."""
    powers = np.arange(3)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = np.sum([mass * float(where) ** powers[:, 0] for where, mass in law.atoms], axis=0) + np.zeros(3)
    for low, high in law.edges:
        angle = 0.5 * np.pi * (nodes + 1.0)
        x = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)
        total += x**powers @ (weights * 0.25 * np.pi * (high - low) * np.sin(angle) * law.density(x))
    return total


def marchenko_pastur(x: Array, ratio: float) -> Array:
    low, high = (1.0 - np.sqrt(ratio)) ** 2, (1.0 + np.sqrt(ratio)) ** 2
    return np.sqrt(np.maximum((high - x) * (x - low), 0.0)) / (2.0 * np.pi * ratio * x)


# known laws -------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.05, 0.5, 2.0, 20.0])
def test_an_even_activation_gives_marchenko_pastur(ratio: float) -> None:
    # |t| has no linear part, so Φ is a multiple of the identity whatever the data.
    n = 400
    law = linear_width_spectrum(rn.Network("abs"), (round(n / ratio),), n, np.linspace(0.0, 2.0, n))
    scale = law.mean
    edges = (1.0 + np.array([-1.0, 1.0]) * np.sqrt(ratio)) ** 2
    np.testing.assert_allclose(law.edges / scale, [edges], rtol=0, atol=1e-11 * edges[1])
    grid = np.linspace(edges[0] + 1e-9, edges[1] * 1.1, 301)
    # density up to a few ulp of its largest value; both routes lose digits next to an edge
    np.testing.assert_allclose(law.density(grid * scale) * scale, marchenko_pastur(grid, ratio), rtol=0, atol=1e-10)
    middle = float(edges.mean())
    expected = quad(lambda x: marchenko_pastur(np.array(x), ratio), edges[0], middle, epsabs=1e-11)[0]
    assert law.cdf(middle * scale) == pytest.approx(expected + max(0.0, 1.0 - 1.0 / ratio), abs=1e-9)
    assert law.atoms == ([] if ratio < 1.0 else [(0.0, pytest.approx(1.0 - 1.0 / ratio, abs=1e-15))])


def test_the_identity_gives_a_product_of_two_wisharts() -> None:
    # Fuss–Catalan law of order 2 (Penson and Życzkowski 2011, eq. 8), support (0, 27/4).
    n = 300
    law = linear_width_spectrum(rn.Network("identity"), (n,), n, isotropic(n))
    x = np.linspace(0.01, 6.74, 200)
    root = 27.0 + 3.0 * np.sqrt(81.0 - 12.0 * x)
    expected = 2 ** (1 / 3) * np.sqrt(3.0) / (12.0 * np.pi)
    expected = expected * (2 ** (1 / 3) * root ** (2 / 3) - 6.0 * x ** (1 / 3)) / (x ** (2 / 3) * root ** (1 / 3))
    np.testing.assert_allclose(law.density(x), expected, rtol=1e-11)  # the oracle cancels near 27/4
    np.testing.assert_allclose(law.edges, [[0.0, 6.75]], rtol=0, atol=1e-10)
    assert law.density(0.0) == np.inf
    assert law.cdf([-1.0, 0.0, 6.75, 7.0]).tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0], abs=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_identity_layers_have_fuss_catalan_moments(depth: int) -> None:
    # Order s = depth + 1: edge (s+1)^(s+1)/s^s, second moment s + 1.
    s = depth + 1
    law = linear_width_spectrum(rn.Network(["identity"] * depth), (200,) * depth, 200, isotropic(200))
    assert law.edges[0, 1] == pytest.approx((s + 1) ** (s + 1) / s**s, rel=1e-10)
    assert law.mean == pytest.approx(1.0, rel=1e-14)
    assert law.variance == pytest.approx(s, rel=1e-13)


@pytest.mark.parametrize("kind", ["ck", "ntk"])
def test_wide_layers_give_the_infinite_width_law(kind: str) -> None:
    n = 200
    eigenvalues = input_eigenvalues(gaussian_rows(n, 150))
    tau0 = float(np.sqrt(eigenvalues.mean()))
    limit = coefficients(MIXED, tau0)
    kernel = limit.linear(kind)[0] * eigenvalues + limit.shift(kind)
    z = np.mean(kernel) * np.array([0.5 + 0.3j, 1.0 + 0.1j, -0.2 + 0.0j, 1.5 - 0.2j])
    expected = (1.0 / (kernel[:, None] - z)).mean(axis=0)
    errors = []
    for factor in (200, 400):
        law = linear_width_spectrum(MIXED, (factor * n,) * 3, n, eigenvalues, kind=kind)
        errors.append(np.abs(law.stieltjes(z) / expected - 1.0).max())
        assert law.mean == pytest.approx(kernel.mean(), rel=1e-12)
    assert errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.15)  # first order in n/d


def test_a_gaussian_population_and_its_sample_agree() -> None:
    n, p = 600, 400
    net = rn.Network(["relu", "tanh"], input_scaling="fan_in")
    x = gaussian_rows(n, p) * np.sqrt(2.0 * p)
    sample = linear_width_spectrum(net, (300, 800), n, input_eigenvalues(x) / p, kind="ntk")
    population = linear_width_spectrum(net, (300, 800), n, isotropic(p, 2.0 * p), kind="ntk")
    low, high = population.edges[0, 0], population.edges[-1, 1]
    grid = np.linspace(low, high, 50)
    # eigenvalues of Gaussian data are within O(1/n) of the law, and tau0² within sqrt(2/(n p))
    assert np.abs(sample.cdf(grid) - population.cdf(grid)).max() < 3.0 / n + 3.0 * np.sqrt(2.0 / (n * p))


@pytest.mark.parametrize("p", [60, 100, 240])
def test_a_mixture_is_its_own_quadrature(p: int) -> None:
    # Diagonal covariances that are the identity but for 1e-13 take the general route; the law must not notice.
    n, net = 100, rn.Network("tanh")
    exact = linear_width_spectrum(net, (80,), n, isotropic(p), kind="ntk")
    nearly = np.ones((1, p)) + 1e-13 * (np.arange(p) % 2)
    rule = linear_width_spectrum(net, (80,), n, rn.GaussianMixture(np.zeros((1, p)), nearly), kind="ntk")
    z = exact.mean * np.array([1.0 + 0.05j, 0.3 + 0.2j, 2.5 + 0.01j])
    np.testing.assert_allclose(rule.stieltjes(z), exact.stieltjes(z), rtol=1e-8)
    assert rule.atoms == pytest.approx(exact.atoms)
    assert rule.variance == pytest.approx(exact.variance, rel=1e-9)


def test_a_mixture_of_two_covariances() -> None:
    n, p = 800, 600
    mixture = rn.GaussianMixture(np.zeros((2, p)), np.stack([np.linspace(0.2, 1.8, p), np.linspace(1.3, 0.7, p)]))
    x, _ = mixture.sample(n, 0, stratified=True)
    net = rn.Network(["tanh", "relu"])
    population = linear_width_spectrum(net, (400, 800), n, mixture)
    finite = rn.FiniteNetwork.sample(net, (400, 800), p, 1)
    assert kolmogorov(population, np.linalg.eigvalsh(finite.ck(x))) < 0.02  # as with the sample's own eigenvalues


# what the pieces owe each other -------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "kind"),
    thinned([(60, 60, 60), (200, 50, 400), (4000, 4000, 4000), (10, 400, 200)], ["ntk", "ck"]),
)
def test_mass_mean_and_variance(kind: str, widths: tuple[int, ...]) -> None:
    # the interval may hold several humps: 1e-5 in mass with 800 Gauss points (2e-5 with 400, 1e-9 with 1600)
    n = 200
    law = linear_width_spectrum(MIXED, widths, n, isotropic(100), kind=kind)
    mass, mean, second = integrals(law, 800)
    assert mass == pytest.approx(1.0, abs=1e-5)
    assert mean == pytest.approx(law.mean, rel=1e-5)
    assert second - law.mean**2 == pytest.approx(law.variance, rel=1e-4)
    assert law.cdf(law.edges[-1, 1] * 1.01) == pytest.approx(1.0, abs=1e-12)
    if kind == "ntk":
        assert law.mean == pytest.approx(coefficients(MIXED, 1.0).kappa_sq[-1], rel=1e-12)
    low, high = law.edges[-1]
    x, h = 0.5 * (low + high), 1e-4 * (high - low)
    assert (law.cdf(x + h) - law.cdf(x - h)) / (2.0 * h) == pytest.approx(float(law.density(x)), rel=1e-5)


LAYER = st.tuples(st.sampled_from(["relu", "tanh", "abs", "identity"]), st.floats(-3.0, 3.0))


@settings(max_examples=12)
@given(
    st.lists(LAYER, min_size=1, max_size=3),
    st.floats(-2.0, 2.0),
    st.sampled_from(["ck", "ntk"]),
)  # fmt: skip
def test_solutions_are_stieltjes_transforms(layers: list[tuple[str, float]], aspect: float, kind: str) -> None:
    n = 1000
    net = rn.Network([name for name, _ in layers])
    widths = [max(1, round(n * np.exp(power))) for _, power in layers]  # n/d from 1/20 to 20
    mixture = isotropic(max(1, round(n * np.exp(aspect))))
    law = linear_width_spectrum(net, widths, n, mixture, kind=kind)
    x = law.shift + (law.mean - law.shift) * np.geomspace(1e-3, 100.0, 40)
    m = law.stieltjes(np.concatenate([x + 1e-3j * law.mean, x - 1e-3j * law.mean]))
    assert (m[:40].imag > 0.0).all()
    np.testing.assert_array_equal(m[40:], m[:40].conj())
    assert (np.abs(m) <= 1e3 / law.mean * (1.0 + 1e-12)).all()  # |m| ≤ 1/Im z
    probability = law.cdf(x)
    assert (np.diff(probability) >= -1e-12).all()
    assert probability[0] >= sum(mass for where, mass in law.atoms) - 1e-12
    assert probability[-1] <= 1.0 + 1e-12
    assert (law.density(x) >= 0.0).all()


def test_gaps_are_found() -> None:
    # Two far input eigenvalues and wide layers: the two humps of the CK stay apart.
    n = 100
    eigenvalues = np.repeat([0.1, 1.9], n // 2)
    law = linear_width_spectrum(rn.Network("tanh"), (20 * n,), n, eigenvalues)
    assert law.edges.shape == (2, 2)
    gap = law.edges[0, 1], law.edges[1, 0]
    assert law.density(np.linspace(*gap, 20)[1:-1]).tolist() == [0.0] * 18
    assert law.cdf(np.mean(gap)) == pytest.approx(0.5, abs=1e-12)
    inside = law.density([gap[0] - 1e-6, gap[1] + 1e-6])
    assert (inside > 0.0).all()


# atoms -------------------------------------------------------------


def atom_from_transform(law: LinearWidthSpectrum, where: float) -> float:
    """lim −iη m(where + iη)."""
    eta = 1e-7 * law.mean
    return float((-1j * eta * law.stieltjes(where + 1j * eta)).real)


ATOMS = [
    (["tanh"], (25,), "ck", 0.75),
    (["tanh", "relu"], (25, 200), "ck", 0.0),  # a nonlinear layer restores the rank
    (["identity", "identity"], (25, 200), "ck", 0.75),
    (["identity", "identity"], (200, 200), "ck", 0.7),  # the data has rank 30
    (["tanh"], (40,), "ntk", 0.3),  # 100 − 30 − 40
    (["tanh", "tanh"], (20, 30), "ntk", 0.2),
    (["identity", "identity"], (20, 30), "ntk", 0.7),
    (["tanh", "abs"], (20, 30), "ntk", 0.7),  # |t| hides the data and the first layer
]


@pytest.mark.parametrize(("case", "source"), thinned(ATOMS, ["sample", "population"]))
def test_atoms(case: tuple[list[str], tuple[int, ...], str, float], source: str) -> None:
    names, widths, kind, mass = case
    n, p = 100, 30
    net, x = rn.Network(names), gaussian_rows(n, p)
    law = linear_width_spectrum(net, widths, n, input_eigenvalues(x) if source == "sample" else isotropic(p), kind=kind)
    if source == "population":
        assert integrals(law, 200)[0] == pytest.approx(1.0, abs=1e-4)
    if mass == 0.0:
        assert law.atoms == []
        return
    ((where, found),) = law.atoms
    assert found == pytest.approx(mass, abs=1e-12)
    assert where == pytest.approx(law.shift, abs=1e-14)
    assert atom_from_transform(law, where) == pytest.approx(mass, abs=1e-4)
    assert law.cdf(where) == pytest.approx(mass, abs=1e-9)
    assert law.cdf(where - 1e-6) == 0.0
    assert law.density(where) == 0.0
    with pytest.raises(ValueError, match="off the atoms"):
        law.stieltjes(where)
    if kind == "ck" and source == "sample":
        kernel = rn.FiniteNetwork.sample(net, widths, p, 1).ck(x)
        assert n - np.linalg.matrix_rank(kernel) == round(mass * n)


def test_orthonormal_data_gives_an_atom_away_from_zero() -> None:
    n = 100
    law = linear_width_spectrum(rn.Network("tanh"), (40,), n, np.ones(n), kind="ntk")
    ((where, mass),) = law.atoms
    assert where == pytest.approx(law.shift + law.weights[0], rel=1e-12)
    assert mass == pytest.approx(0.6)
    assert atom_from_transform(law, where) == pytest.approx(0.6, abs=1e-4)


# sampled networks -------------------------------------------------------------


def lower_kernels(finite: rn.FiniteNetwork, x: Array) -> list[Array]:
    """G_0 … G_L of a sampled network (w² not included)."""
    result = [x @ x.T]
    for depth in range(1, finite.net.depth + 1):
        net = rn.Network(finite.net.activations[:depth], weight_std=finite.net.weight_std)
        result.append(rn.FiniteNetwork.from_arrays(net, finite.weights[:depth]).ck(x))
    return result


@pytest.mark.parametrize("law", ["gaussian", "ternary"])
@pytest.mark.parametrize(
    ("net", "shares"),
    [
        (rn.Network("relu"), (0.5,)),
        (rn.Network(["tanh", "tanh"]), (2.0, 1.0)),
        (rn.Network(["erf"] * 3), (1.0, 1.0, 1.0)),
        (MIXED, (1.0, 0.5, 2.0)),
    ],
    ids=["relu", "tanh", "erf", "mixed"],
)
def test_sampled_kernels(net: rn.Network, shares: tuple[float, ...], law: str) -> None:
    # Found 0.004 to 0.012 at n = 400: a few O(1) outliers and the O(1/n) error of linear statistics.
    n, p = 400, 320
    widths = tuple(int(share * n) for share in shares)
    x = gaussian_rows(n, p, 3)
    eigenvalues = input_eigenvalues(x)
    sparsity = 0.5 if law == "ternary" else 0.0
    finite = rn.FiniteNetwork.sample(net, widths, p, 7, law=law, sparsity=sparsity)
    kernels = lower_kernels(finite, x)
    ck = linear_width_spectrum(net, widths, n, eigenvalues)
    assert kolmogorov(ck, np.linalg.eigvalsh(kernels[-1])) < 0.02
    # The joint law of all layers: the theorem's own form of the NTK, with the features of this network.
    ntk = linear_width_spectrum(net, widths, n, eigenvalues, kind="ntk")
    form = ntk.shift * np.eye(n) + sum(q * g for q, g in zip(ntk.weights, kernels, strict=True))
    assert kolmogorov(ntk, np.linalg.eigvalsh(form)) < 0.02


@pytest.mark.parametrize("law", ["gaussian", "ternary"])
def test_weights_of_a_given_network(law: str) -> None:
    # q_l and r read off the sampled NTK by least squares on G_l, I: that is, off its entries and not its spectrum.
    n, p, widths = 500, 400, (200, 150, 250)
    x = gaussian_rows(n, p, 5)
    finite = rn.FiniteNetwork.sample(MIXED, widths, p, 0, law=law, sparsity=0.3 if law == "ternary" else 0.0)
    kernel = finite.ntk(x)
    given = linear_width_spectrum(MIXED, widths, n, input_eigenvalues(x), kind="ntk", network=finite)
    average = linear_width_spectrum(MIXED, widths, n, input_eigenvalues(x), kind="ntk")
    design = np.stack([np.eye(n).ravel(), *(g.ravel() for g in lower_kernels(finite, x))], axis=1)
    off = ~np.eye(n, dtype=bool).ravel()
    fitted = np.linalg.lstsq(design[off, 1:], kernel.ravel()[off], rcond=None)[0]
    # 12 draws: within 5 % of the fit, the averages off by up to 32 % (of which 10 % and more here)
    np.testing.assert_allclose(given.weights, fitted, rtol=0.06)
    assert given.weights[-1] == pytest.approx(1.3**2, rel=1e-14)
    assert given.mean == pytest.approx(np.trace(kernel) / n, rel=0.01)  # found 0.004 and 0.005
    assert np.abs(average.weights / fitted - 1.0).max() > 0.09  # else this test would not tell the two apart


def test_ntk_of_a_sampled_network() -> None:
    # Error O(n^-1/2): the entrywise products leave noise of that norm (found 0.025 at n = 800).
    n, p, widths = 800, 640, (1600,)
    net = rn.Network("tanh")
    x = gaussian_rows(n, p, 3)
    finite = rn.FiniteNetwork.sample(net, widths, p, 7, law="ternary")
    law = linear_width_spectrum(net, widths, n, input_eigenvalues(x), kind="ntk", network=finite)
    assert kolmogorov(law, np.linalg.eigvalsh(finite.ntk(x))) < 0.05


@pytest.mark.slow
def test_rate_of_the_conjugate_kernel() -> None:
    # Mean of 6 draws at each n; two draws to n = 1000 had slopes of −0.73 to −0.87 on nine networks.
    net, sizes, distances = rn.Network(["relu", "tanh"]), (200, 400, 800, 1600), []
    for n in sizes:
        found = []
        for seed in range(6):
            x = gaussian_rows(n, n, seed)
            finite = rn.FiniteNetwork.sample(net, (n // 2, n), n, seed + 100)  # never the seed of the data
            law = linear_width_spectrum(net, (n // 2, n), n, input_eigenvalues(x))
            found.append(kolmogorov(law, np.linalg.eigvalsh(finite.ck(x))))
        distances.append(np.mean(found))
    slope = np.polyfit(np.log(sizes), np.log(distances), 1)[0]
    assert slope < -0.65


# input -------------------------------------------------------------


def test_bad_input() -> None:
    net, ones = rn.Network("tanh"), np.ones(10)
    with pytest.raises(TypeError, match="`net`"):
        linear_width_spectrum("tanh", (5,), 10, ones)
    with pytest.raises(ValueError, match="`widths`"):
        linear_width_spectrum(net, (5, 5), 10, ones)
    with pytest.raises(ValueError, match="n = 10 eigenvalues"):
        linear_width_spectrum(net, (5,), 10, np.ones(9))
    with pytest.raises(ValueError, match="smallest of -1"):
        linear_width_spectrum(net, (5,), 10, np.append(np.ones(9), -1.0))
    with pytest.raises(ValueError, match="`kind`"):
        linear_width_spectrum(net, (5,), 10, ones, kind="nngp")
    with pytest.raises(ValueError, match="centered=True"):
        linear_width_spectrum(rn.Network("tanh", bias_std=0.1), (5,), 10, ones)
    with pytest.raises(ValueError, match="`tau0` must be the scale of the rows"):
        linear_width_spectrum(net, (5,), 10, ones, tau0=2.0)
    with pytest.raises(rn.InfiniteDiagonalError, match="layer 1"):
        linear_width_spectrum(rn.Network("sign"), (5,), 10, ones, kind="ntk")
    other = rn.FiniteNetwork.sample(net, (6,), 10, 0)
    with pytest.raises(ValueError, match="`network`"):
        linear_width_spectrum(net, (5,), 10, ones, kind="ntk", network=other)
    law = linear_width_spectrum(net, (5,), 10, ones)
    with pytest.raises(ValueError, match="`grid`"):
        law.density([np.nan])
    with pytest.raises(ValueError, match="`z`"):
        law.stieltjes(np.inf)


def test_rounding_of_zero_eigenvalues_is_zero() -> None:
    x = gaussian_rows(60, 20)
    rounded = input_eigenvalues(x)
    exact = np.where(rounded < 1e-10, 0.0, rounded)
    first, second = (linear_width_spectrum(rn.Network("identity"), (90,), 60, e) for e in (rounded, exact))
    assert first.atoms == second.atoms == [(0.0, pytest.approx(2.0 / 3.0))]
