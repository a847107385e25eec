import math
import sys

import numpy as np
import pytest
from cases import slow, thinned
from numpy.testing import assert_allclose
from scipy.sparse.linalg import eigsh

import rmtntk as rn
from rmtntk.spectra import limiting_spectrum, visibility_threshold


def two_means(p, size=2.0):
    means = np.zeros((2, p))
    means[:, 0] = size, -size
    return means


def mixed(p):
    """Two classes of different mean, trace and shape."""
    shift = 2.0 / math.sqrt(p)
    second = np.where(np.arange(p) % 2 == 0, 0.4, 1.6) - shift
    return rn.GaussianMixture(two_means(p), np.stack([np.full(p, 1.0 + shift), second]), [0.4, 0.6])


def traces(p):
    shift = 8.0 / math.sqrt(p)
    return rn.GaussianMixture(np.zeros((2, p)), np.array([1.0 + shift, 1.0 - shift]))


def distance(values, spectrum, **options):
    """Kolmogorov–Smirnov distance, both sides of every eigenvalue."""
    n = len(values)
    at = spectrum.cdf(values, **options)
    before = spectrum.cdf(np.nextafter(values, -np.inf), **options)
    return max(np.abs(at - np.arange(1, n + 1) / n).max(), np.abs(before - np.arange(n) / n).max())


def sides(x, labels, mix):
    """Unit vectors along the class indicators and ψ."""
    centred = x - mix.means[labels] / math.sqrt(x.shape[1])
    psi = (centred**2).sum(axis=1) - mix.traces[labels]
    table = np.column_stack([np.eye(mix.n_classes)[labels], psi])
    return table / np.linalg.norm(table, axis=0)


# closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "p"), [(500, 1000), (1000, 1000), (2000, 1000), (50_000, 1000), (1000, 50_000)])
def test_one_spike_over_identity_noise(n, p):
    """Benaych-Georges and Nadakuditi (2012), section 3.1: singular values of θ u vᵀ + noise of variance 1/p."""
    c = n / p
    theta = 1.7 * c**0.25
    means = np.zeros((1, p))
    means[0, :4] = 0.5 * theta / math.sqrt(c)
    s = limiting_spectrum(rn.Network("identity"), rn.GaussianMixture(means, [1.0]), n)
    t = theta**2
    assert_allclose(s.outliers, [(1.0 + t) * (c + t) / t], rtol=1e-10)
    assert_allclose(s.alignments, [[1.0 - c * (1.0 + t) / (t * (t + c)), 0.0]], rtol=1e-8, atol=1e-14)
    assert_allclose(s.edges, [[(1.0 - math.sqrt(c)) ** 2, (1.0 + math.sqrt(c)) ** 2]], rtol=1e-7, atol=1e-9)
    assert s.atoms == ([] if n <= p else [(0.0, pytest.approx(1.0 - p / n, abs=1e-14))])


@pytest.mark.parametrize(("n", "p"), [(300, 1200), (1000, 1000), (20_000, 400)])
def test_threshold_of_a_mean(n, p):
    """The phase transition is at θ = c^{1/4}; the network's other coefficients are 0."""
    found = visibility_threshold(rn.Network("identity"), rn.GaussianMixture(np.eye(1, p) * 3.0, [1.0]), n)
    assert found.visible
    assert found.scale == pytest.approx((p / n) ** 0.25 / 3.0, rel=1e-7)
    assert found.location == pytest.approx((1.0 + math.sqrt(n / p)) ** 2, rel=1e-7)
    assert (found.side, found.outliers) == ("above", 0)


def test_density_is_marchenko_pastur():
    n, p = 600, 1500
    mix = rn.GaussianMixture(np.zeros((1, p)), [1.0])
    s = limiting_spectrum(rn.Network("erf"), mix, n)
    c1, c = s.slope, s.shift
    low, high = s.edges[0]
    x = np.linspace(low, high, 101)[1:-1]
    zeta = (x - c) / c1
    ratio = n / p
    a, b = (1.0 - math.sqrt(ratio)) ** 2, (1.0 + math.sqrt(ratio)) ** 2
    expected = np.sqrt((b - zeta) * (zeta - a)) / (2.0 * np.pi * ratio * zeta) / c1
    assert_allclose(s.density(x), expected, rtol=1e-8)
    assert_allclose(s.density([low - 0.1, high + 0.1]), 0.0, atol=1e-12)


