"""Functions of the norm interpolated for thousands of rows, and functions as polynomials on panels."""

import numpy as np
import pytest

import rmtntk as rn
from rmtntk import activations
from rmtntk._jit import near
from rmtntk.interpolation import TOLERANCE, LogInterpolant
from rmtntk.pieces import tabulate
from rmtntk.smooth import row_moments

NAMES = ["tanh", "elu", "softplus", "softsign", "hard_tanh", "gelu_tanh", "gabor"]


@pytest.mark.parametrize("name", NAMES)
def test_interpolated_rows_agree_with_direct_ones(name):
    act, rng = activations.get(name), np.random.default_rng(0)
    tau = np.exp(rng.uniform(np.log(1e-3), np.log(50.0), 200))
    many, few = row_moments(act, tau), row_moments(act, tau[:20])
    unit = np.sqrt(few.second)
    # ten times what the interpolant is checked to at its own points, in units of √E[σ²] as there
    limit = 10.0 * TOLERANCE
    assert (np.abs(many.mean[:20] - few.mean) <= limit * unit).all()
    for field in ("second", "variance", "d1_squared"):
        want = getattr(few, field)
        assert (np.abs(getattr(many, field)[:20] - want) <= limit * want).all(), field
    order = min(len(many.coefficients), len(few.coefficients))
    assert (np.abs(many.coefficients[:order, :20] - few.coefficients[:order]) <= limit * unit).all()
    # and the reported floors cover what the interpolation does to sums of squares
    off = 2.0 * np.abs(many.coefficients[:order, :20] - few.coefficients[:order]) * np.abs(few.coefficients[:order])
    assert (off.sum(axis=0) <= many.floors[0] * few.second).all()


def test_panels_are_made_only_where_there_are_rows():
    calls = []

    def function(tau):
        calls.append(len(tau))
        return np.stack([np.ones_like(tau), np.tanh(tau)], axis=1)

    tau = np.concatenate([np.linspace(1e-6, 1.5e-6, 20), np.linspace(1e6, 1.5e6, 20)])
    found = LogInterpolant(function, tau, "a test")
    assert len(calls) <= 4  # not the forty octaves between
    assert np.abs(found(tau) - function(tau)).max() <= TOLERANCE
    assert (found.errors <= TOLERANCE).all()
    assert found.errors[0] <= 4e-16


def test_functions_too_quick_for_panels_are_refused():
    with pytest.raises(rn.AccuracyError, match=r"a test varies too quickly.*`breakpoints`"):
        LogInterpolant(lambda tau: np.sin(1e6 * tau)[:, None], np.linspace(1.0, 2.0, 30), "a test")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0])
@pytest.mark.parametrize("name", NAMES)
def test_polynomials_on_panels_are_the_function(name, scale):
    act = activations.get(name)
    pieces = tabulate(act, scale, scale)
    t = scale * np.random.default_rng(1).uniform(-8.0, 8.0, 300)
    scratch = np.empty((3, 1))
    found = np.array([near.smoothed(pieces, near.rules(1), point, 0.0, scratch) for point in t])
    reach = np.maximum(np.abs(t), 0.5 * scale)
    unit = np.abs(act(reach[:, None] * np.linspace(-1.0, 1.0, 101))).max(axis=1)
    # 6e-15 of the panel's values and those nearer to 0, and their powers' rounding; slopes lose a factor degree² = 121
    assert (np.abs(found[:, 0] - act(t)) <= 2e-14 * unit).all()
    assert (np.abs(found[:, 2] - act.derivative(t)) <= 2e-12 * max(1.0, np.abs(act.derivative(t)).max())).all()


def test_functions_that_no_polynomials_describe_have_no_table():
    assert tabulate(activations.custom(lambda t: np.abs(t - 0.3)), 1.0, 1.0) is None
    assert tabulate(activations.custom(lambda t: np.abs(t - 0.3), breakpoints=(0.3,)), 1.0, 1.0) is not None
