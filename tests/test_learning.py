import math
from dataclasses import replace

import numpy as np
import pytest
from cases import thinned
from numpy.testing import assert_allclose
from scipy.stats import norm

import rmtntk as rn
from rmtntk.errors import ConvergenceError
from rmtntk.learning import gradient_flow, kernel_flow, learning_curve
from rmtntk.learning import resolvent as bulk
from rmtntk.learning.contour import flow_contour, phi
from rmtntk.learning.decision import accuracy, orthant
from rmtntk.learning.engine import conjugate, model_of, respond, score_moments, squared_dual
from rmtntk.stieltjes import Bulk

TARGETS = np.array([[-1.0], [1.0]])
KINDS = ("ck", "ntk")


def mixture_of(name, p):
    """Two classes that differ in means, in covariances, or in both; or three."""
    means, covariances = np.zeros((2, p)), np.ones((2, p))
    if name in ("means", "mixed"):
        means[:, 0] = 2.0, -2.0
    if name in ("mixed", "covariances"):
        covariances[0] += 1.0 / math.sqrt(p)
        covariances[1] = np.where(np.arange(p) % 2 == 0, 0.4, 1.6) - 1.0 / math.sqrt(p)
    if name == "three":
        means = np.zeros((3, p))
        means[0, 0], means[1, 1] = 2.5, -2.5
        covariances = np.stack([np.ones(p), np.ones(p), np.where(np.arange(p) % 2 == 0, 0.5, 1.5)])
        return rn.GaussianMixture(means, covariances, [0.3, 0.3, 0.4])
    return rn.GaussianMixture(means, covariances, [0.4, 0.6])


def regression(net, mix, n, kind, ridges, targets, noise_std, centering, rng, n_test=1500):
    """Train error, test error and accuracy (R, 3) of regression with the exact kernel, by dense linear algebra."""
    x, labels = mix.sample(n, rng, stratified=True)
    test, test_labels = mix.sample(n_test, rng, stratified=True)
    y = targets[labels] + noise_std * rng.standard_normal((n, targets.shape[1]))
    function = rn.ck if kind == "ck" else rn.ntk
    kernel, cross = function(net, x), function(net, test, x)
    centre = y.mean(axis=0) if centering != "none" else 0.0
    if centering == "kernel":  # in feature space, written out: H K H and (k − 1ᵀK/n) H
        h = np.eye(n) - 1.0 / n
        cross = (cross - kernel.mean(axis=0)) @ h
        kernel = h @ kernel @ h
    out = []
    for ridge in ridges:
        dual = np.linalg.solve(kernel + ridge * np.eye(n), y - centre)
        scores = cross @ dual + centre
        fitted = kernel @ dual + centre
        nearest = ((scores[:, None] - targets) ** 2).sum(axis=2).argmin(axis=1)
        out.append(
            (
                ((y - fitted) ** 2).sum() / n,
                ((scores - targets[test_labels]) ** 2).sum() / n_test,
                (nearest == test_labels).mean(),
            )
        )
    return np.array(out)


def check_against_samples(net, mix, n, kind, ridges, draws=4, noise_std=0.3, centering="none", targets=None):
    c1 = rn.coefficients(net, mix.tau0).linear(kind)[0]
    absolute = np.array(ridges) * c1
    curve = learning_curve(
        net, mix, n, kind=kind, ridge=absolute, noise_std=noise_std, centering=centering, targets=targets
    )
    found = np.stack(
        [
            regression(
                net.with_tau0(mix.tau0), mix, n, kind, absolute, curve.targets, noise_std, centering,
                np.random.default_rng([n, k]),
            )
            for k in range(draws)
        ]
    )  # fmt: skip
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / math.sqrt(draws)
    # four standard errors (estimated from few draws), and n^{-1/2} for the limit itself: n = 400 leaves 5 %
    for column, theory in enumerate((curve.train_error[0], curve.test_error[0])):
        slack = 4.0 * error[:, column] + theory / math.sqrt(n)
        assert (np.abs(mean[:, column] - theory) <= slack).all(), (column, mean[:, column] / theory, slack / theory)
    # a point and a half, and n^{-1/2}/4: accuracies have slopes of about ¼ in the scores' signal-to-noise
    assert (np.abs(mean[:, 2] - curve.accuracy[0]) <= 0.015 + 0.25 / math.sqrt(n)).all(), (mean[:, 2], curve.accuracy)


# Against regression with the exact kernel


@pytest.mark.parametrize(
    ("model", "name"),
    thinned(
        [(["relu"], "ck"), (["relu"] * 3, "ntk"), (["erf"], "ntk"), (["tanh"], "ck")], ["means", "mixed", "covariances"]
    ),
)
def test_ridge_regression(model, name):
    activations, kind = model
    check_against_samples(rn.Network(activations), mixture_of(name, 200), 400, kind, [1e-3, 0.3, 10.0])


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_aspect_ratios(ratio):
    n = 600 if ratio < 1 else 300
    check_against_samples(rn.Network(["relu"] * 2), mixture_of("mixed", round(ratio * n)), n, "ntk", [0.01, 1.0])


