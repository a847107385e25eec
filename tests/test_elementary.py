"""Polynomials of `_jit/elementary.py`: coefficients as recomputed by the validation script, values against mpmath."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from rmtntk._jit import elementary

FOLDER = Path(__file__).parents[1] / "validation"


def script():
    sys.path.insert(0, str(FOLDER))  # it imports its neighbour
    try:
        spec = importlib.util.spec_from_file_location("elementary_functions", FOLDER / "elementary_functions.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # its named tuples look themselves up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


SCRIPT = script()


@pytest.mark.parametrize("name", SCRIPT.POLYNOMIALS)
def test_coefficients_are_the_recomputed_ones(name):
    """Bit by bit: 60 digits leave no doubt about a rounding. What is cut off is below half an eps of the value."""
    coefficients, cut = SCRIPT.recomputed(name)
    assert SCRIPT.in_file(name) == coefficients
    assert cut <= SCRIPT.POLYNOMIALS[name].bound < SCRIPT.EPS


@pytest.mark.parametrize("name", SCRIPT.CASES)
def test_values_against_mpmath(name):
    """Few eps, as many as operations round what is not small: reasons are beside the script's numbers."""
    error, where = SCRIPT.worst(name, 301)
    assert error <= SCRIPT.CASES[name].units, where


def test_ends_are_exact():
    assert elementary.arcsine(0.0) == 0.0
    assert elementary.arcsine_on_circle(1.0, 0.0) == 0.5 * math.pi
    assert elementary.arcsine_on_circle(-1.0, 0.0) == -0.5 * math.pi
    assert elementary.exponential(0.0) == 1.0
    assert elementary.exponential_minus_one(0.0) == 0.0
    assert elementary.angle_excess(0.0) == pytest.approx(1.0 / 3.0, rel=1e-15)


def test_below_and_above_the_range_of_the_exponential():
    assert elementary.exponential(-708.1) == 0.0
    assert elementary.exponential(-math.inf) == 0.0
    assert elementary.exponential(800.0) == elementary.exponential(709.0)
    assert elementary.exponential_minus_one(-800.0) == -1.0
    assert elementary.exponential_minus_one(-math.inf) == -1.0
    assert np.isfinite(elementary.exponential(709.0))
