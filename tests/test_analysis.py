"""rmtntk kernel, equivalent and spectrum: as functions, and as a user meets them on the command line."""

import json
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_cli import assert_failed, run, succeeded

import rmtntk as rn
from rmtntk._progress import Stages
from rmtntk.analysis_report import equivalent_text
from rmtntk.workflow import (
    EquivalentOptions,
    KernelOptions,
    SpectrumOptions,
    run_equivalent,
    run_kernel,
    run_spectrum,
)
from rmtntk.workflow.verification import example_mixture


@pytest.fixture
def table(tmp_path):
    """A labelled data set on disk: 90 samples of two classes in 60 dimensions, far from centred."""
    x, labels = example_mixture(60).sample(90, 0, stratified=True)
    path = tmp_path / "data.npz"
    np.savez(path, x=3.0 * x + 1.0, labels=np.array(["left", "right"])[labels])
    return path, 3.0 * x + 1.0


def test_kernel_is_that_of_the_library(table, tmp_path):
    path, x = table
    out = tmp_path / "k.npy"
    words = ["kernel", "--data", path, "--activations", "relu,erf", "--kind", "ntk", "--out", out, "--json"]
    outcome = json.loads(succeeded(run(*words)))
    kernel = np.load(out)
    centred = x - x.mean(axis=0)
    centred /= np.sqrt((centred**2).sum() / len(x))
    assert_allclose(kernel, rn.ntk(rn.Network(["relu", "erf"]), centred), rtol=1e-12)
    assert outcome["bytes"] == out.stat().st_size
    assert outcome["trace"] == pytest.approx(np.trace(kernel), rel=1e-12)
    assert (outcome["n_samples"], outcome["n_features"], outcome["n_classes"]) == (90, 60, 2)
    assert outcome["tau0"] == pytest.approx(1.0, rel=1e-12)


def test_kernel_options_reach_the_network(table, tmp_path):
    path, x = table
    out = tmp_path / "k.npy"
    words = ["--weight-std", "1.3", "--bias-std", "0.2", "--uncentered", "--input-scaling", "fan_in", "--raw"]
    text = succeeded(run("kernel", "--data", path, "--activations", "gelu", "--out", out, "--dtype", "float32", *words))
    assert "90 samples" in text
    assert str(out) in text
    net = rn.Network(["gelu"], weight_std=1.3, bias_std=0.2, centered=False, input_scaling="fan_in")
    kernel = np.load(out)
    assert kernel.dtype == np.float32
    assert_allclose(kernel, rn.ck(net, x), rtol=1e-6)  # rounded once


def test_samples_are_a_reproducible_choice(table):
    path, _ = table
    kernels = [run_kernel(KernelOptions(str(path), "relu", samples=20, seed=s), Stages(None))[0] for s in (0, 0, 1)]
    assert kernels[0].shape == (20, 20)
    assert (kernels[0] == kernels[1]).all()
    assert not np.allclose(kernels[0], kernels[2])


@pytest.mark.parametrize("kind", ["ck", "ntk"])
def test_equivalent_measures_every_form(table, kind):
    path, _ = table
    outcome = run_equivalent(EquivalentOptions(str(path), "relu,gelu", kind), Stages(None))
    errors = outcome["errors"]
    assert errors["degree 4"] < errors["degree 2"] < errors["theorem"] < 1.0
    assert outcome["norm"] == pytest.approx(outcome["leading_eigenvalues"]["exact"][0], rel=1e-6)
    text = succeeded(run("equivalent", "--data", path, "--activations", "relu,gelu", "--kind", kind))
    for name in ("exact", "theorem", "class means", "degree 4", "norm gain"):
        assert name in text


