"""The jobs behind the command line: what they report is what can be computed from their parts."""

import io
import json
import sys
from contextlib import redirect_stderr
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import _progress
from rmtntk._progress import Stages, stages
from rmtntk.data import Scaling, load, train_test_split
from rmtntk.packing import pack
from rmtntk.workflow import (
    CompressionOptions,
    VerificationOptions,
    describe_environment,
    run_compression,
    run_model_check,
    run_verification,
)
from rmtntk.workflow import compression as compression_module
from rmtntk.workflow import verification as verification_module
from rmtntk.workflow.verification import example_mixture


def write_data(path, n=150, p=16, names=(0, 1, 2), seed=0):
    """Gaussian classes around random means, on the scale of pixels."""
    rng = np.random.default_rng(seed)
    index = np.arange(n) % len(names)
    means = rng.standard_normal((len(names), p))
    x = 100.0 + 30.0 * (means[index] + 0.4 * rng.standard_normal((n, p)))
    np.savez(path, x=x, labels=np.array(names)[index])
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def options(source):
    return CompressionOptions(
        data=str(source), activations="relu,relu", widths=(64, 48), sparsity=0.5, kernel_samples=60, seed=2
    )


@pytest.fixture(scope="module")
def result(options):
    return run_compression(options, Stages(None))


@pytest.fixture(scope="module")
def parts(options, source):
    """The same data by hand: split, scaling, and the network at its scale."""
    train, test = train_test_split(load(source), options.test_fraction, options.seed)
    scaling = Scaling.fit(train.x)
    return train, test, scaling, rn.Network(["relu", "relu"], tau0=1.0)


# --- Compression


def test_model_takes_raw_data(result, parts):
    train, test, scaling, _ = parts
    rows = {row["network"]: row for row in result.report["accuracy"]}
    assert list(rows) == ["dense", "ternary weights", "ternary", "4 levels", "8 levels", "dense, same bytes"]
    assert rows["ternary"]["train"] == result.model.score(train.x, train.labels)
    assert rows["ternary"]["test"] == result.model.score(test.x, test.labels)
    assert result.model.preprocessing is not None
    np.testing.assert_array_equal(result.model.preprocessing.mean, scaling.mean)
    assert result.model.preprocessing.scale == scaling.scale
    assert all(row["train"] > 0.9 for row in rows.values())  # classes far apart: a readout that works finds them


def test_accuracies_are_those_of_networks_made_by_hand(result, parts, options):
    train, test, scaling, net = parts
    model = rn.compress(net, scaling.transform(train.x), widths=(64, 48), sparsity=0.5, rng=2, activations="dense")
    model.fit(scaling.transform(train.x), train.labels)
    row = result.report["accuracy"][1]
    assert row["test"] == model.score(scaling.transform(test.x), test.labels)
    assert model.readout is not None
    assert row["alpha"] == pytest.approx(model.readout.alpha, rel=1e-3)  # tau0 = 1 to rounding; GCV is searched to 1e-4
    assert row["weight_bytes"] == sum(layer.nbytes for layer in model.packed)
    assert result.report["accuracy"][0]["weight_bytes"] == 4 * (16 * 64 + 64 * 48)


def test_report_describes_data_match_and_model(result, source):
    report = result.report
    tau0 = report["data"]["tau0"]
    sizes = {"n_train": 120, "n_test": 30, "n_features": 16, "n_classes": 3}
    assert report["data"] == {"name": "tiny.npz", **sizes, "tau0": tau0}
    assert tau0 == pytest.approx(1.0, rel=1e-14)  # the scaling's mean squared norm
    found = rn.match(rn.Network(["relu", "relu"]), tau0)
    match = report["match"]
    assert (match["method"], match["feasible"]) == ("tight", True)
    assert (match["residual"], match["excess"]) == (found.residual, found.excess)  # deterministic
    assert report["rmtntk"] == rn.__version__
    assert report["options"]["data"] == str(source)
    assert report["options"]["widths"] == (64, 48)
    layers = report["layers"]
    dense = rn.coefficients(rn.Network(["relu", "relu"]), tau0)
    assert [row["layer"] for row in layers] == [0, 1, 2]
    assert_allclose([row["dense"]["alpha"] for row in layers], dense.alpha, rtol=0, atol=0)  # the same call
    assert_allclose([row["dense"]["tau"] for row in layers], dense.tau, rtol=0, atol=0)
    # the match's residual is rounding
    assert_allclose(layers[-1]["ternary"]["alpha"][:3], layers[-1]["dense"]["alpha"][:3], rtol=1e-12)
    for row, act in zip(layers[1:], result.model.activations, strict=True):
        assert row["ternary"]["thresholds"] == act.thresholds.tolist()
        assert row["ternary"]["levels"] == act.levels.tolist()
    json.dumps(report, allow_nan=False)  # JSON-ready


