"""What the validation scripts rest on, and that each of them runs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn

FOLDER = Path(__file__).parents[1] / "validation"
SCRIPTS = ("moments_check", "convergence", "errata", "paper_tables", "reproduce_figure2")


def load(name):
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(f"validation_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.fixture(scope="module")
def convergence():
    return load("convergence")


@pytest.fixture(scope="module")
def errata():
    return load("errata")


def test_toeplitz_rows_have_the_covariance_that_the_theorem_is_given(convergence):
    p = 40
    lags = np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    covariances = [rho**lags for rho in convergence.TOEPLITZ]
    products = [[np.trace(a @ b) / p for b in covariances] for a in covariances]
    assert_allclose(convergence.toeplitz_products(p), products, rtol=1e-13)  # sums of 40 terms
    n = 60_000
    x, labels, mixture = convergence.sample("toeplitz", n, p, 0)
    for a, covariance in enumerate(covariances):
        rows = x[labels == a] * np.sqrt(p) - mixture.means[a]
        # entries have standard error at most sqrt(2/30000) = .0082; 820 distinct ones stay within 5 of them
        assert_allclose(rows.T @ rows / len(rows), covariance, atol=5 * 0.0082)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 0.9])
def test_the_term_of_the_law_is_exact_for_squares(convergence, epsilon):
    # E[w²w²], E[w⁴] by hand: E[u²v²] = |x|²|y|² + 2 (x·y)² + κ4 Σ x_k² y_k², enumerated over all weights of 4 inputs
    law = {0.0: "bernoulli", 0.5: "ternary, ε = .5", 0.9: "ternary, ε = .9"}[epsilon]
    x = np.random.default_rng(3).standard_normal((3, 4))
    values = np.array([0.0, 1.0, -1.0]) / np.sqrt(1.0 - epsilon)
    chance = np.array([epsilon, 0.5 * (1.0 - epsilon), 0.5 * (1.0 - epsilon)])
    grid = np.array(np.meshgrid(*[range(3)] * 4)).reshape(4, -1)
    squares = (x @ values[grid]) ** 2
    exact = (squares * chance[grid].prod(axis=0)) @ squares.T
    net = rn.Network([rn.activations.monomial(2)], tau0=1.0, centered=False)
    gap = exact - rn.ck(net, x) - convergence.law_term(net, x, law, np.inf)["ck"]
    off = ~np.eye(3, dtype=bool)
    assert_allclose(gap[off], 0.0, atol=1e-12)  # rounding of entries up to 40


def test_the_term_of_the_law_in_a_finite_relu_network(convergence):
    # 40 networks of width 4000 at n = p = 200: predicted .28 along ones, found .30 ± .003; without the term it is 0
    x, _, mixture = convergence.sample("iid", 200, 200, 0)
    net = rn.Network(["relu"], tau0=mixture.tau0)
    values = np.array(convergence.projections(net, x, 4000, "ternary, ε = .9", list(range(16)))["ck"])
    predicted = convergence.law_term(net, x, "ternary, ε = .9", 4000)["ck"].mean() * 200
    # 5 standard errors, and the next order of the expansion, which is 1/p: κ4²-terms over 200 leave some 10 %
    assert abs(values.mean() - predicted) < 5.0 * values.std(ddof=1) / 4.0 + 0.1 * predicted
    assert values.mean() > 0.2


def test_cases_are_resumed_and_forgotten_after_a_change(convergence, tmp_path):
    path = tmp_path / "cases.jsonl"
    calls = []
    first = convergence.Cases(path, fresh=False)
    assert first.get("a", lambda: calls.append(1) or {"value": 1.5}) == {"value": 1.5}
    path.write_text(path.read_text(encoding="utf-8") + '{"key": "b", "sou', encoding="utf-8")  # killed while writing
    again = convergence.Cases(path, fresh=False)
    assert again.get("a", lambda: calls.append(1)) == {"value": 1.5}
    assert again.get("b", lambda: 2.0) == 2.0
    assert convergence.Cases(path, fresh=False).known == {"a": {"value": 1.5}, "b": 2.0}
    changed = path.read_text(encoding="utf-8").replace(first.hash, "0" * 16)
    path.write_text(changed, encoding="utf-8")
    assert convergence.Cases(path, fresh=False).known == {}
    assert len(calls) == 1


def test_kappa_of_the_published_script(errata):
    net = rn.Network(["relu"] * 3)
    right = {"start": False, "late": False, "twice": False}
    assert_allclose(
        errata.script_kappa(net, 1.2, **right), rn.coefficients(net, 1.2).kappa_sq[-1], rtol=1e-14
    )  # the recursion itself
    # By hand at τ_0 = 1: v = (1 − 1/π)/2 per layer; late moments give v², v³, v⁴ for v, v², v³, and ½ throughout
    v = 0.5 * (1.0 - 1.0 / np.pi)
    late = v**4 + 0.5 * (v**3 + 0.5 * (v**2 + 0.5))
    assert_allclose(errata.script_kappa(net, 1.0, start=True, late=True, twice=True), late**2, rtol=1e-13)
    assert round(late**2, 3) == 0.035


def test_dense_form_of_the_errata_is_the_package_s(errata):
    mixture = errata.example_mixture(80)
    x, labels = mixture.sample(80, 0)
    net = rn.Network(["relu", "gelu"], tau0=mixture.tau0)
    table = rn.coefficients(net, mixture.tau0)
    for kind in ("ck", "ntk"):
        got = errata.dense(x, labels, mixture, table.linear(kind), table.shift(kind))
        want = rn.equivalent(net, x, labels, kind=kind, mixture=mixture).to_dense()
        assert_allclose(got, want, atol=1e-14)  # sums of 80 products of size 1/80


def test_published_histogram_and_marchenko_pastur():
    tables = load("paper_tables")
    assert sum(tables.COUNTS) + 1 == tables.N
    x = np.random.default_rng(0).standard_normal((600, 300)) / np.sqrt(300)
    values = np.linalg.eigvalsh(x.T @ x)
    for low, high in ((0.0, 1.0), (1.0, 3.0), (3.0, 6.0)):
        # counts of eigenvalues are rigid: within a few of 300
        assert abs(300 * tables.marchenko_pastur(low, high, 2.0) - ((values > low) & (values < high)).sum()) < 4
    assert tables.marchenko_pastur(0.0, 9.0, 2.0) == pytest.approx(1.0, abs=1e-10)
    rows, spectrum = tables.mixture_spectrum()
    assert spectrum["c"] == pytest.approx(tables.EXTREMES[0], abs=5e-4)  # τ_0 is a mean of 8000 norms there
    assert spectrum["largest_gap"] < 5.0
    assert len(rows) == 6


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_script_runs_quick(script, tmp_path):
    if script in ("paper_tables", "reproduce_figure2"):
        pytest.importorskip("mlxtend")
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{script}.py"), "--quick", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / f"{script}.json").read_text(encoding="utf-8"))
    assert {"rmtntk", "python", "numpy"} <= set(record["versions"])
    assert record["options"]["seed"] == 0
    assert list(tmp_path.glob("*.png"))