@pytest.mark.parametrize("centering", ["targets", "kernel"])
def test_centering(centering):
    check_against_samples(
        rn.Network(["relu"] * 2), mixture_of("mixed", 200), 400, "ntk", [0.1, 3.0], centering=centering
    )


@pytest.mark.parametrize("centering", ["none", "kernel"])
def test_three_classes(centering):
    check_against_samples(
        rn.Network(["relu"] * 2), mixture_of("three", 200), 400, "ntk", [0.1, 1.0], centering=centering
    )


@pytest.mark.parametrize(
    "net",
    [
        rn.Network(["relu"] * 2, bias_std=0.3),
        rn.Network(["relu", "erf"], centered=False),
        rn.Network(["abs"]),  # c1 of the CK is 0
    ],
    ids=str,
)
def test_biases_uncentred_and_even(net):
    mix = mixture_of("mixed", 300)
    n, draws = 600, 4
    curve = learning_curve(net, mix, n, kind="ck", ridge=[0.1, 0.5], noise_std=0.3)
    found = np.stack(
        [
            regression(
                net.with_tau0(mix.tau0), mix, n, "ck", [0.1, 0.5], TARGETS, 0.3, "none", np.random.default_rng(k)
            )
            for k in range(draws)
        ]
    )
    error = found.std(axis=0, ddof=1) / math.sqrt(draws)
    theory = np.stack([curve.train_error[0], curve.test_error[0], curve.accuracy[0]], axis=1)
    # as above; n^{-1/2} for the limit
    assert (np.abs(found.mean(axis=0) - theory)[:, :2] <= (4.0 * error + theory / math.sqrt(n))[:, :2]).all()
    assert (np.abs(found.mean(axis=0) - theory)[:, 2] <= 0.025).all()


def test_class_scores_are_the_gaussians_of_the_limit():
    # Means, spreads and the shape of the scores in each class, not only the errors they add up to.
    mix, n = mixture_of("mixed", 400), 800
    net = rn.Network(["relu"] * 2)
    ridge = 0.1
    curve = learning_curve(net, mix, n, ridge=ridge)
    x, labels = mix.sample(n, 5, stratified=True)
    test, test_labels = mix.sample(6000, 6, stratified=True)
    net = net.with_tau0(mix.tau0)
    dual = np.linalg.solve(rn.ntk(net, x) + ridge * np.eye(n), TARGETS[labels, 0])
    scores = rn.ntk(net, test, x) @ dual
    for a in range(2):
        mean, std = curve.means[0, 0, a, 0], curve.stds[0, 0, a, 0]
        own = scores[test_labels == a]
        # one training set: fluctuations and bias of n^{-1/2} = .035
        assert abs(own.mean() - mean) < 2.0 / math.sqrt(n)
        assert own.std() == pytest.approx(std, rel=2.0 / math.sqrt(n))
        grid = np.linspace(-2.0, 2.0, 9)
        z = (own - own.mean()) / own.std()
        # 2400 or more scores: .01 s.e., and n^{-1/2} for the quadratic part's skewness
        assert_allclose([(z < t).mean() for t in grid], norm.cdf(grid), atol=0.035)


def equivalent_scores(net, mix, n, ridge, noise_std, draws, n_test=3000):
    """Train error, class means and class variances (5,) of regression with the sampled equivalent, averaged."""
    found = []
    for k in range(draws):
        rng = np.random.default_rng([7, k])
        x, labels = mix.sample(n, rng, stratified=True)
        test, test_labels = mix.sample(n_test, rng, stratified=True)
        both = np.concatenate([labels, test_labels])
        dense = rn.equivalent(net, np.vstack([x, test]), both, kind="ck", mixture=mix).to_dense()
        y = TARGETS[labels, 0] + noise_std * rng.standard_normal(n)
        dual = np.linalg.solve(dense[:n, :n] + ridge * np.eye(n), y)
        scores = dense[n:, :n] @ dual
        own = [scores[test_labels == a] for a in range(2)]
        found.append([ridge**2 * dual @ dual / n, *(s.mean() for s in own), *(s.var() for s in own)])
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(draws)


@pytest.mark.parametrize(
    "net",
    [
        rn.Network([rn.activations.polynomial([0.0, 0.5, 1.0])]),  # c1 = ¼, c2 = 1, c3 = 2: norms count
        rn.Network([rn.activations.polynomial([0.3, 0.5, 1.0])], bias_std=0.4, centered=False),
    ],
    ids=["centred", "constant part"],
)
def test_norms_and_traces_of_classes(net):
    # Classes of different traces, where ψ, t and the constant part's slopes matter; against the sampled equivalent,
    # so that only the limit of the resolvents is left out.
    p, n, draws = 250, 500, 5
    shift = 2.0 / math.sqrt(p)
    mix = rn.GaussianMixture(np.zeros((2, p)), np.array([1.0 - 1.5 * shift, 1.0 + shift]), [0.4, 0.6])
    curve = learning_curve(net, mix, n, kind="ck", ridge=0.2, noise_std=0.3)
    mean, error = equivalent_scores(net, mix, n, 0.2, 0.3, draws)
    theory = [curve.train_error[0, 0], *curve.means[0, 0, :, 0], *curve.stds[0, 0, :, 0] ** 2]
    # four standard errors and n^{-1/2}/2
    assert (np.abs(mean - theory) <= 4.0 * error + 0.5 * np.abs(theory) / math.sqrt(n)).all()