def test_kernel_numbers_are_those_of_the_kernels(result, parts, options):
    train, _, scaling, _ = parts
    net = result.model.dense
    x = scaling.transform(train.x)
    chosen = np.random.default_rng(options.seed).permutation(len(x))[:60]
    dense, ternary = rn.ck(net, x[chosen]), rn.ck(result.model.net, x[chosen])
    kernels = result.report["kernels"]
    assert kernels["n_samples"] == 60
    # eigenvalue and singular value solvers agree to rounding; the samples' order does not matter
    assert_allclose(kernels["norm"], np.linalg.norm(dense, 2), rtol=1e-9)
    gap = ternary - dense
    mean = np.diagonal(gap).mean()
    np.fill_diagonal(gap, 0.0)
    off = dense - np.diag(np.diagonal(dense))
    versus = kernels["ternary_vs_dense"]
    assert_allclose(versus["off_diagonal"], np.linalg.norm(gap, 2) / np.linalg.norm(off, 2), rtol=1e-6)  # Lanczos
    assert_allclose(versus["off_diagonal_of_whole"], np.linalg.norm(gap, 2) / np.linalg.norm(dense, 2), rtol=1e-6)
    alpha1 = rn.coefficients(net, float(net.tau0)).alpha[-1, 0]
    assert_allclose(versus["mean_diagonal_excess"], mean / alpha1, rtol=1e-9)  # rounding of a difference
    values = np.linalg.eigvalsh(dense)[::-1]
    assert_allclose(kernels["leading_eigenvalues"]["dense"], values[:5], rtol=1e-9)  # well separated from 0
    assert_allclose(result.spectrum.eigenvalues["dense"], values, rtol=0, atol=1e-12)  # eps times the norm
    assert_allclose(np.sort(result.spectrum.eigenvalues["ternary"]), np.linalg.eigvalsh(ternary), rtol=0, atol=1e-12)
    features = result.model.features(train.x[chosen])
    wanted = np.linalg.norm(features @ features.T - ternary, 2) / np.linalg.norm(ternary, 2)
    assert_allclose(kernels["finite_ternary_vs_infinite"], wanted, rtol=1e-6)  # Lanczos
    second = rn.equivalent(net, x[chosen], correction="second_order").to_dense()
    wanted = np.linalg.norm(dense - second, 2) / np.linalg.norm(dense, 2)
    assert_allclose(kernels["dense_vs_equivalent"]["second_order"], wanted, rtol=1e-6)  # Lanczos
    assert all(0.0 <= value <= 1.0 + 1e-12 for row in kernels["eigenvector_alignment"].values() for value in row)


def test_spectrum_is_sorted_by_class_and_size(result):
    spectrum = result.spectrum
    assert (np.diff(spectrum.classes) >= 0).all()
    assert set(spectrum.eigenvalues) == set(spectrum.eigenvectors) == {"dense", "ternary", "equivalent", "second_order"}
    for name, values in spectrum.eigenvalues.items():
        assert values.shape == (60,)
        assert (np.diff(values) <= 0.0).all()
        vectors = spectrum.eigenvectors[name]
        assert vectors.shape == (60, 2)
        assert_allclose(vectors.T @ vectors, np.eye(2), atol=1e-12)  # of LAPACK
        assert ((vectors * spectrum.eigenvectors["dense"]).sum(axis=0) >= 0.0).all()


def test_a_run_can_be_repeated(options, result):
    again = run_compression(options, Stages(None))
    seconds = again.report.pop("seconds")
    report = {key: value for key, value in result.report.items() if key != "seconds"}
    assert {key: again.report[key] for key in report} == report
    assert list(seconds) == list(result.report["seconds"])
    assert all((a == b).all() for a, b in zip(again.model.weights, result.model.weights, strict=True))