@pytest.mark.parametrize("ratio", [0.25, 1.5])
def test_density_atoms_and_cdf_agree(ratio):
    n = 800
    s = limiting_spectrum(rn.Network(["relu", "relu"]), mixed(int(ratio * n)), n, kind="ntk")
    mass = sum(m for _, m in s.atoms)
    for a, b in s.edges:
        theta = np.pi * (np.arange(4000) + 0.5) / 4000
        x = a + 0.5 * (b - a) * (1.0 - np.cos(theta))
        mass += float((s.density(x) * 0.5 * (b - a) * np.sin(theta)).sum() * np.pi / 4000)
    assert mass == pytest.approx(1.0, abs=1e-5)
    assert_allclose(s.cdf([s.edges[0, 0] - 1e-6, s.edges[-1, 1]]), [sum(m for _, m in s.atoms), 1.0], atol=1e-7)
    assert s.cdf(s.shift - 1e-9) == 0.0


def test_multiple_outlier_of_a_simplex_of_means():
    n, p = 1200, 600
    means = np.zeros((3, p))
    means[:, :3] = 2.5 * (np.eye(3) - 1.0 / 3.0)
    s = limiting_spectrum(rn.Network("identity"), rn.GaussianMixture(means, np.ones(3)), n)
    assert_allclose(s.multiplicity, [2, 2])
    assert s.outliers[0] == s.outliers[1]
    # each class of n/3 samples: the two singular values are θ² = (n/p)·(2.5²/3)
    t, c = 2.5**2 / 3.0 * n / p, n / p
    assert_allclose(s.outliers, (1.0 + t) * (c + t) / t, rtol=1e-9)
    # the projector's share of an indicator: 2/3 of it lies in the span of the contrasts
    assert_allclose(s.alignments[:, :3], 2.0 / 3.0 * (1.0 - c * (1.0 + t) / (t * (t + c))), rtol=1e-7)
    assert s.spread[0] == s.spread[1] > 0.0


# against sampled matrices ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::rmtntk.errors.AssumptionWarning")  # traces at twice the limit
@pytest.mark.parametrize("kind", ["ck", "ntk"])
@pytest.mark.parametrize("make", [mixed, traces])
def test_outliers_alignments_and_spread_of_sampled_equivalents(make, kind):
    n, p, draws = 600, 300, 60
    mix = make(p)
    net = rn.Network(["relu", "relu"])
    s = limiting_spectrum(net, mix, n, kind=kind, stratified=True)
    count = int((s.outliers > s.edges[-1, 1]).sum())
    assert count >= 1
    values, cosines = [], []
    for seed in range(draws):
        x, labels = mix.sample(n, seed, stratified=True)
        eq = rn.equivalent(net, x, labels, kind=kind, mixture=mix)
        w, v = eigsh(eq, k=count, v0=np.random.default_rng(0).standard_normal(n), tol=1e-9)
        order = np.argsort(w)[::-1]
        values.append(w[order])
        cosines.append((v[:, order].T @ sides(x, labels, mix)) ** 2)
    mean, deviation = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
    # the mean has a bias of its own, O(1/n), below .5 % here, besides a standard error of .2 %
    assert_allclose(mean, s.outliers[:count], rtol=0.012)
    assert_allclose(np.mean(cosines, axis=0), s.alignments[:count], atol=0.02)
    # a standard deviation from 60 draws is known to 9 %; three of these and 8 % of finite size
    assert_allclose(deviation / s.spread[:count], 1.0, atol=0.35)


def test_spread_with_drawn_labels():
    """The class counts' share dominates for means of different length; 300 draws know a standard deviation to 4 %."""
    n, p, draws = 200, 200, 300
    means = np.zeros((2, p))
    means[0, 0] = 4.0
    mix = rn.GaussianMixture(means, np.ones(2), [0.2, 0.8])
    net = rn.Network("identity")
    drawn, fixed = (limiting_spectrum(net, mix, n, stratified=flag) for flag in (False, True))
    assert drawn.spread[0] > 1.5 * fixed.spread[0]
    for s, flag in ((drawn, False), (fixed, True)):
        rows = (mix.sample(n, seed, stratified=flag)[0] for seed in range(draws))
        top = [np.linalg.eigvalsh(x @ x.T)[-1] for x in rows]
        assert np.std(top) / s.spread[0] == pytest.approx(1.0, abs=0.17)


