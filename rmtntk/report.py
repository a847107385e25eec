"""What a run found, for people: text for the terminal, and a folder with model.npz, report.json and report.html."""

import importlib
import json
import math
import os
import shlex
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from rmtntk import activations as activation_module
from rmtntk import figures
from rmtntk._files import atomic_write
from rmtntk.errors import MissingExtraError
from rmtntk.workflow.compression import CompressionResult, Spectrum

__all__ = [
    "as_html",
    "as_text",
    "check_output",
    "fields_text",
    "model_check_text",
    "number",
    "table",
    "verification_text",
    "write",
]

_FILES = ("model.npz", "report.json", "report.html")
_NOTHING = "–"
_FORMS = {
    "none": "theorem",
    "diagonal": "theorem with the exact diagonal",
    "second_order": "second order",
}
_PACKINGS = {
    "float32": "four bytes a weight, the dense network's size",
    "memory": "two bit planes, rows padded to whole 64-bit words: what is held at run time",
    "2bit": "two bit planes",
    "trit": "five weights a byte",
    "bitmap": "one bit a weight, and a sign for each that is not zero",
    "entropy": "gaps and signs in an entropy code",
    "auto": "the smallest of these, layer by layer: what the file holds",
    "seed": "the key the weights are made from, and no weights",
    "bound": "Shannon bound: no lossless code of independent weights is shorter",
}


def check_output(out: Path) -> None:
    """Raise now what would make :func:`write` fail after minutes of work.

    Parameters
    ----------
    out : Path
        Folder the report shall go to; it need not exist yet.

    Raises
    ------
    MissingExtraError
        If matplotlib or jinja2 cannot be imported.
    OSError
        If `out` is a file, or cannot be created or written to.
    """
    _require_extra()
    anchor = _existing(out)
    if not anchor.is_dir():
        which = "is a file" if anchor == out else f"lies in {anchor}, which is a file"
        raise NotADirectoryError(f"`--out` must be a folder, new or existing, got {out}, which {which}")
    if not os.access(anchor, os.W_OK | os.X_OK):
        raise PermissionError(f"`--out` must be a folder you may write to, got {out}: {anchor} is not writable")
    for name in _FILES:
        if (out / name).is_dir():
            raise IsADirectoryError(f"`--out` must not hold a folder named like a result, got {out / name}")


def _require_extra() -> None:
    for package in ("matplotlib", "jinja2"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(package, "plot", "The report") from error


def _existing(path: Path) -> Path:
    """Return the path itself or the nearest of its parents that exists."""
    return next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))


def write(result: CompressionResult, out: Path) -> list[Path]:
    """Write model.npz, report.json and report.html into a folder; all three are finished before one appears.

    Parameters
    ----------
    result : CompressionResult
        What to write. Its report gains ``"model_file_bytes"``, the size of the model's file.
    out : Path
        The folder, created if need be; files of these names in it are replaced.

    Returns
    -------
    list of Path
        The three files. An error while they are made leaves the folder as it was.
    """
    check_output(out)
    with tempfile.TemporaryDirectory(dir=_existing(out), prefix=".rmtntk-") as folder:
        staging = Path(folder)
        result.report["model_file_bytes"] = result.model.save(staging / _FILES[0], result.report["options"]["packing"])
        text = to_json(result.report) + "\n"
        page = as_html(result.report, result.spectrum)
        for name, content in zip(_FILES[1:], (text, page), strict=True):
            with atomic_write(staging / name) as stream:
                stream.write(content.encode())
        out.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            os.replace(staging / name, out / name)
    return [out / name for name in _FILES]


def to_json(value: Any) -> str:
    """Return strict JSON: arrays as lists, and null where a number is NaN or infinite."""
    return json.dumps(_strict(value), indent=2, allow_nan=False, ensure_ascii=False)


def _strict(value: Any) -> Any:
    """Return the value in JSON's own types; NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, Mapping):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _strict(value.tolist())
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def number(value: Any, digits: int = 4) -> str:
    """Return a number with so many significant digits, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return _NOTHING
    if isinstance(value, int) or 999.5 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return "0" if value == 0.0 else f"{value:#.{digits}g}".rstrip(".")