def test_stages_are_counted_and_timed(result):
    seconds = result.report["seconds"]
    assert len(seconds) == compression_module.STAGES  # what the progress bar counts up to
    assert all(value >= 0.0 for value in seconds.values())


def test_the_seed_matters(options, result):
    other = run_compression(replace(options, seed=3), Stages(None))
    assert any((a != b).any() for a, b in zip(other.model.weights, result.model.weights, strict=True))


@pytest.mark.parametrize("names", [("a", "b"), (True, False), (-5, 7, 12, 99)], ids=["str", "bool", "int"])
def test_labels_of_any_type(tmp_path, names):
    path = write_data(tmp_path / "data.npz", names=names)
    result = run_compression(
        CompressionOptions(data=str(path), activations="tanh", widths=(60,), kernel_samples=40, method="layerwise"),
        Stages(None),
    )
    data = load(path)
    predicted = result.model.predict(data.x)
    assert set(predicted.tolist()) == set(names)
    assert (predicted == data.labels).mean() > 0.9  # classes far apart
    assert result.report["data"]["n_classes"] == len(names)


def test_given_penalty_is_used_by_all_three(tmp_path, source):
    result = run_compression(
        CompressionOptions(data=str(source), activations="tanh", widths=(60,), kernel_samples=40, alpha=0.125),
        Stages(None),
    )
    assert [row["alpha"] for row in result.report["accuracy"]] == [0.125] * 6
    assert result.model.readout is not None
    assert result.model.readout.alpha == 0.125


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"activations": "relu,rulu"}, ValueError, "'rulu'"),
        ({"activations": ""}, ValueError, "`activations` must be a comma-separated list"),
        ({"activations": "relu"}, ValueError, "`widths` must have one entry per layer, 1, got 2"),
        ({"widths": (64, 0)}, ValueError, r"`widths\[1\]` must be at least 1"),
        ({"sparsity": 1.0}, ValueError, "`sparsity` must be"),
        ({"method": "best"}, ValueError, "`method` must be one of"),
        ({"test_fraction": 0.0}, ValueError, "`test_fraction` must be"),
        ({"test_fraction": 1.0}, ValueError, "`test_fraction` must be"),
        ({"kernel_samples": 9}, ValueError, "`kernel_samples` must be at least 10"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"alpha": -1.0}, ValueError, "`alpha` must be"),
    ],
)
def test_bad_options_are_refused_before_data_is_read(change, error, words):
    options = CompressionOptions(
        **{"data": "there is no such file", "activations": "relu,relu", "widths": (64, 48), **change}
    )
    with pytest.raises(error, match=words):
        options.validate()
    with pytest.raises(error, match=words):
        run_compression(options, Stages(None))


def test_unlabelled_data_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((30, 4)))
    options = CompressionOptions(data=str(tmp_path / "data.npz"), activations="tanh", widths=(9,), kernel_samples=10)
    with pytest.raises(ValueError, match="`data` must have labels"):
        run_compression(options, Stages(None))


def test_defaults_are_those_of_the_documentation():
    default = CompressionOptions()
    assert (default.data, default.method, default.test_fraction) == ("mnist5k", "tight", 0.2)
    assert len(default.validate()) == len(default.widths)


# --- Verification


@pytest.fixture(scope="module")
def outcome():
    return run_verification(VerificationOptions("relu", (128, 64, 256), draws=1, seed=0), Stages(None))


def test_verification_measures_growing_data(outcome):
    assert [row["n"] for row in outcome["rows"]] == [64, 128, 256]
    names = set(outcome["slopes"])
    assert names == {"ck − equivalent", "ntk − equivalent", "ternary ck − ck"}
    for name in names:
        errors = [row[name] for row in outcome["rows"]]
        assert outcome["slopes"][name] == pytest.approx(
            np.polyfit(np.log([64, 128, 256]), np.log(errors), 1)[0], rel=1e-12
        )
        # the rate is n^-1/2 with single draws: slopes scatter by 0.2 over a factor of four
        assert outcome["slopes"][name] < -0.3
    assert outcome["passed"] == all(slope <= outcome["slope_bound"] for slope in outcome["slopes"].values())
    assert outcome["activations"] == "relu"
    json.dumps(outcome, allow_nan=False)