def test_outliers_between_atom_and_bulk():
    n, p = 800, 400
    mix = mixed(p)
    net = rn.Network(["relu"] * 3)
    s = limiting_spectrum(net, mix, n)
    low = s.outliers[s.outliers < s.edges[0, 0]]
    assert len(low) == 1
    x, labels = mix.sample(n, 1, stratified=True)
    values = np.linalg.eigvalsh(rn.equivalent(net, x, labels, mixture=mix).to_dense())
    gap = s.edges[0, 0] - s.shift
    inside = values[(values > s.shift + 0.01 * gap) & (values < s.shift + 0.5 * gap)]
    assert_allclose(inside, low, atol=0.02 * gap)


@pytest.mark.parametrize("kind", ["ck", "ntk"])
def test_even_network_has_an_atom_and_outliers_only(kind):
    """With c1 = 0 the limits of the eigenvalues of V A Vᵀ; a sample's are within O(n^{-1/2})."""
    n, p = 20_000, 200
    mix = rn.GaussianMixture(two_means(p), np.stack([np.full(p, 1.1), np.linspace(0.1, 1.7, p)]), [0.3, 0.7])
    net = rn.Network("abs", tau0=mix.tau0)
    s = limiting_spectrum(net, mix, n, kind=kind)
    assert s.edges.shape == (0, 2)
    assert s.atoms == [(s.shift, 1.0)]
    assert s.density(s.shift) == 0.0
    assert_allclose(s.cdf([s.shift - 1e-9, s.shift]), [0.0, 1.0])
    x, labels = mix.sample(n, 0, stratified=True)
    eq = rn.equivalent(net, x, labels, kind=kind, mixture=mix)
    v = eq.factor
    root = np.linalg.cholesky(v.T @ v)
    values = np.linalg.eigvalsh(root.T @ eq.core @ root)[::-1]
    assert_allclose(s.outliers - s.shift, values[: len(s.outliers)], rtol=5.0 * float((s.spread / s.outliers).max()))


def test_even_network_does_not_see_means():
    mix = rn.GaussianMixture(two_means(50), np.ones(2))
    found = visibility_threshold(rn.Network("cos"), mix, 100)
    assert not found.visible
    assert found.scale is None
    assert "c1 = 0" in found.message


# invariances -----------------------------------------------------------------------------------------------------


def test_fan_in_is_a_change_of_units():
    n, p = 300, 120
    mix = mixed(p)
    big = rn.GaussianMixture(mix.means * math.sqrt(p), mix.covariances * p, mix.weights)
    one = limiting_spectrum(rn.Network("relu"), mix, n, kind="ntk")
    two = limiting_spectrum(rn.Network("relu", input_scaling="fan_in"), big, n, kind="ntk")
    for name in ("outliers", "edges", "alignments", "spread"):
        assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-7, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("power", [-220, slow(-100), 100])
def test_units_of_the_weights_do_not_matter(power):
    """A homogeneous net at another weight_std, a power of 2: every number but the scale stays, to rounding."""
    n, p, unit = 300, 120, 2.0 ** (2 * power)
    mix = mixed(p)
    one = limiting_spectrum(rn.Network("relu"), mix, n)
    two = limiting_spectrum(rn.Network("relu", weight_std=2.0**power), mix, n)
    for name, factor in (("outliers", unit), ("edges", unit), ("alignments", 1.0), ("spread", unit)):
        assert_allclose(getattr(two, name) / factor, getattr(one, name), rtol=1e-10, atol=1e-13, err_msg=name)
    grid = np.linspace(one.edges[0, 0], one.edges[-1, 1], 7)
    smeared = two.density(unit * grid, finite_size=True) * unit
    assert_allclose(smeared, one.density(grid, finite_size=True), rtol=1e-5)  # settled to 1e-9, next to a hard edge


