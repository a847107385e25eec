"""The command line as a user meets it: exit status, one line of error, files written whole, JSON that parses."""

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import cli
from rmtntk.data import load
from rmtntk.workflow import verification

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--widths", "64,64", "--activations", "relu,relu", "--kernel-samples", "60", "--quiet"]
FILES = ["model.npz", "report.html", "report.json"]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def run(*argv):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = cli.main([str(word) for word in argv])
        except SystemExit as end:  # argparse's way out
            status = end.code
    return Outcome(status, out.getvalue(), err.getvalue())


def succeeded(outcome):
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    return outcome.out


def assert_failed(outcome, status, *words):
    assert outcome.status == status
    assert outcome.out == ""
    assert outcome.err.endswith("\n")
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("rmtntk")
    for word in words:
        assert word in outcome.err


def strict(text):
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def gaussian_classes(n=150, p=16, k=3, seed=0):
    rng = np.random.default_rng(seed)
    index = np.arange(n) % k
    return 100.0 + 30.0 * (rng.standard_normal((k, p))[index] + 0.4 * rng.standard_normal((n, p))), index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def data(folder):
    x, index = gaussian_classes()
    np.savez(folder / "tiny.npz", x=x, labels=index)
    return folder / "tiny.npz"


@pytest.fixture(scope="module")
def words(folder):
    """The same data as a table with a header, its labels words in a column without a usual name."""
    x, index = gaussian_classes()
    kinds = np.array(["cat", "dog", "guinea pig"])[index]
    lines = [",".join([*(f"f{k}" for k in range(8)), "kind", *(f"f{k}" for k in range(8, 16))])]
    for row, kind in zip(x.tolist(), kinds, strict=True):
        lines.append(",".join([*map(repr, row[:8]), kind, *map(repr, row[8:])]))
    (folder / "words.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "words.csv"


@pytest.fixture(scope="module")
def compressed(folder, data):
    """Text and folder of one run of the main job."""
    text = succeeded(run("compress", "--data", data, "--out", folder / "runs" / "tiny", *SMALL))
    return text, folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def model_file(compressed):
    return compressed[1] / "model.npz"


# --- compress


def test_compress_writes_three_files_and_says_where(compressed, data):
    text, out = compressed
    assert names(out) == FILES
    for name in FILES:
        assert str(out / name) in text
    assert "120 training and 30 test samples" in text
    report = strict((out / "report.json").read_text(encoding="utf-8"))
    assert report["options"]["data"] == str(data)
    assert report["options"]["widths"] == [64, 64]
    assert report["match"]["feasible"] is True
    assert report["match"]["residual"] <= 1e-12  # of a match to rounding
    assert report["model_file_bytes"] == (out / "model.npz").stat().st_size
    model = rn.TernaryNetwork.load(out / "model.npz")
    x, index = gaussian_classes()
    assert model.score(x, index) > 0.9  # classes far apart
    assert report["model"]["total_bytes"] <= model.nbytes  # that of the model, which also holds the preprocessing
    assert "<html" in (out / "report.html").read_text(encoding="utf-8").lower()


def test_compress_in_json(folder, data, compressed):
    out = folder / "json"
    report = strict(succeeded(run("compress", "--data", data, "--out", out, *SMALL, "--json")))
    assert names(out) == FILES
    written = strict((out / "report.json").read_text(encoding="utf-8"))
    assert report == written
    # the same options and seed: the same numbers as the run that printed text
    first = strict((compressed[1] / "report.json").read_text(encoding="utf-8"))
    for key in ("match", "layers", "kernels", "accuracy", "model"):
        assert report[key] == first[key]
    models = [rn.TernaryNetwork.load(path / "model.npz") for path in (out, compressed[1])]
    np.testing.assert_array_equal(*(model.decision_function(load(data).x) for model in models))


def test_compress_takes_the_options_it_names(folder, data):
    options = ["--activations", "tanh", "--widths", "40", "--sparsity", "0.25", "--method", "layerwise", "--alpha", "2"]
    options += ["--test-fraction", "0.5", "--kernel-samples", "30", "--seed", "7", "--quiet", "--json"]
    options += [
        "--levels",
        "3",
        "--input-bits",
        "8",
        "--readout",
        "logistic",
        "--readout-bits",
        "8",
        "--packing",
        "trit",
    ]
    report = strict(succeeded(run("compress", "--data", data, "--out", folder / "options", *options)))
    wanted = {"activations": "tanh", "widths": [40], "sparsity": 0.25, "method": "layerwise", "alpha": 2.0}
    wanted |= {"test_fraction": 0.5, "kernel_samples": 30, "seed": 7, "data": str(data), "label_column": None}
    wanted |= {"levels": 3, "spacing": "equal", "input_bits": 8, "packing": "trit"}
    wanted |= {"readout": "logistic", "readout_bits": 8}
    assert report["options"] == wanted
    assert report["data"]["n_train"] == 75
    assert [row["alpha"] for row in report["accuracy"]] == [2.0] * 4
    # five standard errors of a binomial share over 640 weights
    assert abs(report["model"]["share_of_zeros"] - 0.25) < 5 * (0.25 * 0.75 / 640) ** 0.5


def test_compress_has_widths_for_any_depth(folder, data, monkeypatch):
    seen = []

    def stop(options, progress):
        seen.append(options.widths)
        raise ValueError("seen enough")

    monkeypatch.setattr(cli, "run_compression", stop)
    for depth in (1, 2, 4):
        activations = ",".join(["relu"] * depth)
        outcome = run("compress", "--data", data, "--out", folder / "never", "--activations", activations)
        assert_failed(outcome, 2, "seen enough")
    assert [len(widths) for widths in seen] == [1, 2, 4]
    assert not (folder / "never").exists()


def test_compress_replaces_its_own_files_and_no_others(folder, data, compressed):
    out = folder / "again"
    out.mkdir()
    for name in (*FILES, "notes.txt"):
        (out / name).write_text("old")
    succeeded(run("compress", "--data", data, "--out", out, *SMALL))
    assert names(out) == sorted([*FILES, "notes.txt"])
    assert (out / "notes.txt").read_text() == "old"
    assert all((out / name).stat().st_size > 10 for name in FILES)


def test_compress_reads_a_table(folder, words):
    out = folder / "words"
    argv = ["compress", "--data", words, "--out", out, *SMALL]
    report = strict(succeeded(run(*argv, "--json", "--label-column", "kind")))
    assert report["data"]["n_features"] == 16
    assert report["data"]["n_classes"] == 3
    truth = [line.split(",")[8] for line in words.read_text(encoding="utf-8").splitlines()[1:]]
    for column in ("kind", "8"):  # by name and by position
        labels = succeeded(run("predict", out / "model.npz", "--data", words, "--label-column", column)).splitlines()
        assert np.mean([a == b for a, b in zip(labels, truth, strict=True)]) > 0.9  # classes far apart
    assert_failed(run(*argv, "--label-column", "sort"), 2, "sort")


def test_compress_of_an_infeasible_network(folder, data):
    out = folder / "infeasible"
    # third Hermite polynomial at the scale the data is brought to: h1 = h2 = 0
    options = ["--activations", "polynomial([0,-3,0,1])", "--widths", "20", "--quiet", "--kernel-samples", "30"]
    outcome = run("compress", "--data", data, "--out", out, *options)
    assert_failed(outcome, 1, "rmtntk compress: error: ", "nothing to match")
    assert not out.exists()


def test_a_run_that_fails_late_leaves_the_old_files(folder, data, monkeypatch):
    out = folder / "late"
    out.mkdir()
    for name in FILES:
        (out / name).write_text("old")

    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(cli.report_module, "write", fail)
    assert_failed(run("compress", "--data", data, "--out", out, *SMALL), 2, "no space left")
    assert names(out) == FILES
    assert all((out / name).read_text() == "old" for name in FILES)


# --- predict


def test_predict_prints_the_labels_of_the_model(model_file, data):
    model = rn.TernaryNetwork.load(model_file)
    labels = model.predict(load(data).x).tolist()
    assert succeeded(run("predict", model_file, "--data", data)) == "\n".join(map(str, labels)) + "\n"
    fields = strict(succeeded(run("predict", model_file, "--data", data, "--json")))
    assert fields == {"labels": labels}


def test_predict_needs_no_labels(folder, model_file, data):
    np.savez(folder / "bare.npz", x=load(data).x[:7])
    labels = strict(succeeded(run("predict", model_file, "--data", folder / "bare.npz", "--json")))["labels"]
    assert labels == rn.TernaryNetwork.load(model_file).predict(load(data).x[:7]).tolist()


def test_predict_of_words_and_flags(folder, data):
    x, index = gaussian_classes()
    for kinds in (["käse", "a b", ""], [False, True, True]):
        model = rn.compress(rn.Network(["tanh"]), x - 100.0, widths=(60,), rng=0)
        model = model.fit(x - 100.0, [kinds[k] for k in index]).with_preprocessing(np.full(16, 100.0), 1.0)
        model.save(folder / "words.npz")
        labels = strict(succeeded(run("predict", folder / "words.npz", "--data", data, "--json")))["labels"]
        assert labels == model.predict(x).tolist()
        text = succeeded(run("predict", folder / "words.npz", "--data", data))
        assert text == "".join(f"{label}\n" for label in labels)


def test_predict_refuses(folder, model_file, data):
    np.savez(folder / "wide.npz", x=np.ones((4, 17)))
    outcome = run("predict", model_file, "--data", folder / "wide.npz")
    assert_failed(outcome, 2, "`x` must have the model's 16 features, got 17")
    x, _ = gaussian_classes()
    rn.compress(rn.Network(["tanh"]), x, widths=(6,), rng=0).save(folder / "bare-model.npz")
    assert_failed(run("predict", folder / "bare-model.npz", "--data", data), 2, "no readout yet")
    assert_failed(run("predict", folder / "nothing.npz", "--data", data), 2, "does not exist")
    assert_failed(run("predict", data, "--data", data), 2, "not an rmtntk model")


def test_damaged_model_files(folder, model_file, data):
    content = bytearray(model_file.read_bytes())
    content[len(content) // 2] ^= 1
    for name, damaged in (("flipped", content), ("cut", content[:-100]), ("empty", b"")):
        path = folder / f"{name}.npz"
        path.write_bytes(damaged)
        for argv in (["predict", path, "--data", data], ["verify", path], ["info", path]):
            assert_failed(run(*argv), 2, f"{name}.npz")


# --- info


def test_info_names_versions_and_activations():
    text = succeeded(run("info"))
    for word in (rn.__version__, np.__version__, "leaky_relu", "threads"):
        assert word in text
    fields = strict(succeeded(run("info", "--json")))
    assert fields["rmtntk"] == rn.__version__
    assert fields["activations"] == list(rn.activations.names())


def test_info_of_a_model(model_file):
    report = rn.TernaryNetwork.load(model_file).report()
    fields = strict(succeeded(run("info", model_file, "--json")))
    assert fields == report
    text = succeeded(run("info", model_file))
    assert f"{report['n_weights']:,}" in text
    assert f"{report['total_bytes']:,}" in text


# --- verify


def test_verify_a_model(model_file, data):
    text = succeeded(run("verify", model_file))
    assert "passed" in text
    assert "off the diagonal" not in text
    fields = strict(succeeded(run("verify", model_file, "--json")))
    assert fields["passed"] is True
    assert fields["residual"] <= 1e-12  # of a match to rounding
    assert_allclose(fields["alpha_stored"], fields["alpha_dense"], rtol=1e-12)


def test_verify_a_model_on_data(model_file, data):
    assert "off the diagonal" in succeeded(run("verify", model_file, "--data", data))
    fields = strict(succeeded(run("verify", model_file, "--data", data, "--json")))
    assert fields["n_samples"] == 150
    assert 0.0 < fields["off_diagonal"] < 1.0


def test_verify_reads_the_table_the_model_was_made_of(folder, words, model_file):
    argv = ["verify", model_file, "--data", words, "--label-column", "kind", "--json"]
    assert strict(succeeded(run(*argv)))["n_samples"] == 150


def test_verify_a_model_on_other_data(folder, model_file):
    np.savez(folder / "narrow.npz", x=np.ones((4, 5)))
    outcome = run("verify", model_file, "--data", folder / "narrow.npz")
    assert_failed(outcome, 2, "16 features", "5")  # says what the model takes and what came


def test_verify_a_model_that_does_not_match(folder, model_file):
    model = rn.TernaryNetwork.load(model_file)
    steps = [rn.activations.step(1.1 * act.thresholds, act.levels) for act in model.activations]
    wrong = rn.TernaryNetwork(model.dense, model.dense.with_activations(steps), model.packed, model.sparsity)
    wrong.save(folder / "wrong.npz")
    outcome = run("verify", folder / "wrong.npz")
    assert (outcome.status, outcome.err) == (1, "")
    assert "FAILED" in outcome.out
    outcome = run("verify", folder / "wrong.npz", "--json")
    assert (outcome.status, outcome.err) == (1, "")
    assert strict(outcome.out)["passed"] is False


VERIFY = ["verify", "--activations", "relu", "--draws", "1", "--quiet"]


def test_verify_the_theory_on_small_data():
    text = succeeded(run(*VERIFY, "--sizes", "64,128,256"))
    assert "passed" in text
    assert "256" in text
    fields = strict(succeeded(run(*VERIFY, "--sizes", "64,128,256", "--json")))
    assert [row["n"] for row in fields["rows"]] == [64, 128, 256]
    assert fields["passed"] is True
    assert all(slope <= fields["slope_bound"] for slope in fields["slopes"].values())


def test_verify_fails_where_nothing_converges(monkeypatch):
    monkeypatch.setattr(verification, "SLOPE_BOUND", -30.0)
    outcome = run(*VERIFY, "--sizes", "32,48,64")
    assert (outcome.status, outcome.err) == (1, "")
    assert "FAILED" in outcome.out
    outcome = run(*VERIFY, "--sizes", "32,48,64", "--json")
    assert outcome.status == 1
    assert strict(outcome.out)["passed"] is False


# --- match


def test_match_prints_thresholds():
    text = succeeded(run("match", "--activations", "relu", "--tau0", "1"))
    assert text.startswith("layer 1: step(")
    assert "residual" in text
    fields = strict(succeeded(run("match", "--activations", "relu,tanh", "--tau0", "0.7", "--json")))
    found = rn.match(rn.Network(["relu", "tanh"]), 0.7)
    assert fields["thresholds"] == [act.thresholds.tolist() for act in found.activations]
    assert fields["levels"] == [act.levels.tolist() for act in found.activations]
    assert (fields["residual"], fields["excess"]) == (found.residual, found.excess)
    assert fields["excess_bound"] == found.excess_bound
    assert (fields["feasible"], fields["method"], fields["message"]) == (True, "tight", found.message)


def test_match_takes_method_and_objective():
    fields = strict(succeeded(run("match", "--activations", "relu,relu", "--method", "layerwise", "--json")))
    assert (fields["method"], fields["objective"]) == ("layerwise", "both")
    fields = strict(succeeded(run("match", "--activations", "relu,relu", "--objective", "ntk", "--json")))
    assert (fields["method"], fields["objective"]) == ("tight", "ntk")


@pytest.mark.parametrize("method", ["tight", "layerwise", "paper"])
def test_match_of_an_infeasible_network(method):
    argv = ["match", "--activations", "polynomial([0,-3,0,1])", "--tau0", "1", "--method", method]
    outcome = run(*argv)
    assert (outcome.status, outcome.err) == (1, "")
    assert "nothing to match" in outcome.out
    outcome = run(*argv, "--json")
    assert (outcome.status, outcome.err) == (1, "")
    fields = strict(outcome.out)
    assert fields["feasible"] is False
    assert fields["residual"] is None  # JSON has no infinity
    assert fields["thresholds"] == []


# --- Mistakes


MISTAKES = {
    "no command": ([], "COMMAND"),
    "unknown command": (["squash"], "squash"),
    "unknown option": (["info", "--verbose"], "--verbose"),
    "no data": (["compress", "--out", "OUT"], "--data"),
    "no out": (["compress", "--data", "DATA"], "--out"),
    "unknown activation": (["compress", "--data", "DATA", "--out", "OUT", "--activations", "rulu"], "'rulu'"),
    "broken activations": (
        ["compress", "--data", "DATA", "--out", "OUT", "--activations", "relu,("],
        "comma-separated",
    ),
    "code for activations": (["match", "--activations", "__import__('os').getcwd()"], "comma-separated"),
    "parameters that do not fit": (["match", "--activations", "relu(0.1)"], "takes no parameters"),
    "missing data": (["compress", "--data", "nothing.npz", "--out", "OUT"], "'nothing.npz'"),
    "unknown data": (["compress", "--data", "mnist6k", "--out", "OUT"], "mnist5k"),
    "unknown method": (["compress", "--data", "DATA", "--out", "OUT", "--method", "best"], "'best'"),
    "words for widths": (["compress", "--data", "DATA", "--out", "OUT", "--widths", "a,b"], "'a,b'"),
    "fractional width": (["compress", "--data", "DATA", "--out", "OUT", "--widths", "3,3.5,3"], "integers"),
    "zero width": (["compress", "--data", "DATA", "--out", "OUT", "--widths", "3,0,3"], "`widths[1]`"),
    "negative width": (["compress", "--data", "DATA", "--out", "OUT", "--widths=-3,3,3"], "`widths[0]`"),
    "too few widths": (["compress", "--data", "DATA", "--out", "OUT", "--widths", "3,3"], "one entry per layer, 3"),
    "sparsity one": (["compress", "--data", "DATA", "--out", "OUT", "--sparsity", "1"], "`sparsity`"),
    "sparsity nan": (["compress", "--data", "DATA", "--out", "OUT", "--sparsity", "nan"], "`sparsity`"),
    "test fraction": (["compress", "--data", "DATA", "--out", "OUT", "--test-fraction", "1"], "`test_fraction`"),
    "negative alpha": (["compress", "--data", "DATA", "--out", "OUT", "--alpha=-1"], "`alpha`"),
    "word for alpha": (["compress", "--data", "DATA", "--out", "OUT", "--alpha", "much"], "'much'"),
    "few kernel samples": (["compress", "--data", "DATA", "--out", "OUT", "--kernel-samples", "3"], "`kernel_samples`"),
    "negative seed": (["compress", "--data", "DATA", "--out", "OUT", "--seed=-1"], "`seed`"),
    "out is a file": (["compress", "--data", "DATA", "--out", "DATA"], "`--out` must be a folder"),
    "out is below a file": (["compress", "--data", "DATA", "--out", "DATA/sub"], "`--out` must be a folder"),
    "label column of an archive": (["compress", "--data", "DATA", "--out", "OUT", "--label-column", "1"], "CSV"),
    "tau0 zero": (["match", "--tau0", "0"], "`tau0`"),
    "tau0 nan": (["match", "--tau0", "nan"], "`tau0`"),
    "tau0 word": (["match", "--tau0", "one"], "'one'"),
    "two sizes": (["verify", "--sizes", "64,128"], "three different sizes"),
    "no draws": (["verify", "--draws", "0"], "`draws`"),
    "data without model": (["verify", "--data", "DATA"], "needs a model"),
    "missing model": (["info", "nothing.npz"], "nothing.npz"),
    "a folder for a model": (["verify", "FOLDER"], "must be a model file"),
    "data for a model": (["verify", "DATA"], "not an rmtntk model"),
    "more memory than there is": (
        ["compress", "--data", "DATA", "--out", "OUT", "--activations", "tanh", "--widths", "1000000000000000"],
        "memory",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_in_one_line(tmp_path, data, mistake):
    argv, word = MISTAKES[mistake]
    out = tmp_path / "out"
    places = {"DATA": str(data), "OUT": str(out), "FOLDER": str(tmp_path), "DATA/sub": str(data / "sub")}
    outcome = run(*(places.get(part, part) for part in argv))
    assert_failed(outcome, 2)
    assert word.lower() in outcome.err.lower()
    assert not out.exists()
    assert names(tmp_path) == []


def test_data_that_cannot_be_used(tmp_path):
    x, index = gaussian_classes(n=40)
    cases = {
        "unlabelled": ({"x": x}, "`data` must have labels"),
        "one class": ({"x": x, "labels": np.zeros(40, int)}, "at least two classes"),
        "constant": ({"x": np.ones((40, 16)), "labels": index}, "rows that differ"),
        "nan": ({"x": np.where(x == x[0, 0], np.nan, x), "labels": index}, "must be finite"),
        "other count": ({"x": x, "labels": index[:-1]}, "`labels` must have shape"),
        "one sample": ({"x": x[:1], "labels": index[:1]}, "at least 2 samples"),
        "no x": ({"pixels": x}, "must hold an array `x`"),
        "flat": ({"x": x[0], "labels": index[:16]}, "samples in rows"),
    }
    for name, (arrays, words) in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        outcome = run("compress", "--data", tmp_path / f"{name}.npz", "--out", tmp_path / "out", *SMALL)
        assert_failed(outcome, 2, words)
    assert not (tmp_path / "out").exists()


def zip_bytes(member, content, method=0):
    """A zip archive of one stored member, whose headers may claim that it is compressed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(member, content)
    raw = bytearray(stream.getvalue())
    raw[8] = raw[raw.index(b"PK\x01\x02") + 10] = method
    return bytes(raw)


DAMAGED = {
    "text": b"not an archive",
    "empty": b"",
    "open bracket": zip_bytes("x.npy", b"\x93NUMPY\x01\0\x10\0{'shape': (3L, \n"),
    "no LZMA": zip_bytes("x.npy", b"\x09\x04\x05\x00" + b"\xff" * 200, zipfile.ZIP_LZMA),
    "no bzip2": zip_bytes("x.npy", b"\xff" * 200, zipfile.ZIP_BZIP2),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_data(tmp_path, damage):
    (tmp_path / "damaged.npz").write_bytes(DAMAGED[damage])
    outcome = run("compress", "--data", tmp_path / "damaged.npz", "--out", tmp_path / "out", *SMALL)
    assert_failed(outcome, 2, "damaged.npz")
    assert not (tmp_path / "out").exists()


# --- Interruption


@pytest.mark.parametrize("target", ["run_compression", "write"])
def test_ctrl_c_is_answered_in_one_line(tmp_path, data, monkeypatch, target):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli if target == "run_compression" else cli.report_module, target, interrupt)
    outcome = run("compress", "--data", data, "--out", tmp_path / "out", *SMALL)
    assert_failed(outcome, 130, "interrupted; nothing was written")
    assert not (tmp_path / "out").exists()


# A child that tells when its second heavy stage begins. Where signals cannot be sent to one process (Windows sends
# Ctrl-C to a whole console), it interrupts its own main thread, which raises the same KeyboardInterrupt.
INTERRUPTED = """
import _thread, os, runpy, signal, sys, threading
from rmtntk import _progress

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have been started with it ignored

enter = _progress.Stages.enter
begun = sys.argv[1]

def entering(self, name):
    enter(self, name)
    if name == "fit dense network":
        if os.name != "posix":
            threading.Timer(1.0, _thread.interrupt_main).start()
        open(begun, "w").close()

_progress.Stages.enter = entering
sys.argv[0:2] = ["rmtntk"]
runpy.run_module("rmtntk", run_name="__main__")
"""


def child_environment():
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def test_ctrl_c_in_the_middle_of_the_work(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((2500, 200)), labels=np.arange(2500) % 3)
    out, begun = tmp_path / "out", tmp_path / "begun"
    out.mkdir()
    argv = ["compress", "--data", tmp_path / "data.npz", "--out", out, "--activations", "tanh,tanh"]
    argv += ["--widths", "2500,2500", "--kernel-samples", "100"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *map(str, [begun, *argv])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    ) as child:
        deadline = time.monotonic() + 120
        while not begun.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if os.name == "posix":
            time.sleep(0.5)  # into the fit: its features, Gram matrix or eigenvectors
            child.send_signal(signal.SIGINT)
        try:
            stdout, stderr = child.communicate(timeout=120)  # when the library call it is in returns
        finally:
            child.kill()
    assert begun.exists()
    assert child.returncode == 130
    assert stderr == "rmtntk compress: interrupted; nothing was written\n"
    assert stdout == ""
    assert names(out) == []


# --- Entry points


def in_a_process(*argv):
    command = [sys.executable, "-m", "rmtntk", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=child_environment(), check=False)


def test_module_prints_its_version():
    done = in_a_process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"rmtntk {rn.__version__}\n", "")


def test_module_returns_the_status():
    done = in_a_process("match", "--tau0", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_console_script_shows_examples(monkeypatch, capsys):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(scripts) == {"rmtntk"}
    module, name = scripts["rmtntk"].split(":")
    monkeypatch.setattr(sys, "argv", ["rmtntk", "--help"])
    with pytest.raises(SystemExit) as end:
        getattr(importlib.import_module(module), name)()  # what an installed script calls
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    for command in ("compress", "verify", "match", "predict", "info"):
        assert f"rmtntk {command}" in text


@pytest.mark.parametrize("command", ["compress", "verify", "match", "predict", "info"])
def test_every_command_has_help(command):
    text = succeeded(run(command, "--help"))
    assert f"usage: rmtntk {command}" in text
    assert "--json" in text


def test_examples_of_the_help_parse():
    parser = cli._parser()
    lines = [line.split() for line in cli._EXAMPLES.splitlines() if line.startswith("  rmtntk ")]
    assert len(lines) >= 5
    for line in lines:
        assert parser.parse_args(line[1:]).run is not None


def test_what_is_for_growing_data_is_refused_with_a_model(model_file):
    for option in (["--sizes", "100,200"], ["--draws", "3"], ["--seed", "5"], ["--activations", "tanh"]):
        assert_failed(run("verify", model_file, *option), 2, f"`{option[0]}` is for the check on growing data")


def test_inputs_out_of_a_quantisers_range_are_refused_or_cut_as_asked(folder, data):
    out = folder / "bits"
    options = ["--activations", "relu", "--widths", "30", "--kernel-samples", "30", "--input-bits", "8", "--quiet"]
    succeeded(run("compress", "--data", data, "--out", out, *options))
    wide = folder / "far.npz"
    rows = load(data)
    np.savez(wide, x=3.0 * rows.x, labels=rows.labels)
    assert_failed(run("predict", out / "model.npz", "--data", wide), 2, "out_of_range")
    with pytest.warns(rn.OutOfRangeWarning):
        labels = succeeded(run("predict", out / "model.npz", "--data", wide, "--out-of-range", "clip")).split()
    assert len(labels) == len(rows.x)
