"""The command line as a user meets it: exit status, one line of error, files written whole, JSON that parses."""

import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import cli
from rmtntk.commands import compress
from rmtntk.data import load
from rmtntk.workflow import CompressionOptions, verification

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


def without_record(text):
    """The fields of printed JSON without those that every command has for ``rmtntk rerun``."""
    fields = strict(text)
    assert set(fields.pop("versions")) == {"rmtntk", "python", "numpy", "scipy", "numba"}
    assert set(fields.pop("command")) == {"name", "options", "sha256"}
    return fields


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

    monkeypatch.setattr(compress, "run_compression", stop)
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

    monkeypatch.setattr(compress.report_module, "write", fail)
    assert_failed(run("compress", "--data", data, "--out", out, *SMALL), 2, "no space left")
    assert names(out) == FILES
    assert all((out / name).read_text() == "old" for name in FILES)


# --- predict


def test_predict_prints_the_labels_of_the_model(model_file, data):
    model = rn.TernaryNetwork.load(model_file)
    labels = model.predict(load(data).x).tolist()
    assert succeeded(run("predict", model_file, "--data", data)) == "\n".join(map(str, labels)) + "\n"
    fields = without_record(succeeded(run("predict", model_file, "--data", data, "--json")))
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
    fields = without_record(succeeded(run("info", model_file, "--json")))
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

    monkeypatch.setattr(compress if target == "run_compression" else compress.report_module, target, interrupt)
    outcome = run("compress", "--data", data, "--out", tmp_path / "out", *SMALL)
    assert_failed(outcome, 130, "interrupted")
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
    assert stderr == "rmtntk compress: interrupted\n"
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


COMMANDS = (
    "compress", "kernel", "equivalent", "spectrum", "verify", "match", "predict", "info", "rerun", "completion",
)  # fmt: skip