def test_verification_by_hand(outcome):
    mixture = example_mixture(64)
    net = rn.Network(["relu"], tau0=mixture.tau0)
    x, labels = mixture.sample(64, 0, stratified=True)
    row = outcome["rows"][0]
    for kind, kernel in (("ck", rn.ck(net, x)), ("ntk", rn.ntk(net, x))):
        form = rn.equivalent(net, x, labels, kind=kind, mixture=mixture).to_dense()
        wanted = np.linalg.norm(kernel - form, 2) / np.linalg.norm(kernel, 2)
        assert_allclose(row[f"{kind} − equivalent"], wanted, rtol=1e-6)  # Lanczos
    dense = rn.ck(net, x)
    gap = rn.ck(net.with_activations(rn.match(net).activations), x) - dense
    np.fill_diagonal(gap, 0.0)
    np.fill_diagonal(dense, 0.0)
    assert_allclose(row["ternary ck − ck"], np.linalg.norm(gap, 2) / np.linalg.norm(dense, 2), rtol=1e-6)  # Lanczos


def test_verification_fails_when_a_slope_is_too_flat(monkeypatch):
    monkeypatch.setattr(verification_module, "SLOPE_BOUND", -30.0)
    failed = run_verification(VerificationOptions("tanh", (32, 48, 64), draws=1), Stages(None))
    assert failed["passed"] is False
    assert failed["slope_bound"] == -30.0
    assert set(failed["failed"]) == set(failed["slopes"])


def test_verification_of_a_network_that_jumps_leaves_the_ntk_out():
    outcome = run_verification(VerificationOptions("sign", (32, 48, 64), draws=1), Stages(None))
    assert set(outcome["slopes"]) == {"ck − equivalent", "ternary ck − ck"}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"sizes": (64, 128)}, "at least three different sizes"),
        ({"sizes": (64, 64, 128, 128)}, "at least three different sizes"),
        ({"sizes": (31, 64, 128)}, r"`sizes\[0\]` must be at least 32"),
        ({"draws": 0}, "`draws` must be at least 1"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"activations": "nothing"}, "'nothing'"),
    ],
)
def test_bad_verification_options(change, words):
    with pytest.raises(ValueError, match=words):
        VerificationOptions(**change).validate()


def test_example_mixture_is_inside_the_theory():
    for p in (32, 33, 512):
        mixture = example_mixture(p)
        assert mixture.n_features == p
        assert abs(mixture.tau0 - 1.0) < 0.2
        deviation = mixture.traces - mixture.traces.mean()
        assert np.abs(deviation).max() * np.sqrt(p) < 2.0  # tr(C_a − C°)/√p stays bounded


# --- Checking a model


@pytest.fixture(scope="module")
def model():
    x = np.random.default_rng(0).standard_normal((60, 12))
    return rn.compress(rn.Network(["relu", "relu"]), x, widths=(20, 10), sparsity=0.5, rng=0)


def test_model_check_recomputes_the_match(model):
    outcome = run_model_check(model)
    assert outcome["passed"] is True
    assert outcome["residual"] <= 1e-12  # of a match to rounding
    assert_allclose(outcome["alpha_dense"], rn.coefficients(model.dense, model.dense.tau0).alpha[-1, :3], rtol=0)
    assert_allclose(outcome["alpha_stored"], rn.coefficients(model.net, model.net.tau0).alpha[-1, :3], rtol=0)
    assert len(outcome["activations"]) == 2
    assert "off_diagonal" not in outcome
    json.dumps(outcome, allow_nan=False)


def test_model_check_sees_other_thresholds(model):
    steps = [rn.activations.step(1.001 * act.thresholds, act.levels) for act in model.activations]
    wrong = rn.TernaryNetwork(model.dense, model.dense.with_activations(steps), model.packed, model.sparsity)
    outcome = run_model_check(wrong)
    assert outcome["passed"] is False
    assert 1e-5 < outcome["residual"] < 1e-1  # thresholds off by 1e-3


