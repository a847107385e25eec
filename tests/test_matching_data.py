"""Matching over data: exact as the others, never of more risk than the least excess, and the risk is what it says."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk.matching.data import sample_rows
from rmtntk.matching.risk import PredictionRisk


@pytest.fixture(scope="module")
def x():
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((60, 60)) * np.linspace(1.5, 0.1, 60)  # correlated samples, norms of some spread
    rows = generator.standard_normal((120, 60)) @ mixing.T
    return rows / np.sqrt((rows**2).sum() / len(rows))


@pytest.mark.parametrize(("activations", "levels"), [(["relu", "relu"], 3), (["tanh", "tanh"], 4), (["relu"], 4)])
def test_data_is_exact_and_of_no_more_risk_than_the_least_excess(x, activations, levels):
    net = rn.Network(activations, tau0=1.0)
    widths = (200,) * len(activations)
    found = rn.match(net, method="data", levels=levels, x=x, widths=widths)
    tight = rn.match(net, levels=levels)
    assert found.feasible
    assert found.residual <= 1e-10
    assert found.method == "data"
    risk = PredictionRisk(net, sample_rows(x), widths)
    assert found.risk is not None
    assert 0.0 < found.risk < 1.0
    assert abs(found.excess) >= abs(tight.excess) - 1e-9
    assert_allclose(risk(found.activations), found.risk, rtol=1e-9)
    if len(activations) > 1:  # one layer has no threshold left over but what the excess fixes nearly
        assert found.risk < risk(tight.activations) - 1e-5
    else:
        assert found.risk <= risk(tight.activations)


def test_the_same_call_gives_the_same_match(x):
    net = rn.Network(["relu", "relu"], tau0=1.0)
    first, again = (rn.match(net, method="data", x=x, widths=(100, 100)) for _ in range(2))
    assert first.risk == again.risk
    for one, other in zip(first.activations, again.activations, strict=True):
        assert (one.thresholds == other.thresholds).all()


def test_risk_is_the_mean_error_over_draws_of_the_process(x):
    net = rn.Network(["relu"], tau0=1.0)
    steps = rn.match(net).activations
    risk = PredictionRisk(net, x, (150,))
    m, generator = risk.half, np.random.default_rng(1)
    k = rn.ck(net.with_activations(steps), x)
    k[np.diag_indices(2 * m)] -= 0.95 * np.linalg.eigvalsh(k)[0]
    table = rn.coefficients(net.with_activations(steps), 1.0)
    ridge = m * (table.tau[1] ** 2 - table.alpha[1, 0]) / 150  # one layer: m c'/d
    assert_allclose(risk.ridge(net.with_activations(steps)), ridge, rtol=1e-12)
    weights = np.linalg.solve(k[:m, :m] + ridge * np.eye(m), k[:m, m:])
    truth = rn.ck(net, x)
    truth[np.diag_indices(2 * m)] -= 0.95 * np.linalg.eigvalsh(truth)[0]
    f = np.linalg.cholesky(truth) @ generator.standard_normal((2 * m, 40_000))
    errors = ((f[m:] - weights.T @ f[:m]) ** 2).sum(axis=0) / np.trace(truth[m:, m:])
    assert abs(risk(steps) - errors.mean()) < 5 * errors.std() / np.sqrt(errors.size)


def test_predicting_with_the_dense_network_itself_is_best(x):
    net = rn.Network(["relu"], tau0=1.0)
    risk = PredictionRisk(net, x, (np.inf,))
    own = risk.of_kernel(rn.ck(net, x), 1e-9)
    assert own < risk.of_kernel(rn.ck(net.with_activations(rn.match(net).activations), x), 1e-9)
    assert risk.of_kernel(np.eye(len(x)), 1.0) == pytest.approx(1.0, rel=1e-12)  # uncorrelated features predict nothing


def test_bad_input_names_the_argument(x):
    net = rn.Network(["relu"])
    with pytest.raises(ValueError, match="`x` must be given"):
        rn.match(net, 1.0, method="data")
    with pytest.raises(ValueError, match="`x` must have at least 20 samples"):
        rn.match(net, 1.0, method="data", x=x[:19])
    with pytest.raises(ValueError, match="`x` must have a root mean squared norm near tau0"):
        rn.match(net, 1.0, method="data", x=100.0 * x)
    with pytest.raises(ValueError, match='are for method="data" only'):
        rn.match(net, 1.0, x=x)
    assert rn.match(net, method="data", x=x).tau0 == pytest.approx(1.0)


def test_dense_activations_take_no_method(x):
    with pytest.raises(ValueError, match="`method`, `levels` and `spacing` must be left alone"):
        rn.compress(rn.Network(["relu"]), x, widths=(30,), rng=0, activations="dense", method="data")
    with pytest.raises(ValueError, match="`method` must be one of"):
        rn.compress(rn.Network(["relu"]), x, widths=(30,), rng=0, method="best")


def test_more_levels_leave_less_excess(x):
    net = rn.Network(["relu", "relu"], tau0=1.0)
    excess = [rn.match(net, levels=k).excess for k in (3, 4, 8)]
    assert excess[0] > excess[1] > excess[2] >= -1e-9


@pytest.mark.parametrize("depth", [2, 3])
def test_even_networks_keep_their_diagonal(depth):
    found = rn.match(rn.Network(["abs"] * depth), 1.0)
    assert abs(found.excess) <= 1e-9
    assert (
        max(
            abs(float(act.thresholds[1])) / tau
            for act, tau in zip(found.activations, found.coefficients.tau, strict=False)
        )
        < 2.5
    )
