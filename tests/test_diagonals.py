"""Diagonals of many rows: in bounded memory, and the same as those of a few."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn


def rows(n, spread):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 6)) * np.exp(spread * rng.standard_normal((n, 1)))
    x[5] = 0.0
    return x


@pytest.mark.parametrize(
    "activations, options",
    [
        (["relu", "erf"], {}),
        (["tanh", "tanh", "tanh"], {}),
        (["relu", "softplus"], {"bias_std": 0.3}),
        (["elu", "gelu", "sin"], {"weight_std": 1.4}),
        (["sigmoid", "heaviside"], {"centered": False}),
    ],
)
def test_many_rows_have_the_diagonals_of_a_few(activations, options):
    net = rn.Network(activations, tau0=1.0, **options)
    x = rows(20_000, 1.2)
    many = rn.kernel_diagonals(net, x)
    for start in (0, 4_090, 16_380, 19_980):  # 20 rows at a time go through quadrature
        part = slice(start, start + 20)
        few = rn.kernel_diagonals(net, x[part])
        for name in ("ck", "ntk"):
            # 2e-13 where interpolated, in the logarithm, and as much again for the layers' own moments
            assert_allclose(getattr(many, name)[part], getattr(few, name), rtol=5e-13, err_msg=name)
    assert np.isinf(many.ntk).all() == ("heaviside" in activations)


@pytest.mark.parametrize("activations", [["tanh", "tanh"], ["relu", rn.activations.step([-0.5, 0.5], [-1, 0, 1])]])
def test_memory_does_not_grow_with_terms_times_rows(activations):
    net = rn.Network(activations, tau0=1.0)
    x = rows(40_000, 0.1)
    rn.kernel_diagonals(net, x[:10])
    tracemalloc.start()
    rn.kernel_diagonals(net, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # all Hermite coefficients of 40,000 rows are 51 MB a step layer; a few vectors of 40,000 are 3 MB
    assert peak < 40e6


def test_an_overflow_among_many_rows_names_the_norm():
    x = rows(9_000, 0.1)
    x[17] = 1e160
    net = rn.Network([rn.activations.get("softplus"), "relu"], tau0=1.0, weight_std=1e3)
    with pytest.raises(ValueError, match="overflow"):
        rn.kernel_diagonals(net, x)
