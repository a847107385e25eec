"""The report of a small real run: whole files, a page that stands alone, honest numbers, aligned text."""

import ast
import json
import os
import re
import shlex
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rmtntk import cli, figures, report
from rmtntk._progress import Stages
from rmtntk.errors import MissingExtraError
from rmtntk.ternary import TernaryNetwork
from rmtntk.workflow import CompressionOptions, CompressionResult, describe_environment, run_compression

NAME = "<b>a & 'b'.npz"  # a file may be called so
FILES = ["model.npz", "report.html", "report.json"]
VOID = {"meta", "link", "br", "hr", "img", "input"}


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> CompressionResult:
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 40)
    x = rng.standard_normal((3, 20))[classes] + rng.standard_normal((120, 20))
    path = tmp_path_factory.mktemp("data") / NAME
    np.savez(path, x=x, labels=np.array(["<script>", "b & c", "d"])[classes])
    options = CompressionOptions(data=str(path), activations="relu,relu", widths=(64, 64), kernel_samples=80)
    return run_compression(options, Stages(None))


@pytest.fixture(scope="module")
def written(result, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    assert report.write(result, out) == [out / name for name in ("model.npz", "report.json", "report.html")]
    return out


@pytest.fixture(scope="module")
def page(written) -> str:
    return (written / "report.html").read_text("utf-8")


@pytest.fixture
def no_figures(monkeypatch):
    """For what is not about figures: they take most of the time."""
    for name in ("spectrum_figure", "activation_figure", "accuracy_figure"):
        monkeypatch.setattr(figures, name, lambda *_: "<svg></svg>")


class Page(HTMLParser):
    """Collects what a browser would load, the ids, the text, and tags left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.ids, self.references, self.tags, self.texts = [], [], [], Counter(), []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def strict(text: str) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# Files


def test_all_three_files_are_whole_and_nothing_else_is_left(written, result):
    assert sorted(os.listdir(written)) == FILES
    assert os.listdir(written.parent) == ["folder"]
    stored = strict((written / "report.json").read_text("utf-8"))
    assert stored["model_file_bytes"] == (written / "model.npz").stat().st_size
    assert stored["accuracy"] == result.report["accuracy"]
    assert stored["options"]["widths"] == [64, 64]
    assert stored["kernels"] == result.report["kernels"]
    assert TernaryNetwork.load(written / "model.npz").classes == ["<script>", "b & c", "d"]


def test_writing_again_replaces_the_files_with_the_same_bytes(written, result):
    before = [(written / name).read_bytes() for name in FILES[1:]]
    report.write(result, written)
    assert sorted(os.listdir(written)) == FILES
    assert [(written / name).read_bytes() for name in FILES[1:]] == before


@pytest.mark.usefixtures("no_figures")
def test_json_has_null_where_a_number_is_not_finite(result, tmp_path):
    odd = {**result.report, "odd": {"a": float("nan"), "b": [np.float64(np.inf), np.int64(3), (None, True)]}}
    report.write(replace(result, report=odd), tmp_path)
    stored = strict((tmp_path / "report.json").read_text("utf-8"))
    assert stored["odd"] == {"a": None, "b": [None, 3, [None, True]]}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("place", ["save", "page", "interrupt"])
def test_a_failure_leaves_no_file_behind(result, tmp_path, monkeypatch, existing, place):
    def fail(*_):
        raise KeyboardInterrupt if place == "interrupt" else OSError("disk full")

    if place == "page":
        monkeypatch.setattr(figures, "accuracy_figure", fail)
    else:
        monkeypatch.setattr(TernaryNetwork, "save", fail)
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "report.json").write_text("old")
    with pytest.raises(KeyboardInterrupt if place == "interrupt" else OSError):
        report.write(result, out)
    assert os.listdir(tmp_path) == (["out"] if existing else [])
    if existing:
        assert os.listdir(out) == ["report.json"]
        assert (out / "report.json").read_text() == "old"


def test_bad_places_are_refused_before_any_work(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "below", file / "far" / "below"):
        with pytest.raises(NotADirectoryError, match=r"`--out` must be a folder.*is a file"):
            report.check_output(out)
    (tmp_path / "model.npz").mkdir()
    with pytest.raises(IsADirectoryError, match="`--out` must not hold a folder"):
        report.check_output(tmp_path)
    report.check_output(tmp_path / "to" / "be" / "made")
    assert not (tmp_path / "to").exists()
    monkeypatch.setattr(os, "access", lambda *_: False)  # the user running the tests may write anywhere
    with pytest.raises(PermissionError, match="`--out` must be a folder you may write to"):
        report.check_output(tmp_path / "new")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch, result):
    monkeypatch.setitem(sys.modules, package, None)
    for call in (lambda: report.check_output(tmp_path), lambda: report.as_html(result.report, result.spectrum)):
        with pytest.raises(MissingExtraError, match=rf"The report needs the package '{package}'.*rmtntk\[plot\]"):
            call()


# The page


def test_page_stands_alone(page):
    found = Page(page)
    assert found.open == []
    assert not {"script", "link", "iframe", "img", "object"} & set(found.tags)
    assert found.tags["svg"] == 4
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in found.references)
    bare = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", page)
    assert "http" not in bare
    assert "@import" not in page
    assert "url(" not in page[: page.index("</style>")]


def test_ids_of_the_figures_do_not_collide(page):
    found = Page(page)
    assert max(Counter(found.ids).values()) == 1
    targets = {value.strip("'\"")[1:] for value in found.references if value.strip("'\"").startswith("#")}
    assert targets <= set(found.ids)


def test_page_holds_the_numbers(page, result):
    text, found = Page(page).text, result.report
    dense, weights, ternary = found["accuracy"][:3]
    assert len(found["accuracy"]) > 3
    for row in found["accuracy"]:
        assert f"{100 * row['test']:#.3g} %" in text
        assert f"{row['stored_bytes']:,}" in text
    assert f"{100 * found['kernels']['ternary_vs_dense']['off_diagonal']:.1f} %" in text
    for value in found["kernels"]["dense_vs_equivalent"].values():
        assert f"{value:#.3g}" in text
    for row in found["layers"]:
        assert f"{row['dense']['tau']:.4g}" in text
        assert f"{row['ternary']['tau']:.4g}" in text
    assert f"{found['match']['excess']:.4g}" in text
    assert f"{found['kernels']['ternary_vs_dense']['mean_diagonal_excess']:.4g}" in text
    for count in (*found["model"]["weight_bytes_by_packing"].values(), found["model_file_bytes"]):
        assert f"{count:,}" in text
    for value in (found["environment"]["numpy"], "kernel_samples", "fit ternary network", "Figure 3."):
        assert value in text
    changes = [100 * (row["test"] - dense["test"]) for row in (weights, ternary)]
    assert all(f"{change:+.1f} points".replace("-", "−") in text for change in changes)


@pytest.mark.usefixtures("no_figures")
def test_what_came_from_outside_is_escaped(page, result):
    assert "<b>a" not in page
    assert "&lt;b&gt;a &amp; " in page
    hostile = {**result.report, "data": {**result.report["data"], "name": "<script>alert(1)</script>"}}
    changed = report.as_html(hostile, result.spectrum)
    assert "<script" not in changed
    assert "&lt;script&gt;alert(1)" in changed


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("changes", [{}, {"alpha": 0.125, "label_column": "-1", "activations": "leaky_relu(0.1),tanh"}])
def test_the_printed_command_repeats_the_run(result, changes):
    options = {**result.report["options"], **changes}
    text = Page(report.as_html({**result.report, "options": options}, result.spectrum)).text
    line = re.search(r"rmtntk compress .*? --out \S+", text).group()
    args = cli._parser().parse_args(shlex.split(line)[1:])
    again = {name: getattr(args, name) for name in options}
    assert {**again, "widths": list(again["widths"])} == {**options, "widths": list(options["widths"])}


@pytest.mark.usefixtures("no_figures")
def test_a_loss_is_called_one(result):
    def verdict(dense: float, ternary: float, **changes) -> str:
        rows = [dict(row) for row in result.report["accuracy"]]
        rows[0]["test"], rows[2]["test"] = dense, ternary
        data = {**result.report["data"], "n_test": 1000}
        changed = {**result.report, "accuracy": rows, "data": data, **changes}
        return re.search(r'class="verdict">(.*?)</p>', report.as_html(changed, result.spectrum)).group(1)

    assert verdict(0.9, 0.8).endswith(
        "80.0 % of 1,000 test samples correctly, 10.0 points below the dense network’s 90.0 %."
    )
    assert "1.0 points above the dense network’s 90.0 % (a difference within two standard errors)" in verdict(0.9, 0.91)
    assert "just as many as the dense network’s 90.0 %." in verdict(0.9, 0.9)
    failed = {**result.report["match"], "feasible": False, "residual": 0.25}
    assert "differ by 0.25 (relative) from those of the dense network" in verdict(0.9, 0.8, match=failed)


def test_reports_with_gaps_are_shown(result):
    """An even network has α1 = 0; without a file there are only its packed bytes; eigenvalues may vanish."""
    layers = json.loads(json.dumps(result.report["layers"]))
    layers[-1]["dense"]["alpha"][0] = 1e-60
    changed = {**result.report, "layers": layers}
    del changed["model_file_bytes"]
    values = {name: np.concatenate([value[:-9], np.zeros(9)]) for name, value in result.spectrum.eigenvalues.items()}
    page = report.as_html(changed, replace(result.spectrum, eigenvalues=values))
    assert "(ternary − dense) / α3" in page
    assert "which is 0 here" not in page  # the measured excess is in the same unit as the predicted one
    assert "(36 in all kernels together) are drawn at the left edge" in page
    assert "model.npz</td>" not in page
    text = report.as_text(changed)
    assert "in units of α3: " in text
    assert "– measured" not in text
    assert "model.npz" not in text


# Figures


@pytest.mark.parametrize("depth", [1, 5])
def test_activation_figures_of_any_depth(result, depth):
    pairs = (report._pairs(result.report) * 3)[:depth]
    svg = figures.activation_figure(pairs)
    assert svg.startswith("<svg")
    assert svg.count('id="activations-axes_') == depth


def test_curves_are_centred_and_of_unit_variance(result):
    xi = np.linspace(-3.5, 3.5, 20001)
    mass = np.exp(-0.5 * xi**2) / np.sqrt(2.0 * np.pi) * (xi[1] - xi[0])
    for pair in report._pairs(result.report):
        for act, scale, tau in (pair[:3], pair[3:]):
            x, y = figures._curve(act, scale, tau)
            assert (x[0], x[-1]) == (-3.5, 3.5)
            assert (np.diff(x) > 0).all()
            values = np.interp(xi, x, y)
            # what lies beyond ±3.5: at most E[|v|; |ξ| > 3.5] < 0.003 and E[v²; |ξ| > 3.5] < 0.015 here
            assert abs(mass @ values) < 0.004
            assert abs(mass @ values**2 - 1.0) < 0.02


def test_optional_packages_are_imported_late_and_pyplot_never():
    for module in (figures, report):
        source = Path(module.__file__).read_text("utf-8")
        assert "pyplot" not in source
        nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in nodes for alias in node.names} | {getattr(node, "module", "") for node in nodes}
        assert not names & {"matplotlib", "matplotlib.figure", "jinja2", "markupsafe"}


# Text


def aligned(block: str, left: int = 1) -> None:
    """Every number of a table must end where the heading of its column ends."""
    lines = block.split("\n")
    ends = [match.end() for match in re.finditer(r"\S+(?: \S+)*", lines[0])][left:]
    for line in lines[1:]:
        found = [match.end() for match in re.finditer(r"\S+(?: \S+)*", line)]
        assert found[-len(ends) :] == ends, block


def test_text_tables_are_aligned_and_hold_the_numbers(result):
    text = report.as_text(result.report)
    head, coefficients, match, kernels, accuracy, sizes = text.split("\n\n")
    aligned(coefficients, left=2)
    for block in (kernels, accuracy, sizes):
        aligned(block)
    assert head.startswith(
        f"{NAME}: 96 training and 24 test samples, 20 features, 3 classes; relu → relu; widths 64, 64"
    )
    assert f"{result.report['match']['excess']:.4g} predicted" in match
    assert f"{result.report['kernels']['ternary_vs_dense']['off_diagonal']:#.3g}" in kernels
    assert len(coefficients.split("\n")) == 7
    assert all(len(line) <= 100 for block in (coefficients, kernels, accuracy, sizes) for line in block.split("\n"))


def test_verification_text():
    rows = [{"n": n, "ck − equivalent": 1.3 / n**0.5, "ternary ck − ck": 0.5 / n**0.5} for n in (256, 512, 1024)]
    slopes = {"ck − equivalent": -0.5, "ternary ck − ck": -0.1}
    outcome = {"activations": "relu", "rows": rows, "slopes": slopes, "slope_bound": -0.35}
    failed = report.verification_text({**outcome, "passed": False, "failed": ["ternary ck − ck"]})
    title, table, verdict = failed.split("\n\n")
    aligned(table)
    assert title.startswith("relu:")
    assert table.split("\n")[-1].split() == ["slope", "-0.50", "-0.10"]
    assert verdict.startswith("FAILED: ternary ck − ck: slope above -0.35")
    passed = report.verification_text({**outcome, "slopes": {"ck − equivalent": -0.5}, "passed": True, "failed": []})
    assert "\n\npassed: every difference" in passed
    assert "no ternary network was compared" in passed


def test_model_check_text():
    outcome = {
        "activations": ["sign"], "alpha_dense": [0.25, 0.1, 0.0], "alpha_stored": [0.25, 0.1, 0.0], "residual": 2e-16,
        "passed": True,
    }  # fmt: skip
    layers, table, verdict = report.model_check_text(outcome).split("\n\n")
    aligned(table)
    assert layers == "layer 1: sign"
    assert verdict == "passed: the coefficients agree, residual 2.0e-16"
    checked = report.model_check_text({**outcome, "passed": False, "n_samples": 1000, "off_diagonal": 0.0123})
    assert "kernels of 1,000 samples: ternary and dense differ by 0.0123 off the diagonal" in checked
    assert "FAILED" in checked


def test_fields_text():
    fields = {"a": 1234, "long name": {"x": 0.5, "y": [2000, 1000]}, "z": ["w" * 30, "v"], "none": None, "yes": True}
    assert report.fields_text(fields).split("\n") == [
        "a            1,234",
        "long name.x  0.5",
        "long name.y  2000, 1000",
        "z            " + "w" * 30,
        "             v",
        "none         –",
        "yes          yes",
    ]
    lines = report.fields_text({**describe_environment(), "activations": ["relu"] * 40}).split("\n")
    assert all(len(line) <= 110 for line in lines)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.0, 4, "0"),
        (0.25, 4, "0.2500"),
        (1.157e-15, 2, "1.2e-15"),
        (12345.6, 4, "12,346"),
        (100.0, 3, "100"),
        (7, 4, "7"),
        (float("nan"), 4, "–"),
        (None, 4, "–"),
    ],
)
def test_numbers(value, digits, shown):
    assert report.number(value, digits) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(740, "740 bytes"), (999, "999 bytes"), (724_311, "724 KB"), (999_900, "1.00 MB"), (30_272_000, "30.3 MB")],
)
def test_sizes(count, shown):
    assert report._size(count) == shown