@pytest.mark.parametrize("weight_std", [1e-92, 1e-160, 1e80, 1e120])
def test_sizes_beyond_float64_are_refused(weight_std):
    """At 1e-92 the coefficient of ψψᵀ underflows, and with it an outlier; at 1e80 squares overflow."""
    with pytest.raises(ValueError, match=r"`net` must have layers .* rescale"):
        limiting_spectrum(rn.Network("relu", weight_std=weight_std), mixed(60), 100)
    with pytest.raises(ValueError, match=r"`net` must have layers .* rescale"):
        visibility_threshold(rn.Network("relu", weight_std=weight_std), mixed(60), 100)


def test_data_beyond_float64_are_refused():
    mix = mixed(60)
    tiny = rn.GaussianMixture(1e-80 * mix.means, 1e-160 * mix.covariances, mix.weights)
    with pytest.raises(ValueError, match=r"`mixture` must have norms .* rescale"):
        limiting_spectrum(rn.Network("relu"), tiny, 100)


@pytest.mark.parametrize("seed", [slow(0), 1])
def test_low_rank_covariances_that_do_not_commute(seed):
    """The outliers are counted next to the atom, where p × p matrices are ill-conditioned; against one sampled K̃."""
    rng = np.random.default_rng(seed)
    p, n = 60, 400
    factor = rng.standard_normal((2, p, 20))
    means = np.zeros((2, p))
    means[:, 0] = 4.0, -4.0
    mix = rn.GaussianMixture(means, factor @ factor.transpose(0, 2, 1) / 20.0, [0.5, 0.5])
    s = limiting_spectrum(rn.Network("erf"), mix, n)
    x, labels = mix.sample(n, rng)
    net = rn.Network("erf", tau0=mix.tau0)
    values = np.linalg.eigvalsh(rn.equivalent(net, x, labels, kind="ck", mixture=mix).to_dense())[::-1]
    top = s.edges[-1, 1]
    far = s.outliers[s.outliers > top]
    assert len(far) == 1
    assert abs(values[0] - far[0]) < 5.0 * s.spread[0]  # 5 sd: 1 in 2e6
    assert values[1] < top + 0.15 * (top - s.edges[0, 0])  # the edge moves like n^{-2/3}, .02


def test_spread_is_zero_where_nothing_fluctuates():
    """One covariance, an even network: the constant vector's eigenvalue has no variance, not the root of −1e-21."""
    mix = rn.GaussianMixture(np.zeros((3, 20)), np.ones(3), [0.357, 0.45, 0.193])
    s = limiting_spectrum(rn.Network("cos", weight_std=0.7, input_scaling="fan_in"), mix, 50, kind="ntk")
    assert len(s.spread) == 2
    assert np.isfinite(s.spread).all()
    assert s.spread[0] < 1e-12 * s.outliers[0]  # rounding
    assert s.spread[1] > 1e-3 * s.outliers[1]


def test_rotation_and_order_of_classes():
    n, p = 160, 80
    mix = mixed(p)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((p, p)))[0]
    full = np.stack([rotation @ (c[:, None] * rotation.T) for c in mix.covariances[::-1]])
    turned = rn.GaussianMixture(mix.means[::-1] @ rotation.T, 0.5 * (full + full.transpose(0, 2, 1)), mix.weights[::-1])
    one, two = (limiting_spectrum(rn.Network(["relu", "relu"]), m, n) for m in (mix, turned))
    assert_allclose(two.outliers, one.outliers, rtol=1e-8)
    assert_allclose(two.alignments[:, [1, 0, 2]], one.alignments, rtol=1e-6, atol=1e-10)
    assert_allclose(two.spread, one.spread, rtol=1e-6)


def test_covariances_that_do_not_commute():
    n, p = 120, 60
    rng = np.random.default_rng(1)
    factors = [rng.standard_normal((p, 2 * p)) / math.sqrt(2 * p) for _ in range(2)]
    mix = rn.GaussianMixture(two_means(p, 3.0), np.stack([f @ f.T for f in factors]))
    net = rn.Network("relu")
    s = limiting_spectrum(net, mix, n, stratified=True)
    top = []
    for seed in range(40):
        x, labels = mix.sample(n, seed, stratified=True)
        top.append(np.linalg.eigvalsh(rn.equivalent(net, x, labels, mixture=mix).to_dense())[-1])
    # standard error and a bias of O(1/n)
    assert np.mean(top) == pytest.approx(s.outliers[0], abs=3.0 * s.spread[0] / math.sqrt(40) + 3.0 / n * s.outliers[0])
    with pytest.raises(ValueError, match="commute"):
        s.cdf([0.1], finite_size=True)