def test_error_falls_with_n():
    # The limit against the sampled equivalent K̃ at growing n, p = n/2: rms deviation of the training error over draws.
    net, kind, ridge = rn.Network(["relu"] * 2), "ntk", 0.3
    deviations = []
    sizes = (100, 200, 400)
    for n in sizes:
        mix = mixture_of("mixed", n // 2)
        theory = learning_curve(net, mix, n, kind=kind, ridge=ridge).train_error[0, 0]
        squares = []
        for k in range(12):
            x, labels = mix.sample(n, k, stratified=True)
            kernel = rn.equivalent(net, x, labels, kind=kind, mixture=mix).to_dense()
            dual = np.linalg.solve(kernel + ridge * np.eye(n), TARGETS[labels, 0])
            squares.append(((ridge**2 * dual @ dual / n) / theory - 1.0) ** 2)
        deviations.append(math.sqrt(np.mean(squares)))
    slope = np.polyfit(np.log(sizes), np.log(deviations), 1)[0]
    # expected −½ to −1; 12 draws leave log(rms) uncertain by .2, the slope over a factor 4 by .2
    assert slope < -0.3
    assert deviations[-1] < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("name", ["means", "mixed", "covariances"])
@pytest.mark.parametrize("activations", [["relu"] * 3, ["tanh"]])
def test_within_two_per_cent_at_2000(activations, name):
    mix, n, draws = mixture_of(name, 1000), 2000, 6
    net = rn.Network(activations)
    c1 = rn.coefficients(net, mix.tau0).linear("ntk")[0]
    ridges = np.array([0.01, 1.0]) * c1
    curve = learning_curve(net, mix, n, ridge=ridges, noise_std=0.3)
    at = net.with_tau0(mix.tau0)
    found = np.stack(
        [
            regression(at, mix, n, "ntk", ridges, TARGETS, 0.3, "none", np.random.default_rng(k), n_test=4000)
            for k in range(draws)
        ]
    )
    error = found.std(axis=0, ddof=1) / math.sqrt(draws)
    theory = np.stack([curve.train_error[0], curve.test_error[0], curve.accuracy[0]], axis=1)
    gap = np.abs(found.mean(axis=0) - theory)
    assert (gap[:, :2] <= 0.02 * theory[:, :2] + 3.0 * error[:, :2]).all()
    assert (gap[:, 2] <= 0.01 + 3.0 * error[:, 2]).all()


# Gradient flow


@pytest.mark.parametrize("name", ["mixed", "covariances"])
def test_gradient_flow_against_samples(name):
    mix, n, draws = mixture_of(name, 200), 400, 4
    net = rn.Network(["relu"] * 2)
    times = np.array([0.0, 0.1, 1.0, 10.0, 1000.0])
    flow = gradient_flow(net, mix, n, times, noise_std=0.3)
    at = net.with_tau0(mix.tau0)
    found = []
    for k in range(draws):
        rng = np.random.default_rng(k)
        x, labels = mix.sample(n, rng, stratified=True)
        test, test_labels = mix.sample(1500, rng, stratified=True)
        y = TARGETS[labels, 0] + 0.3 * rng.standard_normal(n)
        own = kernel_flow(rn.ntk(at, x), y, times, cross=rn.ntk(at, test, x))
        truth = TARGETS[test_labels, 0]
        error = ((own.test[..., 0] - truth) ** 2).mean(axis=1)
        right = (np.where(own.test[..., 0] > 0.0, 1.0, -1.0) == truth).mean(axis=1)
        found.append(np.stack([own.train_error, error, right], axis=1))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(draws)
    theory = np.stack([flow.train_error, flow.test_error], axis=1)
    # four standard errors and n^{-1/2}, of the loss at time 0 for the training loss that falls by decades
    slack = (
        4.0 * error[:, :2] + np.stack([0.05 * np.sqrt(flow.train_error * flow.train_error[0]), 0.05 * theory[:, 1]]).T
    )
    assert (np.abs(mean[:, :2] - theory) <= slack + 1e-8).all()
    assert (np.abs(mean[1:, 2] - flow.accuracy[1:]) <= 0.028).all()  # as in check_against_samples
    assert flow.train_error[0] == pytest.approx(1.09, rel=1e-15)  # 1 + noise²
    assert flow.test_error[0] == 1.0
    assert flow.error <= 1e-8


@pytest.mark.parametrize("centering", ["none", "targets", "kernel"])
def test_flow_ends_at_ridgeless_regression(centering):
    mix, net = mixture_of("mixed", 100), rn.Network(["relu"] * 2)
    late = gradient_flow(net, mix, 300, 1e4, noise_std=0.2, centering=centering)
    curve = learning_curve(net, mix, 300, noise_std=0.2, centering=centering)
    # the error of the functions of time, which enters squared quantities twice
    assert_allclose(late.test_error, curve.test_error[0], rtol=10 * late.error + 1e-10)
    assert_allclose(late.means[0], curve.means[0, 0], rtol=10 * late.error + 1e-10)
    assert_allclose(late.covariances[0], curve.covariances[0, 0], rtol=10 * late.error + 1e-10)
    assert abs(late.train_error[0]) <= 2 * late.error
    assert curve.train_error[0, 0] == 0.0


def test_flow_starts_as_one_large_ridge():
    # w = t y + O(t²) and w = y/γ + O(γ^-2): time t is a ridge of 1/t
    mix, net, t = mixture_of("mixed", 100), rn.Network(["relu"]), 1e-5
    early = gradient_flow(net, mix, 300, t)
    curve = learning_curve(net, mix, 300, ridge=1.0 / t)
    assert_allclose(early.means[0], curve.means[0, 0], rtol=20 * t)
    assert_allclose(early.covariances[0], curve.covariances[0, 0], rtol=40 * t)
    assert_allclose(1.0 - early.train_error, 1.0 - curve.train_error[0], rtol=1e-3)


def test_flow_matches_its_differential_equation():
    # d/dt of the loss is −2/n (f − y)ᵀ K (f − y): falling and convex, as any sum of decaying exponentials is
    times = np.linspace(0.0, 5.0, 26)
    flow = gradient_flow(rn.Network(["relu"] * 2), mixture_of("mixed", 100), 300, times, noise_std=0.5)
    for order in range(1, 4):  # completely monotone
        assert ((-1) ** order * np.diff(flow.train_error, order) > -1e-7).all()


def test_order_of_times_does_not_matter():
    mix, net = mixture_of("mixed", 60), rn.Network(["erf"])
    times = np.array([30.0, 0.0, 0.2, 2.0])
    flow = gradient_flow(net, mix, 90, times)
    alone = [gradient_flow(net, mix, 90, t) for t in times]
    # other contours, each to 1e-8
    assert_allclose(flow.test_error, [f.test_error[0] for f in alone], rtol=1e-7)
    assert_allclose(flow.train_error, [f.train_error[0] for f in alone], rtol=1e-7, atol=2e-8)


def test_kernel_flow_by_matrix_functions():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    kernel, y, cross = root @ root.T / 12, rng.standard_normal((12, 2)), rng.standard_normal((5, 12))
    times = [0.0, 0.3, 4.0]
    flow = kernel_flow(kernel, y, times, cross=cross)
    f, g, step = np.zeros((12, 2)), np.zeros((5, 2)), 1e-4
    for k in range(3001):  # Heun's method: error of step², about 1e-8 over the way
        if k == 3000:
            break
        slope = -kernel @ (f - y)
        slope_g = -cross @ (f - y)
        ahead = f + step * slope
        f = f + 0.5 * step * (slope - kernel @ (ahead - y))
        g = g + 0.5 * step * (slope_g - cross @ (ahead - y))
    assert_allclose(flow.train[1], f, atol=1e-6)
    assert_allclose(flow.test[1], g, atol=1e-6)
    assert_allclose(flow.train_error, ((y - flow.train) ** 2).sum(axis=(1, 2)) / 12, rtol=1e-12)
    assert (flow.train[0] == 0.0).all() or np.abs(flow.train[0]).max() < 1e-14  # rounding of the eigenvectors
    assert (flow.test[0] == 0.0).all()


def test_kernel_flow_takes_equivalents():
    mix = mixture_of("mixed", 20)
    x, labels = mix.sample(30, 0, stratified=True)
    eq = rn.equivalent(rn.Network(["relu"]), x, labels, kind="ntk", mixture=mix)
    dense = kernel_flow(eq.to_dense(), TARGETS[labels, 0], [1.0])
    assert_allclose(kernel_flow(eq, TARGETS[labels, 0], [1.0]).train, dense.train, rtol=1e-12)


# Deterministic equivalents


def full(covariances, rotation):
    return np.stack([rotation @ np.diag(c) @ rotation.T for c in covariances])


def test_full_covariances_give_what_diagonal_ones_do(monkeypatch):
    p = 40
    mix = mixture_of("three", p)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((p, p)))[0]
    turned = rn.GaussianMixture(mix.means @ rotation.T, full(mix.covariances, rotation), mix.weights)
    net = rn.Network(["relu"] * 2)
    options = {"ridge": [0.05, 1.0], "noise_std": 0.2}
    plain = learning_curve(net, mix, 60, **options)
    common = learning_curve(net, turned, 60, **options)
    flow = gradient_flow(net, mix, 60, [0.5, 5.0])
    monkeypatch.setattr(bulk, "_COMMUTE", -1.0)  # no common basis: the matrices themselves
    dense = learning_curve(net, turned, 60, **options)
    dense_flow = gradient_flow(net, turned, 60, [0.5, 5.0])
    for other in (common, dense):
        for name in ("train_error", "test_error", "means", "covariances"):
            # rounding of p × p products and of the fixed point, 1e-13, over a gap of about .01; zeros by their scale
            assert_allclose(getattr(other, name), getattr(plain, name), rtol=1e-9, atol=1e-11)
    assert_allclose(dense_flow.test_error, flow.test_error, rtol=1e-7)
    assert_allclose(dense_flow.covariances, flow.covariances, rtol=1e-6, atol=1e-10)