def test_model_check_of_dense_activations():
    x = np.random.default_rng(0).standard_normal((60, 12))
    model = rn.compress(rn.Network(["relu"]), x, widths=(20,), rng=0, activations="dense")
    assert run_model_check(model)["residual"] == 0.0


def test_model_check_on_data(model):
    raw = 5.0 + 3.0 * np.random.default_rng(1).standard_normal((70, 12))
    shifted = model.with_preprocessing(np.full(12, 5.0), 3.0)
    outcome = run_model_check(shifted, raw, n_samples=50)
    x = ((raw - 5.0) / 3.0)[:50]
    dense, gap = rn.ck(model.dense, x), rn.ck(model.net, x) - rn.ck(model.dense, x)
    np.fill_diagonal(gap, 0.0)
    np.fill_diagonal(dense, 0.0)
    assert outcome["n_samples"] == 50
    assert_allclose(outcome["off_diagonal"], np.linalg.norm(gap, 2) / np.linalg.norm(dense, 2), rtol=1e-6)  # Lanczos


@pytest.mark.parametrize("preprocessing", [True, False])
def test_model_check_refuses_data_of_another_width(model, preprocessing):
    subject = model.with_preprocessing(np.zeros(12), 1.0) if preprocessing else model
    with pytest.raises(ValueError, match="12 features"):
        run_model_check(subject, np.ones((20, 11)))


def test_model_check_of_one_weight():
    net = rn.Network(["sign"], tau0=1.0)
    assert run_model_check(rn.TernaryNetwork(net, net, [pack([[1]])], 0.0))["passed"]


# --- Environment


def test_environment_names_what_matters():
    fields = describe_environment()
    assert fields["rmtntk"] == rn.__version__
    assert fields["numpy"] == np.__version__
    assert fields["threads"] >= 1
    assert set(fields["extras"]) == {"data", "plot", "progress", "store", "distributed", "sklearn", "completion"}
    json.dumps(fields, allow_nan=False)


def test_environment_names_missing_extras(monkeypatch):
    from rmtntk.workflow import environment

    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "jinja2" else object())
    monkeypatch.setattr(environment, "_with_version", lambda name: f"{name} 1.0")
    extras = describe_environment()["extras"]
    assert extras["plot"] == "missing: jinja2"
    assert extras["progress"] == "tqdm 1.0"


# --- Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown_by_two_stages(stream, **options):
    """What two stages write to stderr; inside the test, because pytest replaces sys.stderr between its phases."""
    with redirect_stderr(stream), stages(2, **options) as progress:
        progress.enter("read the data")
        progress.enter("think")
    assert list(progress.seconds) == ["read the data", "think"]
    return stream.getvalue()


def test_bar_on_a_terminal():
    shown = shown_by_two_stages(Terminal())
    assert "read the data" in shown
    assert "think" in shown
    assert "0/2" in shown
    assert "1/2" in shown
    assert shown.endswith("\r")  # the bar clears its line


def test_no_bar_when_quiet():
    assert shown_by_two_stages(Terminal(), quiet=True) == ""


def test_no_bar_where_stderr_is_no_terminal():
    assert shown_by_two_stages(io.StringIO()) == ""


def test_no_bar_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert shown_by_two_stages(Terminal()) == ""


def test_bar_is_closed_by_an_error():
    stream = Terminal()

    def fail():
        with redirect_stderr(stream), stages(2) as progress:
            progress.enter("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert "0/2" in stream.getvalue()
    assert stream.getvalue().endswith("\r")


def test_stages_keep_time(monkeypatch):
    clock = iter([10.0, 12.5, 12.5, 13.0])
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: next(clock))
    with stages(2) as progress:
        progress.enter("a")
        progress.enter("b")
    assert progress.seconds == {"a": 2.5, "b": 0.5}


def test_stages_count_one_by_one():
    class Bar:
        updates = 0
        names: tuple = ()

        def update(self, count):
            self.updates += count

        def set_description_str(self, name):
            self.names += (name,)

    bar = Bar()
    progress = Stages(bar)
    progress.leave()  # nothing entered yet
    for name in ("a", "b", "c"):
        progress.enter(name)
    progress.leave()
    progress.leave()
    assert bar.updates == 3
    assert bar.names == ("a", "b", "c")
