"""Products of test parameters, of which the default run takes a part and `pytest -m slow` the rest."""

from itertools import product

import pytest


def slow(*values):
    """One case, left to the slow run."""
    return pytest.param(*values, marks=pytest.mark.slow)


def thinned(*axes, every=2):
    """All combinations; slow are those whose places on the axes do not add up to a multiple of `every`.

    Of two axes of at least `every` values, all values of both remain in the default run, each with others of the other.
    """
    chosen = []
    for places in product(*(range(len(axis)) for axis in axes)):
        values = [axis[k] for axis, k in zip(axes, places, strict=True)]
        chosen.append(slow(*values) if sum(places) % every else pytest.param(*values))
    return chosen