def test_covariances_without_common_basis():
    p, n = 150, 300
    rng = np.random.default_rng(1)
    distance = np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    steps = np.diag(np.where(np.arange(p) % 2 == 0, 0.5, 1.5))
    means = np.zeros((2, p))
    means[:, 3] = 1.5, -1.5
    mix = rn.GaussianMixture(means, np.stack([0.6**distance, steps]))
    assert not bulk.noise_of(mix.means, mix.covariances, np.ones(2), 1.0).diagonal
    net = rn.Network(["relu"])
    curve = learning_curve(net, mix, n, ridge=0.2, noise_std=0.3)
    found = np.stack(
        [regression(net.with_tau0(mix.tau0), mix, n, "ntk", [0.2], TARGETS, 0.3, "none", rng)[0] for _ in range(5)]
    )
    error = found.std(axis=0, ddof=1) / math.sqrt(5)
    theory = np.array([curve.train_error[0, 0], curve.test_error[0, 0]])
    # four standard errors and n^{-1/2}
    assert (np.abs(found.mean(axis=0)[:2] - theory) <= 4.0 * error[:2] + theory / math.sqrt(n)).all()


@pytest.mark.parametrize("shift", [0.7, 0.01, 0.3 + 0.4j, -1.2 - 0.2j])
def test_fixed_point_agrees_with_the_bulk(shift):
    # another solver, in another variable: ζ = −s/c1
    mix, slope, n = mixture_of("mixed", 60), 0.4, 90
    counts = n * mix.weights
    noise = bulk.noise_of(mix.means, mix.covariances, counts / 60, slope)
    got = noise.solve(complex(shift))
    zeta = -shift / slope
    point = Bulk(mix.covariances, counts, 60).solve(zeta)
    assert got.residual < 1e-12
    assert_allclose(got.delta, point.delta, rtol=1e-9)