def _percent(value: Any) -> str:
    return _NOTHING if value is None or not math.isfinite(value) else f"{number(100.0 * float(value), 3)} %"


def _size(count: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= 0.9995 * unit:
            return f"{number(count / unit, 3)} {name}"
    return f"{count:.0f} bytes"


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and readable values of a nested mapping; long entries of a list get a line each."""
    for key, value in fields.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            entries = [str(entry) if isinstance(entry, int) else _plain(entry) for entry in value]
            yield name, ("\n" if any(len(entry) > 24 for entry in entries) else ", ").join(entries)
        else:
            yield name, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return _NOTHING if value is None else "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {entry}" for key, entry in _flat(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(entry) for entry in value) + "]"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align columns: the first `left` to the left, the others, numbers, to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if k < left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_text(report: Mapping[str, Any]) -> str:
    """Return the summary of a compression for the terminal."""
    match, data = report["match"], report["data"]
    coefficients = [["layer", "network", "α1", "α2", "α3", "τ"]]
    for row in report["layers"]:
        for name in ("dense", "ternary"):
            numbers = [*_alphas(row[name]), row[name]["tau"]]
            label = str(row["layer"]) if name == "dense" else ""
            coefficients.append([label, name, *(number(value) for value in numbers)])
    kernels = [[f"kernels of {report['kernels']['n_samples']:,} samples, relative to operator norm", "difference"]]
    kernels += [[what, number(value, 3)] for what, value in _kernel_rows(report)]
    accuracy = [["network", "training", "test", "weights in a file", "of dense"]]
    for row in report["accuracy"]:
        share = row["stored_bytes"] / report["accuracy"][0]["stored_bytes"]
        accuracy.append(
            [row["network"], _percent(row["train"]), _percent(row["test"]), _size(row["stored_bytes"]), _percent(share)]
        )
    sizes = [["packing of the ternary weights", "size", "of dense"]]
    sizes += [[name, _size(count), _percent(share)] for name, _, count, share in _size_rows(report)]
    unit, measured = _excess_unit(report)
    return "\n\n".join(
        [
            f"{data['name']}: {data['n_train']:,} training and {data['n_test']:,} test samples, "
            f"{data['n_features']:,} features, {data['n_classes']:,} classes; {_network(report)}",
            table(coefficients, left=2),
            f"match ({match['method']}): residual {number(match['residual'], 2)}; excess of the diagonal in units of "
            f"{unit}: {number(match['excess'])} predicted, {number(measured)} measured",
            table(kernels),
            table(accuracy),
            table(sizes),
        ]
    )


def _alphas(side: Mapping[str, Any]) -> list[float]:
    """α1, α2, α3 of a layer, with 0 for what is rounding of a coefficient that vanishes by symmetry."""
    values = [float(value) for value in side["alpha"][:3]]
    return [value if value > 1e-13 * max(values) else 0.0 for value in values]


def _excess_unit(report: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return the coefficient the excess is counted in, as in ``Match.unit``, and the measured excess."""
    a1, a2, a3 = _alphas(report["layers"][-1]["dense"])
    unit = "α1" if a1 > 0.0 else "α2" if a2 >= a3 else "α3"
    return unit, report["kernels"]["ternary_vs_dense"]["mean_diagonal_excess"]


def _network(report: Mapping[str, Any]) -> str:
    names = " → ".join(row["dense"]["activation"] for row in report["layers"][1:])
    widths = ", ".join(f"{width}" for width in report["model"]["widths"])
    zeros = _percent(report["model"]["share_of_zeros"])
    return f"{names}; widths {widths}; {zeros} of the ternary weights are zero"


def _kernel_rows(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    kernels = report["kernels"]
    rows = [("ternary against dense, off the diagonal", kernels["ternary_vs_dense"]["off_diagonal"])]
    rows += [(f"dense against {_FORMS[name]}", value) for name, value in kernels["dense_vs_equivalent"].items()]
    return [*rows, ("sampled ternary network against its infinite width", kernels["finite_ternary_vs_infinite"])]


def _size_rows(report: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Name, meaning, bytes and share of float32 for every packing, what is in memory, and the file."""
    model = report["model"]
    packings = model["weight_bytes_by_packing"]
    rows = [(name, _PACKINGS.get(name, ""), count) for name, count in packings.items()]
    if report.get("model_file_bytes") is not None:
        note = "the file itself: weights, thresholds, levels, readout and preprocessing, compressed"
        rows.append(("model.npz", note, report["model_file_bytes"]))
    return [(name, note, count, count / packings["float32"]) for name, note, count in rows]


def verification_text(outcome: Mapping[str, Any]) -> str:
    """Return the outcome of ``rmtntk verify`` for the terminal."""
    names = list(outcome["slopes"])
    rows = [["n = p", *names]]
    rows += [[str(row["n"]), *(number(row.get(name), 3) for name in names)] for row in outcome["rows"]]
    rows.append(["slope", *(f"{outcome['slopes'][name]:.2f}" for name in names)])
    bound = f"{outcome['slope_bound']:.2f}"
    if outcome["passed"]:
        verdict = f"passed: every difference falls at least like n^{bound} (theory: n^-0.50)"
    else:
        verdict = f"FAILED: {', '.join(outcome['failed'])}: slope above {bound} (theory: -0.50)"
    if not any(name.startswith("ternary") for name in names):
        verdict += "\nno ternary network was compared: these activations have no match"
    title = f"{outcome['activations']}: differences relative to the operator norm"
    return "\n\n".join([title, table(rows), verdict])


def model_check_text(outcome: Mapping[str, Any]) -> str:
    """Return the outcome of ``rmtntk verify MODEL`` for the terminal."""
    rows = [["last layer", "α1", "α2", "α3"]]
    for name, key in (("dense network", "alpha_dense"), ("stored activations", "alpha_stored")):
        rows.append([name, *(number(value) for value in outcome[key])])
    layers = [f"layer {k}: {act}" for k, act in enumerate(outcome["activations"], start=1)]
    blocks = ["\n".join(layers), table(rows)]
    if "off_diagonal" in outcome:
        blocks.append(
            f"kernels of {outcome['n_samples']:,} samples: ternary and dense differ by "
            f"{number(outcome['off_diagonal'], 3)} off the diagonal (relative operator norm)"
        )
    verdict = "passed: the coefficients agree" if outcome["passed"] else "FAILED: the coefficients differ"
    return "\n\n".join([*blocks, f"{verdict}, residual {number(outcome['residual'], 2)}"])


def fields_text(fields: Mapping[str, Any]) -> str:
    """Return keys and values in two columns; nested keys are dotted."""
    rows = list(_flat(fields))
    width = max(len(key) for key, _ in rows)
    lines = []
    for key, value in rows:
        parts = [part for line in value.split("\n") for part in textwrap.wrap(line, 84) or [""]]
        lines.append(f"{key.ljust(width)}  {parts[0]}".rstrip())
        lines += [f"{' ' * width}  {part}" for part in parts[1:]]
    return "\n".join(lines)


def as_html(report: Mapping[str, Any], spectrum: Spectrum) -> str:
    """Return a page that needs no other file, no network and no script.

    Parameters
    ----------
    report : mapping
        ``CompressionResult.report``, with ``"model_file_bytes"`` if the model was written.
    spectrum : Spectrum
        ``CompressionResult.spectrum``.
    """
    _require_extra()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def marked(value: Any, digits: int = 4) -> Markup:
        mantissa, _, exponent = number(value, digits).partition("e")
        power = f"\u202f×\u202f10<sup>{int(exponent)}</sup>" if exponent else ""
        return Markup((mantissa + power).replace("-", "−"))

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=marked, percent=_percent, size=_size, alphas=_alphas)
    environment.filters.update(count="{:,}".format, points="{:+.1f}".format)
    template = resources.files("rmtntk").joinpath("templates", "report.html.j2").read_text("utf-8")
    floor, below = figures.spectrum_floor(spectrum)
    last = report["layers"][-1]["dense"]
    shift = last["tau"] ** 2 - report["data"]["tau0"] ** 2 * last["alpha"][0]  # c of the theorem's c I
    rows = report["accuracy"]
    ratios = [rows[0]["stored_bytes"] / row["stored_bytes"] for row in rows]
    sizes = [_size(row["stored_bytes"]) for row in rows]
    labels = [f"{size}  (1/{r:.1f} of dense)" if r > 1.0 else size for size, r in zip(sizes, ratios, strict=True)]
    return environment.from_string(template).render(
        report=report,
        network=_network(report),
        verdict=_verdict(report),
        standard_error=_standard_error(report, rows[0]["test"]),
        by_name={row["network"]: row for row in rows},
        forms=_FORMS,
        sizes=_size_rows(report),
        excess=_excess_unit(report),
        options=list(_flat(report["options"])),
        environment=list(_flat(report["environment"])),
        command=_command(report["options"]),
        spectrum_svg=Markup(figures.spectrum_figure(spectrum)),
        shift=shift,
        at_shift=int((np.abs(spectrum.eigenvalues["equivalent"] - shift) <= 0.01 * shift).sum()),
        floor=floor,
        below=below,
        activations_svg=Markup(figures.activation_figure(_pairs(report))),
        accuracy_svg=Markup(figures.accuracy_figure(rows, labels)),
        bytes_svg=Markup(figures.bytes_figure(rows)),
    )


def _standard_error(report: Mapping[str, Any], accuracy: float) -> float:
    return math.sqrt(accuracy * (1.0 - accuracy) / report["data"]["n_test"])


def _verdict(report: Mapping[str, Any]) -> str:
    """One sentence: size, kernels, accuracy; a loss is called one."""
    rows = {row["network"]: row for row in report["accuracy"]}
    dense, ternary, match = rows["dense"], rows["ternary"], report["match"]
    size = report.get("model_file_bytes") or ternary["weight_bytes"]
    kernel = "equal" if match["feasible"] else f"differ by {number(match['residual'], 2)} (relative) from"
    apart = _percent(report["kernels"]["ternary_vs_dense"]["off_diagonal"])
    lost = 100.0 * (dense["test"] - ternary["test"])
    ending = f"{abs(lost):.1f} points {'below' if lost > 0 else 'above'}" if lost else "just as many as"
    doubt = 200.0 * math.hypot(_standard_error(report, dense["test"]), _standard_error(report, ternary["test"]))
    remark = " (a difference within two standard errors)" if 0.0 < abs(lost) <= doubt else ""
    return (
        f"The ternary network fits in {_size(size)} where the dense weights take {_size(dense['weight_bytes'])}; the "
        f"coefficients of its kernel {kernel} those of the dense network, the kernels themselves differ by {apart} "
        f"off the diagonal on this data, and it labels {_percent(ternary['test'])} of {report['data']['n_test']:,} "
        f"test samples correctly, {ending} the dense network’s {_percent(dense['test'])}{remark}."
    )


def _command(options: Mapping[str, Any]) -> str:
    """Return the command line that repeats the run, for a POSIX shell."""
    words = ["rmtntk", "compress"]
    for key, value in options.items():
        if value is not None:
            text = ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else str(value)
            flag = "--" + key.replace("_", "-")
            words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    return shlex.join([*words, "--out", "rerun"])


def _pairs(report: Mapping[str, Any]) -> list[figures.LayerPair]:
    layers = report["layers"]
    pairs = []
    for k, act in enumerate(activation_module.parse(report["options"]["activations"]), start=1):
        step = activation_module.step(layers[k]["ternary"]["thresholds"], layers[k]["ternary"]["levels"])
        scales = [layers[j][name]["tau"] for name in ("dense", "ternary") for j in (k - 1, k)]
        pairs.append(figures.LayerPair(act, scales[0], scales[1], step, scales[2], scales[3]))
    return pairs