@pytest.mark.parametrize(("n", "p"), [(10, 500), (5000, 10), (64, 64)])
def test_extreme_ratios_equal_covariances_and_no_means(n, p):
    mix = rn.GaussianMixture(np.zeros((2, p)), np.ones(2))
    s = limiting_spectrum(rn.Network("relu"), mix, n, kind="ntk")
    assert s.alignments.shape == (len(s.outliers), 3)
    for low, high in s.edges:
        assert not ((s.outliers > low) & (s.outliers < high)).any()
    assert (s.outliers > s.shift).all()
    assert (s.alignments >= 0.0).all()
    assert (s.alignments <= 1.0).all()
    assert (s.spread > 0.0).all()


# thresholds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["means", "covariances"])
def test_threshold_is_where_the_number_of_outliers_changes(what):
    n, p = 600, 300
    mix = mixed(p) if what == "means" else traces(p)
    net = rn.Network("relu", tau0=mix.tau0)
    found = visibility_threshold(net, mix, n, what=what)
    assert found.visible
    centre = np.tensordot(mix.weights, mix.covariances, axes=1)

    def count(s):
        if what == "means":
            scaled = rn.GaussianMixture(s * mix.means, mix.covariances, mix.weights)
        else:
            scaled = rn.GaussianMixture(mix.means, centre + s * (mix.covariances - centre), mix.weights)
        return len(limiting_spectrum(net, scaled, n).outliers)

    assert count(found.scale * 0.99) == found.outliers
    assert count(found.scale * 1.01) == found.outliers + 1


def test_nothing_to_scale():
    p = 40
    same = rn.GaussianMixture(np.zeros((2, p)), np.ones(2))
    for what, text in (("means", "zero"), ("covariances", "equal")):
        found = visibility_threshold(rn.Network("relu"), same, 100, what=what)
        assert (found.visible, found.scale, found.location, found.side) == (False, None, None, None)
        assert text in found.message


# finite size -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "kind"), thinned([0.5, 1.0, 2.0], ["ck", "ntk"]))
def test_finite_size_law_of_exact_kernels(ratio, kind):
    n = 600
    mix = mixed(int(ratio * n))
    net = rn.Network(["relu", "relu"], tau0=mix.tau0)
    s = limiting_spectrum(net, mix, n, kind=kind)
    values = np.linalg.eigvalsh(getattr(rn, kind)(net, mix.sample(n, 0, stratified=True)[0]))
    plain, refined = distance(values, s), distance(values, s, finite_size=True)
    # .031 at n = 500 for the worst of twelve cases, falling like 1/n; without it the atom alone costs a quarter
    assert refined <= 0.03
    assert plain >= (0.25 if ratio < 1.0 else 1.5 * refined)


@pytest.mark.parametrize("p", [slow(10**4), 10**6])
def test_finite_size_law_tends_to_the_limit(p):
    """The hard edge of p = n, where it is furthest from its limit: n^{-1/4} in the distribution function."""
    mix = rn.GaussianMixture(np.zeros((2, p)), np.ones(2))
    s = limiting_spectrum(rn.Network("relu"), mix, p)
    x = np.linspace(s.shift + 1e-6, s.edges[-1, 1], 400)
    gap = np.abs(s.cdf(x, finite_size=True) - s.cdf(x)).max()
    assert 0.05 * p**-0.25 < gap < 1.0 * p**-0.25


def test_finite_size_density_integrates_to_the_cdf():
    mix = mixed(200)
    s = limiting_spectrum(rn.Network("relu"), mix, 400)
    x = np.linspace(s.shift - 0.3, s.edges[-1, 1] + 0.3, 1501)
    y = s.density(x, finite_size=True)
    total = np.concatenate([[0.0], np.cumsum(0.5 * (y[1:] + y[:-1]) * np.diff(x))])
    # smoothing leaves tails outside, at most 5e-3 of mass
    assert_allclose(total / total[-1], s.cdf(x, finite_size=True), atol=3e-3)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("activations", [["relu"], ["relu"] * 3, ["erf"], ["tanh"] * 3])