@pytest.mark.parametrize("slope", [0.4, 0.0])
def test_two_resolvents_against_a_sample(slope):
    # R Z C_a Zᵀ R' on the diagonal and ‖w‖², by dense matrices; one sample of 800 fluctuates by about 1/√800 a trace
    p, n = 400, 800
    mix = mixture_of("covariances", p)
    x, labels = mix.sample(n, 0, stratified=True)
    shifts = (0.5 - 0.3j, 0.9 - 0.1j)
    left, right = (np.linalg.inv(slope * x.T @ x + s * np.eye(p)) for s in shifts)
    noise = bulk.noise_of(mix.means, mix.covariances, n * mix.weights / p, slope)
    solved = [noise.solve(s) for s in shifts]
    load = np.prod([1.0 / (1.0 + s.delta) for s in solved], axis=0)
    table = noise.products(solved[0].resolvent, solved[1].resolvent)
    inserted = np.linalg.solve(np.eye(2) - slope**2 * table * (noise.ratios * load), table)
    for a in range(2):
        middle = (left * mix.covariances[a]) @ right
        for b in range(2):
            expected = (mix.covariances[b] * np.diag(middle)).sum() / p
            assert_allclose(inserted[b, a], expected, rtol=0.03)
            rows = x[labels == b]
            got = ((rows @ middle) * rows).sum(axis=1).mean()
            assert_allclose(inserted[b, a] * load[b], got, rtol=0.04)


@pytest.mark.parametrize("outer", [0.0, 0.6])
def test_every_term_of_the_score_variance(outer):
    # gᵀ C_a g/p + η_3² var ψ with g = c1 Zᵀ w + M η_2 from dense matrices, Ω made up so that no part of U is small.
    p, n, draws = 250, 500, 24
    mix = mixture_of("mixed", p)
    model = model_of(rn.Network(["relu"]), mix, n, "ck", TARGETS, 0.1, None, "none")
    omega = np.zeros((5, 5))
    omega[:2, :2] = outer * np.array([[1.0, 0.3], [0.3, 0.5]])
    omega[:2, 2:4] = omega[2:4, :2] = 0.5 * np.eye(2)
    omega[:2, -1] = omega[-1, :2] = -3.0, 3.0
    omega[-1, -1] = 0.4
    model = replace(model, omega=omega, slope=2.0, shift=1.0, noise=replace(model.noise, slope=2.0))
    node = respond(model, -0.5)
    one = np.ones((1, 1))
    scores = score_moments(model, [node], [node], one, one)[0]
    parts = np.abs(node.h[[0, 1, 4], 0])
    assert parts.min() > 0.05 * parts.max()
    found = []
    for k in range(draws):
        rng = np.random.default_rng(k)
        x, labels = mix.sample(n, rng, stratified=True)
        z = x - mix.means[labels] / math.sqrt(p)
        psi = (z**2).sum(axis=1) - mix.traces[labels]
        u = np.column_stack([np.eye(2)[labels] / math.sqrt(p), z @ mix.means.T, psi])
        h = 2.0 * z @ z.T + 1.5 * np.eye(n) + u @ omega @ u.T
        w = np.linalg.solve(h, TARGETS[labels, 0] + 0.1 * rng.standard_normal(n))
        eta = omega @ u.T @ w
        g = 2.0 * z.T @ w + mix.means.T @ eta[2:4]
        variance = [(g**2 * c).sum() / p + eta[-1] ** 2 * v for c, v in zip(mix.covariances, model.psi, strict=True)]
        found.append([*(eta[:2] / math.sqrt(p)), *variance, w @ w])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(draws)
    theory = np.array([*scores.means[:, 0], *scores.covariances[:, 0, 0], squared_dual(model, node)])
    # three standard errors, and 1/√n/2 for what is of that order in the limit itself
    assert (np.abs(mean - theory) <= 3.0 * error + 0.5 * np.abs(theory) / math.sqrt(n)).all(), (mean / theory, error)