def examples(text):
    return [line for line in text.splitlines() if line.startswith("  rmtntk ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_ends_with_examples(command):
    text = succeeded(run(command, "--help"))
    assert f"usage: rmtntk {command}" in text
    assert ("--json" in text) == (command != "completion")
    assert ("--config" in text) == (command not in ("rerun", "completion"))
    lines = text[text.index("\nexamples:\n") :].rstrip("\n").split("\n")[2:]
    assert lines == examples(text)
    for line in lines:
        assert line.split()[:2] == ["rmtntk", command]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_examples_of_the_help_parse(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text('[compress]\ndata = "mnist5k"\n[kernel]\ndata = "mnist5k"\n', encoding="utf-8")
    lines = examples(succeeded(run(*command, "--help")))
    assert len(lines) >= (2 if command else 8)
    for line in lines:
        words = shlex.split(line.partition(">")[0], comments=True)
        assert cli._parser().parse_args(words[1:]).run is not None


def test_statuses_of_the_help_are_those_returned(data, tmp_path, monkeypatch):
    text = succeeded(run("--help"))
    listed = re.findall(r"^  (\d+) +\S", text[text.index("exit status:") :], flags=re.MULTILINE)

    def ended(error):
        def fail(*args):
            raise error

        monkeypatch.setattr(compress, "run_compression", fail)
        return run("compress", "--data", data, "--out", tmp_path / "out", *SMALL).status

    found = [
        run("info").status,
        run("match", "--activations", "polynomial([0,-3,0,1])").status,
        run("match", "--tau0", "0").status,
        ended(ZeroDivisionError("of our own making")),
        ended(KeyboardInterrupt()),
    ]
    assert listed == [str(status) for status in found] == ["0", "1", "2", "70", "130"]
    for error in (rn.InfeasibleError("none"), rn.ConvergenceError("slow", 1.0)):
        assert ended(error) == 1
    for error in (rn.MissingExtraError("x", "plot", "It"), OSError("disk"), MemoryError("all"), TypeError("int")):
        assert ended(error) == 2


def test_an_error_of_our_own_has_a_traceback(data, tmp_path, monkeypatch):
    monkeypatch.setattr(compress, "run_compression", lambda *_: 1 // 0)
    outcome = run("compress", "--data", data, "--out", tmp_path / "out", *SMALL)
    assert (outcome.status, outcome.out) == (70, "")
    assert "Traceback" in outcome.err
    assert "ZeroDivisionError" in outcome.err


# --- Readouts


def test_a_logistic_readout_without_penalty_is_refused_before_any_work(tmp_path):
    argv = ["compress", "--data", "nothing.npz", "--out", tmp_path / "out", "--readout", "logistic", "--alpha", "0"]
    assert_failed(run(*argv), 2, "`alpha` must be positive for the logistic readout")
    assert_failed(run(*argv[:-4], "--alpha", "0"), 2, "nothing.npz")  # a ridge readout may have none


def test_rows_say_which_readouts_are_rounded(folder, data):
    out = folder / "rounded"
    text = succeeded(run("compress", "--data", data, "--out", out, *SMALL, "--readout-bits", "2"))
    assert "readouts: 2 bits for ternary weights, float64 for dense networks" in text
    report = strict((out / "report.json").read_text(encoding="utf-8"))
    for row in report["accuracy"]:
        dense = row["network"].startswith("dense")
        assert row["readout_bits"] == (64 if dense else 2)
        assert row["note"].endswith("readout in float64" if dense else "readout in 2 bits")


# --- Again from JSON


def changed(path, out, version):
    """The same JSON with another version of something."""
    content = strict(path.read_text(encoding="utf-8"))
    content["versions"][version] = "0"
    out.write_text(json.dumps(content), encoding="utf-8")
    return out


def test_compress_again_from_its_report(folder, compressed):
    first, out = compressed[1], folder / "second"
    assert "accuracy" not in succeeded(run("rerun", first / "report.json", "--out", out, "--quiet")).splitlines()[0]
    assert names(out) == FILES
    before, after = (strict((path / "report.json").read_text(encoding="utf-8")) for path in (first, out))
    assert before["accuracy"] == after["accuracy"]
    assert before["kernels"] == after["kernels"]
    assert before["command"]["options"].pop("out") == str(first)
    assert after["command"]["options"].pop("out") == str(out)
    assert before["command"] == after["command"]
    assert before["command"]["options"]["widths"] == [64, 64]
    assert before["command"]["options"]["seed"] == 0
    models = [rn.TernaryNetwork.load(path / "model.npz") for path in (first, out)]
    for one, two in zip(models[0].weights, models[1].weights, strict=True):
        assert one.tobytes() == two.tobytes()
    assert (first / "model.npz").read_bytes() == (out / "model.npz").read_bytes()


def test_default_widths_are_written_down(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(compress, "run_compression", lambda options, progress: SimpleNamespace(report={}))
    monkeypatch.setattr(compress.report_module, "write", lambda result, out: written.append(result.report) or [])
    content = {"command": {"name": "compress", "options": {"data": "mnist5k", "out": str(tmp_path / "out")}}}
    (tmp_path / "record.json").write_text(json.dumps(content), encoding="utf-8")
    outcome = run("rerun", tmp_path / "record.json", "--json")
    assert outcome.status == 0
    assert outcome.err == (
        "rmtntk rerun: warning: no versions were recorded: numbers may differ from those of the first run\n"
    )
    found = written[0]["command"]["options"]
    assert (found["widths"], found["seed"], found["sparsity"]) == ((2000, 2000, 1000), 0, 0.9)
    assert set(found) >= set(asdict(CompressionOptions()))


def test_kernel_again_from_its_json(folder, data):
    options = [
        "--activations",
        "gelu,relu",
        "--kind",
        "ntk",
        "--weight-std",
        "1.3",
        "--bias-std",
        "0.1",
        "--uncentered",
    ]
    options += ["--samples", "40", "--seed", "3", "--tau0", "0.9", "--dtype", "float32"]
    text = succeeded(run("kernel", "--data", data, *options, "--out", folder / "first.npy", "--json"))
    (folder / "first.json").write_text(text, encoding="utf-8")
    # what was made is not replaced, and nothing is computed to find that out
    assert_failed(run("rerun", folder / "first.json"), 2, "`--out` must be given", "first.npy exists")
    again = succeeded(run("rerun", folder / "first.json", "--out", folder / "second.npy", "--json"))
    assert (folder / "first.npy").read_bytes() == (folder / "second.npy").read_bytes()
    assert strict(again)["trace"] == strict(text)["trace"]
    other = ["--seed", "4", "--out", folder / "other.npy", "--quiet"]  # 40 rows of 150: the seed is part of it
    succeeded(run("kernel", "--data", data, *options, *other))
    assert (folder / "other.npy").read_bytes() != (folder / "first.npy").read_bytes()
    # the JSON of a rerun is as good as the first one, and a place that is free again is taken
    (folder / "second.json").write_text(again, encoding="utf-8")
    content = (folder / "second.npy").read_bytes()
    (folder / "second.npy").unlink()
    succeeded(run("rerun", folder / "second.json"))
    assert (folder / "second.npy").read_bytes() == content


def test_commands_that_print_only_run_again(folder, model_file, data):
    for k, argv in enumerate(
        [
            ["match", "--activations", "relu", "--family", "{-1,0,1}"],
            ["match", "--activations", "relu", "--weight-std", "1.5", "--tau0", "0.8"],
            ["predict", model_file, "--data", data],
            ["verify", model_file],
            ["spectrum", "--samples", "40", "--features", "30", "--activations", "relu", "--seed", "4"],
            ["equivalent", "--data", data, "--activations", "relu", "--samples", "40", "--seed", "4"],
            ["info", model_file],
        ]
    ):
        text = succeeded(run(*argv, "--json"))
        place = folder / f"printed{k}.json"
        place.write_text(text, encoding="utf-8")
        assert succeeded(run("rerun", place, "--json")) == text
        if argv[0] != "spectrum":
            assert_failed(run("rerun", place, "--out", folder / "no"), 2, "`--out` must be left out")


def test_a_rerun_has_the_status_of_its_command(folder):
    outcome = run("match", "--activations", "polynomial([0,-3,0,1])", "--json")
    (folder / "infeasible.json").write_text(outcome.out, encoding="utf-8")
    again = run("rerun", folder / "infeasible.json", "--json")
    assert (again.status, again.out, again.err) == (1, outcome.out, "")


def test_a_rerun_warns_of_other_versions_and_other_files(folder, data, tmp_path):
    place = tmp_path / "data.npz"
    place.write_bytes(data.read_bytes())
    argv = ["kernel", "--data", place, "--activations", "relu", "--out", tmp_path / "k.npy", "--json"]
    (tmp_path / "k.json").write_text(succeeded(run(*argv)), encoding="utf-8")
    again = ["--out", tmp_path / "again.npy"]
    for name in ("rmtntk", "numpy", "numba"):
        other = changed(tmp_path / "k.json", tmp_path / "other.json", name)
        outcome = run("rerun", other, *again)
        assert outcome.status == 0
        assert outcome.err.startswith(f"rmtntk rerun: warning: versions differ, and numbers may: {name} 0, now ")
        assert len(outcome.err.splitlines()) == 1
        assert (tmp_path / "k.npy").read_bytes() == (tmp_path / "again.npy").read_bytes()
    x, _ = gaussian_classes(n=20)
    np.savez(place, x=x)
    outcome = run("rerun", tmp_path / "k.json", *again)
    assert outcome.status == 0
    assert outcome.err == f"rmtntk rerun: warning: {place} is not the file it was: another `data`, and other results\n"


RECORDS = {
    "no JSON": (b"{", "must be a JSON file"),
    "not UTF-8": (b"\xff\xfe", "must be a JSON file"),
    "deep": (b"[" * 100_000, "must be a JSON file"),
    "a list": (b"[1, 2]", '"command"'),
    "no command": (b'{"command": "kernel"}', '"command"'),
    "no options": (b'{"command": {"name": "kernel"}}', '"command"'),
    "no name": (b'{"command": {"options": {}}}', "`command.name` must be one of compress"),
    "itself": (b'{"command": {"name": "rerun", "options": {}}}', "`command.name` must be one of compress"),
    "unknown": (b'{"command": {"name": "match", "options": {"tau": 1}}}', "did you mean tau0?"),
    "shown": (b'{"command": {"name": "match", "options": {"json": true}}}', "`command.options.json`"),
    "word": (b'{"command": {"name": "match", "options": {"tau0": "1"}}}', "`command.options.tau0` must be a number"),
    "null": (b'{"command": {"name": "match", "options": {"tau0": null}}}', "must be a number, got None"),
    "no data": (b'{"command": {"name": "predict", "options": {"model": "m.npz"}}}', "`command.options.data`"),
    "null data": (b'{"command": {"name": "predict", "options": {"model": "m", "data": null}}}', "must not be null"),
    "choice": (b'{"command": {"name": "match", "options": {"method": "tigth"}}}', "did you mean tight?"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_records_that_cannot_be_run(tmp_path, case):
    content, words = RECORDS[case]
    (tmp_path / "record.json").write_bytes(content)
    assert_failed(run("rerun", tmp_path / "record.json"), 2, "record.json", words)


def test_a_record_that_is_not_there(tmp_path):
    assert_failed(run("rerun", tmp_path / "no.json"), 2, "no.json: must be a readable JSON file: No such file")
    assert_failed(run("rerun", tmp_path), 2, "must be a readable JSON file")


# --- Completion


def completions(line, folder, **variables):
    """What a shell is offered at the end of a line: the protocol of argcomplete's bash function."""
    environment = {**child_environment(), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_IFS": "\v"}
    environment |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", **variables}
    words = ["bash", "-c", '"$@" 8>&1 9>&2 1>/dev/null 2>&1 </dev/null', "_", sys.executable, "-m", "rmtntk"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment, cwd=folder, check=False)
    return [word.strip() for word in done.stdout.split("\v") if word]


needs_bash = pytest.mark.skipif(os.name != "posix", reason="there is no bash")


@needs_bash
def test_completion_as_bash_asks_for_it(tmp_path):
    pytest.importorskip("argcomplete")
    for name in ("mine.npz", "run.toml", "report.json"):
        (tmp_path / name).touch()
    (tmp_path / "runs").mkdir()
    assert completions("rmtntk comp", tmp_path) == ["compress", "completion"]
    assert completions("rmtntk match --activations relu,leaky", tmp_path) == ["relu,leaky_relu"]
    assert completions("rmtntk kernel --kind n", tmp_path) == ["ntk"]
    assert set(completions("rmtntk kernel --data m", tmp_path)) == {"mnist5k", "mine.npz"}
    assert set(completions("rmtntk kernel --config ", tmp_path)) == {"run.toml", "runs/"}
    assert completions("rmtntk kernel --config run.toml --input-s", tmp_path) == ["--input-scaling"]


def test_completion_is_not_imported_unless_a_shell_asks():
    code = "import sys; from rmtntk.cli import main; main(['match', '--activations', 'relu'])\n"
    code += "print([name for name in sys.modules if name.split('.')[0] in ('argcomplete', 'tomllib')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=child_environment(), check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_code_for_a_shell(shell, tmp_path):
    pytest.importorskip("argcomplete")
    text = succeeded(run("completion", shell))
    assert {"bash": "complete -o", "zsh": "compdef", "fish": "complete --command rmtntk"}[shell] in text
    assert "rmtntk" in text
    if shell == "bash" and os.name == "posix":
        subprocess.run(["bash", "-n"], input=text, text=True, timeout=20, check=True)


def test_completion_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert_failed(run("completion", "bash"), 2, "'argcomplete'", 'pip install "rmtntk[completion]"')
    assert_failed(run("completion", "tcsh"), 2, "'tcsh'")


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