def test_a_form_without_an_answer_says_so_in_its_own_row(tmp_path):
    # a class of two samples: no unbiased tr C² for the theorem's form, nothing missing for the others
    x, labels = example_mixture(60).sample(80, 0, stratified=True)
    labels[:2] = 7
    path = tmp_path / "data.npz"
    np.savez(path, x=x, labels=labels)
    outcome = run_equivalent(EquivalentOptions(str(path), "relu"), Stages(None))
    assert set(outcome["failures"]) == {"theorem", "exact diagonal"}
    assert set(outcome["errors"]) == {"class means", "degree 2", "degree 4"}
    assert outcome["errors"]["degree 4"] < 0.01
    rows = [line for line in equivalent_text(outcome).splitlines() if line.startswith(("theorem", "exact diagonal"))]
    assert len(rows) == 2
    assert all("at least 3 samples" in row for row in rows)


def test_an_account_without_an_answer_leaves_the_forms_alone(table):
    path, _ = table
    options = EquivalentOptions(str(path), "relu", bias_std=1e4, centered=False)  # a base correlation of 1 − 1e-8
    outcome = run_equivalent(options, Stages(None))
    assert set(outcome["failures"]) == {"explanation", "theorem", "exact diagonal"}
    assert outcome["coefficients"] is None
    assert outcome["errors"]["degree 2"] < 1e-6
    assert "no account of the layers: " in equivalent_text(outcome)
    json.dumps(outcome)


def test_equivalent_of_a_network_with_biases(table):
    path, _ = table
    words = ["--activations", "relu", "--bias-std", "0.5", "--uncentered"]
    assert "constant" in succeeded(run("equivalent", "--data", path, *words))


def test_spectrum_of_the_example_mixture(tmp_path):
    figure = tmp_path / "spectrum.svg"
    words = ["spectrum", "--samples", "300", "--features", "200", "--activations", "relu", "--figure", figure]
    text = succeeded(run(*words))
    assert "<svg" in figure.read_text()
    assert "cos² with" in text
    outcome = json.loads(succeeded(run(*words[:-2], "--json")))
    mixture = example_mixture(200)
    limit = rn.limiting_spectrum(rn.Network(["relu"], tau0=mixture.tau0), mixture, 300)
    assert_allclose(outcome["edges"], limit.edges, rtol=1e-3)  # tau0 is the mixture's
    assert_allclose(outcome["outliers"], limit.outliers, rtol=1e-3)
    assert outcome["kolmogorov_distance"] < 0.1
    assert outcome["warnings"] == []


def test_spectrum_of_data_says_what_it_rests_on(table):
    path, _ = table
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome, limit, values = run_spectrum(SpectrumOptions(str(path), "tanh"), Stages(None))
    assert outcome["classes"] == ["left", "right"]
    assert len(values) == 90
    assert outcome["covariance"] == "scalar"
    assert limit.edges.shape == (1, 2)
    assert "orientation" in succeeded(run("spectrum", "--data", path, "--activations", "tanh"))


@pytest.mark.parametrize(
    "words, named",
    [
        (["kernel", "--data", "mnist5k"], "--out"),
        (["kernel", "--data", "mnist5k", "--out", "k.txt"], "--out"),
        (["kernel", "--data", "mnist5k", "--out", "no/such/folder/k.npy"], "--out"),
        (["kernel", "--data", "no-such-file.npz", "--out", "k.npy"], "no-such-file"),
        (["kernel", "--data", "mnist5k", "--out", "k.npy", "--activations", "nonsense"], "nonsense"),
        (["kernel", "--data", "mnist5k", "--out", "k.npy", "--samples", "3"], "samples"),
        (["kernel", "--data", "mnist5k", "--out", "k.npy", "--weight-std", "-1"], "weight_std"),
        (["equivalent"], "--data"),
        (["equivalent", "--data", "mnist5k", "--kind", "nngp"], "--kind"),
        (["spectrum", "--features", "3"], "features"),
        (["spectrum", "--figure", "x.bmp"], "--figure"),
        (["spectrum", "--samples", "64", "--features", "64", "--bias-std", "0.1"], "constant part"),
        (["spectrum", "--samples", "64", "--features", "64", "--kind", "ntk", "--activations", "sign"], "infinite"),
    ],
)
def test_bad_input_is_one_line(words, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_failed(run(*words), 2, named)
    assert list(tmp_path.iterdir()) == []