def test_training_error_is_a_derivative():
    # ‖w‖² = −d/dγ yᵀ(K + γ)^{-1}y: the formula with R² against differences of the one with R
    mix, net = mixture_of("mixed", 80), rn.Network(["relu"] * 2)
    for centering in ("none", "targets", "kernel"):
        model = model_of(net, mix, 120, "ntk", TARGETS, 0.0, None, centering)
        step = 1e-4

        def energy(ridge, model=model):
            return respond(model, -ridge).product.sum()

        difference = -(energy(0.5 + step) - energy(0.5 - step)) / (2 * step)
        # step²/6 of the third derivative, about 1e-8 relative, and rounding 1e-13/step
        assert_allclose(squared_dual(model, respond(model, -0.5)), difference, rtol=1e-6)


def test_conjugate_points():
    model = model_of(rn.Network(["relu"]), mixture_of("mixed", 40), 60, "ntk", TARGETS, 0.1, None, "kernel")
    node, other = respond(model, 0.3 + 0.4j), respond(model, 0.3 - 0.4j)
    assert_allclose(conjugate(node).h, other.h, rtol=1e-9, atol=1e-9)
    assert_allclose(conjugate(node).solution.delta, other.solution.delta, rtol=1e-10)
    one = np.ones((1, 1))
    mixed = score_moments(model, [node], [other], one, one)[0]
    # E[g ḡᵀ] at conjugate points: a variance
    assert (np.diagonal(mixed.covariances, axis1=1, axis2=2) > 0.0).all()


# Special cases in closed form


def test_one_class_without_mean_learns_its_target():
    # K = 1, linear net: isotropic data carry nothing about a constant target, f has mean 0
    p, n, ridge = 50, 100, 0.4
    mix = rn.GaussianMixture(np.zeros((1, p)), [1.0])
    curve = learning_curve(rn.Network(["identity"]), mix, n, kind="ck", ridge=ridge, noise_std=0.5)
    # Marchenko–Pastur: m of the (p, p) sample covariance Zᵀ Z, shape n/p
    c = n / p
    roots = np.roots([ridge, ridge + c - 1.0, -1.0])  # ridge P² + (ridge + c − 1) P − 1 = 0 for P = tr Q/p
    big = float(roots[roots > 0.0][0])
    assert_allclose(curve.means, 0.0, atol=1e-12)
    # test variance of f: (1 + noise²) tr ZᵀZ/(ZᵀZ + γ)²/p, with d(γP)/dγ by the derivative of the quadratic
    slope = -(big**2 + big) / (2 * ridge * big + ridge + c - 1.0)
    assert_allclose(curve.covariances[0, 0, 0, 0, 0], 1.25 * (big + ridge * slope), rtol=1e-10)
    assert curve.accuracy[0, 0] == 1.0


def test_separation_without_means_or_covariances():
    # identical classes: no more than the larger class can be told, and centred regression does exactly that
    mix = rn.GaussianMixture(np.zeros((2, 80)), np.ones(2), [0.3, 0.7])
    curve = learning_curve(rn.Network(["relu"]), mix, 100, ridge=[0.1, 1e5], centering="kernel")
    assert_allclose(curve.means, 0.4, rtol=1e-9)
    assert curve.accuracy[0, 1] == pytest.approx(0.7, abs=1e-12)


def test_kernel_centering_ignores_a_constant_target():
    mix, net = mixture_of("mixed", 60), rn.Network(["relu"])
    plain = learning_curve(net, mix, 90, ridge=0.3, centering="kernel")
    moved = learning_curve(net, mix, 90, ridge=0.3, centering="kernel", targets=TARGETS + 5.0)
    assert_allclose(moved.train_error, plain.train_error, rtol=1e-9)
    assert_allclose(moved.test_error, plain.test_error, rtol=1e-9)
    assert_allclose(moved.accuracy, plain.accuracy, rtol=1e-9)
    assert_allclose(moved.means, plain.means + 5.0, rtol=1e-9)