def test_kolmogorov_smirnov_at_4000(activations, ratio):
    n = 4000
    mix = mixed(int(ratio * n))
    net = rn.Network(activations, tau0=mix.tau0)
    kernels = rn.ck_ntk(net, mix.sample(n, 0, stratified=True)[0])
    for kind, kernel in zip(("ck", "ntk"), kernels, strict=True):
        s = limiting_spectrum(net, mix, n, kind=kind)
        assert distance(np.linalg.eigvalsh(kernel), s, finite_size=True) <= 0.01


@pytest.mark.filterwarnings("ignore::rmtntk.errors.AssumptionWarning")  # traces at twice the limit
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ck", "ntk"])
@pytest.mark.parametrize("make", [lambda p: rn.GaussianMixture(two_means(p), np.ones(2)), mixed, traces])
def test_outliers_and_alignments_of_exact_kernels(make, kind):
    """Averaged over 8 draws; the two squared cosines of `traces` differ by .064 at n = 2000 (O(n^{-1/2}) of K − K̃)."""
    n, draws = 2000, 8
    mix = make(n // 2)
    net = rn.Network("relu", tau0=mix.tau0)
    s = limiting_spectrum(net, mix, n, kind=kind, stratified=True)
    count = int((s.outliers > s.edges[-1, 1]).sum())
    values, cosines = [], []
    for seed in range(draws):
        x, labels = mix.sample(n, seed, stratified=True)
        w, v = eigsh(getattr(rn, kind)(net, x), k=count, v0=np.random.default_rng(0).standard_normal(n), tol=1e-9)
        order = np.argsort(w)[::-1]
        values.append(w[order])
        cosines.append((v[:, order].T @ sides(x, labels, mix)) ** 2)
    assert_allclose(np.mean(values, axis=0), s.outliers[:count], rtol=0.02)
    assert_allclose(np.mean(cosines, axis=0), s.alignments[:count], atol=0.08 if make is traces else 0.03)


# input and output ------------------------------------------------------------------------------------------------


def test_bad_arguments():
    mix = mixed(60)
    net = rn.Network("relu")
    with pytest.raises(rn.InfiniteDiagonalError):
        limiting_spectrum(rn.Network("sign"), mix, 50, kind="ntk")
    assert limiting_spectrum(rn.Network("sign"), mix, 50).shift > 0.0
    with pytest.raises(ValueError, match="bias_std"):
        limiting_spectrum(rn.Network("relu", bias_std=0.1), mix, 50)
    with pytest.raises(ValueError, match="centered"):
        limiting_spectrum(rn.Network("relu", centered=False), mix, 50)
    with pytest.raises(ValueError, match="`kind`"):
        limiting_spectrum(net, mix, 50, kind="nngp")
    with pytest.raises(ValueError, match="`n`"):
        limiting_spectrum(net, mix, 0)
    with pytest.raises(TypeError, match="`mixture`"):
        limiting_spectrum(net, mix.means, 50)
    with pytest.raises(TypeError, match="`net`"):
        visibility_threshold("relu", mix, 50)
    with pytest.raises(ValueError, match="`what`"):
        visibility_threshold(net, mix, 50, what="norms")


def test_plot(monkeypatch):
    pytest.importorskip("matplotlib")
    mix = mixed(60)
    net = rn.Network("relu", tau0=mix.tau0)
    s = limiting_spectrum(net, mix, 120)
    values = np.linalg.eigvalsh(rn.ck(net, mix.sample(120, 0)[0]))
    axes = s.plot(eigenvalues=values, finite_size=True)
    assert s.plot(axes) is axes
    labels = axes.get_legend_handles_labels()[1]
    assert {"limiting density", "120 sampled eigenvalues", "at this n", "outliers ± 2 sd"} <= set(labels)
    limiting_spectrum(rn.Network("abs"), mix, 120).plot(eigenvalues=values)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(rn.MissingExtraError, match="plot"):
        s.plot()