def test_two_one_hot_columns_are_one_sign():
    # f is linear in y: one-hot columns are (1 ∓ sign)/2, and with an intercept the arg max is the sign
    mix, net = mixture_of("mixed", 60), rn.Network(["relu"])
    sign = learning_curve(net, mix, 90, ridge=0.3, centering="kernel")
    hot = learning_curve(net, mix, 90, ridge=0.3, centering="kernel", targets=np.eye(2))
    assert_allclose(hot.accuracy, sign.accuracy, rtol=1e-8)
    assert_allclose(hot.means[..., 1], 0.5 * (1.0 + sign.means[..., 0]), rtol=1e-9)
    assert_allclose(hot.test_error, 0.5 * sign.test_error, rtol=1e-9)


def test_fan_in_is_a_rescaling():
    # K_0 = X Xᵀ/p: the network on x/√p. A homogeneous kernel of degree 2 is divided by p
    mix = mixture_of("mixed", 64)
    unit = learning_curve(rn.Network(["relu"] * 2), mix, 100, ridge=0.64)
    fan = learning_curve(rn.Network(["relu"] * 2, input_scaling="fan_in"), mix, 100, ridge=0.01)
    assert_allclose(fan.test_error, unit.test_error, rtol=1e-9)
    assert_allclose(fan.train_error, unit.train_error, rtol=1e-9)


def test_label_noise_adds_to_the_variance_only():
    mix, net = mixture_of("mixed", 60), rn.Network(["relu"])
    clean, noisy, noisier = (learning_curve(net, mix, 90, ridge=0.2, noise_std=s) for s in (0.0, 0.5, 1.0))
    assert_allclose(noisy.means, clean.means, rtol=1e-12)
    assert_allclose(noisier.test_error - clean.test_error, 4.0 * (noisy.test_error - clean.test_error), rtol=1e-9)
    assert (noisy.test_error > clean.test_error).all()


def test_optimal_ridge():
    mix, net = mixture_of("means", 100), rn.Network(["erf"])
    curve = learning_curve(net, mix, 150, ridge=np.geomspace(1e-3, 1e3, 61), noise_std=1.0)
    best = curve.optimal_ridge(150)
    assert not best.at_boundary
    assert best.test_error <= curve.test_error[0].min()
    near = learning_curve(net, mix, 150, ridge=[best.ridge * 0.9, best.ridge, best.ridge * 1.1], noise_std=1.0)
    assert near.test_error[0, 1] == pytest.approx(best.test_error, rel=1e-10)
    assert near.test_error[0, 1] < min(near.test_error[0, 0], near.test_error[0, 2])


def test_optimal_ridge_may_be_none_at_all():
    # three ReLU layers regularise enough by themselves: c is larger than the best total shift
    curve = learning_curve(rn.Network(["relu"] * 3), mixture_of("mixed", 200), 400)
    best = curve.optimal_ridge(400)
    assert best.ridge == 0.0
    assert best.at_boundary
    assert best.test_error == pytest.approx(curve.test_error[0, 0], rel=1e-9)


# Decisions and functions of time


@pytest.mark.parametrize("d", [1, 2, 3, 5, 9])
def test_orthant_of_equal_correlations(d):
    # correlation ½: one of d + 1 exchangeable variables is the least, 1/(d + 1)
    assert orthant(np.zeros(d), 0.5 * np.eye(d) + 0.5) == pytest.approx(1.0 / (d + 1), abs=3e-5)


def test_orthant_of_independent_and_singular():
    mean, std = np.array([0.3, -0.4, 1.0]), np.array([1.0, 2.0, 0.5])
    assert orthant(mean, np.diag(std**2)) == pytest.approx(norm.cdf(mean / std).prod(), abs=1e-10)
    line = np.outer(std, std)  # one variable three times: the most restrictive
    assert orthant(mean, line) == pytest.approx(norm.cdf((mean / std).min()), abs=1e-3)  # a jump in 16384 points
    assert orthant(np.ones(2), np.zeros((2, 2))) == 1.0


def test_accuracy_by_monte_carlo():
    rng = np.random.default_rng(3)
    targets = rng.standard_normal((4, 3))
    means = 0.6 * targets + 0.1 * rng.standard_normal((4, 3))
    roots = 0.4 * rng.standard_normal((4, 3, 3))
    covariances = roots @ roots.transpose(0, 2, 1)
    got = accuracy(means, covariances, targets)
    for a in range(4):
        draws = means[a] + rng.standard_normal((200_000, 3)) @ roots[a].T
        right = (((draws[:, None] - targets) ** 2).sum(axis=2).argmin(axis=1) == a).mean()
        assert abs(got[a] - right) < 5.0 * math.sqrt(0.25 / 200_000)  # five standard errors


def test_accuracy_on_a_line_and_of_equal_targets():
    targets = np.array([[0.0], [2.0], [1.0], [1.0]])
    got = accuracy(np.full((4, 1), 0.8), np.full((4, 1, 1), 0.25), targets)
    middle = norm.cdf((1.5 - 0.8) / 0.5) - norm.cdf((0.5 - 0.8) / 0.5)
    assert_allclose(got, [norm.cdf((0.5 - 0.8) / 0.5), norm.sf((1.5 - 0.8) / 0.5), middle, middle], rtol=1e-12)
    assert (accuracy(np.zeros((2, 1)), np.ones((2, 1, 1)), np.ones((2, 1))) == 1.0).all()


@pytest.mark.parametrize("span", [1.0, 10.0])
@pytest.mark.parametrize(("low", "high"), [(0.1, 5.0), (0.0, 5.0), (1e-3, 1e4)])
def test_functions_of_time_as_resolvents(span, low, high):
    times = 0.7 * np.array([1.0, span])
    path = flow_contour(times, low, high)
    assert path.error <= 1e-8
    grid = np.linspace(low, high, 333)  # not the grid of the certificate
    inverse = 1.0 / (grid - path.points[:, None])
    expected = phi(times, grid)
    assert np.abs(np.real(path.weights @ inverse) - expected).max() <= 1.1e-8 * expected.max()
    assert_allclose(np.real(path.decay @ inverse), np.exp(-2.0 * times[:, None] * grid), atol=1.1e-8)


def test_too_wide_a_span_of_times_is_reported():
    with pytest.raises(ConvergenceError, match="fewer times") as caught:
        flow_contour(np.array([1e-6, 1e6]), 0.0, 1.0)
    assert caught.value.residual > 1e-6


def test_unreachable_fixed_point_is_reported(monkeypatch):
    monkeypatch.setattr(bulk, "_SWEEPS", 1)
    noise = bulk.noise_of(np.zeros((1, 9)), np.ones(1), np.array([1.0]), 1.0)
    with pytest.raises(ConvergenceError, match="larger ridge"):
        noise.solve(1e-8 + 0.0j)


# Input


def test_shapes():
    mix, net = mixture_of("three", 30), rn.Network(["relu"])
    curve = learning_curve(net, mix, [40, 80], ridge=[0.1, 1.0, 2.0])
    assert curve.train_error.shape == curve.test_error.shape == curve.accuracy.shape == (2, 3)
    assert curve.means.shape == curve.stds.shape == (2, 3, 3, 3)
    assert curve.class_accuracy.shape == (2, 3, 3)
    assert_allclose(curve.targets, np.eye(3))
    one = learning_curve(net, mix, 80, ridge=1.0, targets=[0.0, 1.0, 2.0])
    assert one.means.shape == (1, 1, 3, 1)
    assert_allclose(curve.class_accuracy @ mix.weights, curve.accuracy, rtol=1e-14)


def test_kernel_without_inverse():
    mix = mixture_of("means", 30)
    with pytest.raises(ValueError, match="`ridge` must make the kernel invertible"):
        learning_curve(rn.Network(["identity"]), mix, 60, kind="ck")
    # the flow needs none
    flow = gradient_flow(rn.Network(["identity"]), mix, 60, [1.0, 50.0], kind="ck")
    assert flow.train_error[1] > 0.1  # 60 labels, 30 features


def test_jumps_have_no_ntk():
    with pytest.raises(rn.InfiniteDiagonalError, match="kind='ck'"):
        learning_curve(rn.Network(["sign"]), mixture_of("means", 20), 40)
    assert learning_curve(rn.Network(["sign"]), mixture_of("means", 20), 40, kind="ck").accuracy[0, 0] > 0.6


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "`n` must be at least 1"),
        ({"n": []}, "`n` must hold at least one"),
        ({"n": 2.5}, "`n` must be an integer"),
        ({"ridge": -1.0}, "`ridge` must be non-negative"),
        ({"ridge": [0.1, math.nan]}, "`ridge` must be finite"),
        ({"kind": "nngp"}, "`kind` must be one of"),
        ({"centering": "both"}, "`centering` must be one of"),
        ({"targets": [1.0, 2.0, 3.0]}, "`targets` must have one row per class, 2"),
        ({"noise_std": -0.1}, "`noise_std` must be"),
        ({"tau0": 0.0}, "`tau0` must be"),
        ({"net": "relu"}, "`net` must be an rmtntk.Network"),
        ({"mixture": 3}, "`mixture` must be a GaussianMixture"),
    ],
)
def test_bad_arguments(options, match):
    given = {"net": rn.Network(["relu"]), "mixture": mixture_of("means", 20), "n": 40, **options}
    with pytest.raises((TypeError, ValueError), match=match):
        learning_curve(**given)


def test_bad_flow_arguments():
    mix, net = mixture_of("means", 20), rn.Network(["relu"])
    with pytest.raises(ValueError, match="`times` must be non-negative"):
        gradient_flow(net, mix, 40, [1.0, -1.0])
    with pytest.raises(ValueError, match="`times` must be non-negative"):
        kernel_flow(np.eye(2), [1.0, 2.0], -1.0)
    with pytest.raises(ValueError, match="`targets` must have one row per training sample, 2"):
        kernel_flow(np.eye(2), [1.0], 1.0)
    with pytest.raises(ValueError, match="`cross` must have 2 columns"):
        kernel_flow(np.eye(2), [1.0, 2.0], 1.0, cross=np.ones((4, 3)))
