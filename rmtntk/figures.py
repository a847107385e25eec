"""The figures of the report, each returned as an SVG element that can stand inside an HTML page."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk.activations import Activation
from rmtntk.moments import moments
from rmtntk.workflow.compression import Spectrum

__all__ = ["LayerPair", "accuracy_figure", "activation_figure", "bytes_figure", "spectrum_figure", "spectrum_floor"]

# Okabe and Ito's palette, which stays apart under every common colour blindness; the dense network is grey.
COLOURS = {
    "dense": "#5b5b5b",
    "equivalent": "#0072b2",
    "second_order": "#009e73",
    "ternary": "#d55e00",
    "ternary weights": "#e69f00",
}
LABELS = {
    "dense": "dense, exact",
    "equivalent": "theorem",
    "second_order": "second order",
    "ternary": "ternary, exact",
}
_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",  # letters as outlines: the same picture whatever fonts the reader has
}
_REACH = 3.5  # activations are drawn over ± this many standard deviations of their argument
_LIMIT = 6.0  # and cut at ± this many standard deviations of their value
_LEADING = 12
_DYNAMIC_RANGE = 1e-4
_MOST_BOUNDARIES = 60


class LayerPair(NamedTuple):
    """One layer before and after: activation, standard deviations of argument and value, of either network."""

    dense: Activation
    dense_scale: float
    dense_tau: float
    ternary: Activation
    ternary_scale: float
    ternary_tau: float


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw(name: str, build: Any, *arguments: Any) -> str:
    """Build a figure and return its <svg> element: same input, same bytes; ids begin with `name`."""
    import matplotlib as mpl

    settings: Any = {**_STYLE, "svg.hashsalt": name}
    buffer = io.StringIO()
    with mpl.rc_context():  # whatever the reader's matplotlibrc says
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        build(*arguments).savefig(buffer, format="svg", dpi=200, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return re.sub(r'<svg ([^>]*?)width="[^"]*pt" height="[^"]*pt" ', r"<svg \1", svg, count=1)


def spectrum_figure(spectrum: Spectrum) -> str:
    """Eigenvalues of the dense network's CK and of its equivalents, and the leading eigenvectors (NTK-LC, fig. 2)."""
    return _draw("spectrum", _build_spectrum, spectrum)


def spectrum_floor(spectrum: Spectrum) -> tuple[float, int]:
    """Return the left edge of the eigenvalue axis, and how many eigenvalues drawn there are smaller."""
    shown = np.concatenate([spectrum.eigenvalues[name] for name in LABELS])
    floor = _DYNAMIC_RANGE * float(shown.max())
    below = int((shown < floor).sum())
    return (floor if below else float(shown.min())), below


def _build_spectrum(spectrum: Spectrum) -> Any:
    figure = _figure(11.0, 6.2)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.0, 1.25))
    left = grid[0].subgridspec(2, 1, height_ratios=(2.6, 1.0))
    _eigenvalues(figure.add_subplot(left[0]), figure.add_subplot(left[1]), spectrum)
    panels = grid[1].subgridspec(2, 2).subplots(sharex=True, sharey="row")
    for row, line in enumerate(panels):
        for axes, name in zip(line, ("equivalent", "ternary"), strict=True):
            _eigenvector(axes, spectrum, name, row)
        line[0].set_ylabel(f"eigenvector {row + 1}")
        values = np.concatenate([vectors[:, row] for vectors in spectrum.eigenvectors.values()])
        margin = 0.05 * float(np.ptp(values)) or 0.1
        line[0].set_ylim(float(values.min()) - margin, float(values.max()) + margin)
    for axes in panels[1]:
        axes.set_xlabel("sample, sorted by class")
    return figure


def _eigenvalues(axes: Any, strip: Any, spectrum: Spectrum) -> None:
    floor, _ = spectrum_floor(spectrum)
    top = max(float(values.max()) for values in spectrum.eigenvalues.values())
    edges = np.geomspace(floor * 0.97, max(top, floor * 1.1) * 1.12, 49)
    highest = 1
    for name in ("dense", "equivalent", "second_order"):
        counts = np.histogram(np.maximum(spectrum.eigenvalues[name], floor), edges)[0]
        highest = max(highest, int(counts.max()))
        drawn = np.maximum(counts, 0.5)  # a log axis has no place for 0
        if name == "dense":
            axes.stairs(drawn, edges, baseline=0.5, fill=True, color="#c9c9c9", label=LABELS[name])
        else:
            style = "-" if name == "equivalent" else (0, (4, 1.2))
            axes.stairs(drawn, edges, color=COLOURS[name], linewidth=1.4, linestyle=style, label=LABELS[name])
    _log_axis(axes, float(edges[0]), float(edges[-1]))
    axes.set(yscale="log", ylim=(0.7, 2.2 * highest))
    axes.set_ylabel("number of eigenvalues")
    axes.set_title("all eigenvalues")
    axes.legend(loc="upper right")
    count = min(_LEADING, len(spectrum.classes))
    for row, name in enumerate(LABELS):
        values = np.maximum(spectrum.eigenvalues[name][:count], floor)
        strip.plot(values, np.full(count, -row), "|", markersize=10, markeredgewidth=1.5, color=COLOURS[name])
    strip.set(ylim=(-len(LABELS) + 0.4, 0.6), xlabel="eigenvalue")
    low = min(float(spectrum.eigenvalues[name][:count].min()) for name in LABELS)
    _log_axis(strip, max(low, floor) * 0.93, max(top, floor * 1.1) * 1.07)
    strip.set_yticks(-np.arange(len(LABELS)), list(LABELS.values()))
    strip.tick_params(axis="y", length=0)
    strip.set_title(f"the {count} largest")


def _log_axis(axes: Any, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers, as many as have room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = np.log10(high / low)
    labels = (1.0,) if decades > 1.7 else (1.0, 2.0, 5.0) if decades > 0.7 else (1.0, 1.4, 2.0, 3.0, 4.0, 6.0)
    axes.set(xscale="log", xlim=(low, high))
    axes.xaxis.set_major_locator(LogLocator(subs=labels))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _eigenvector(axes: Any, spectrum: Spectrum, name: str, column: int) -> None:
    n = len(spectrum.classes)
    cuts = np.flatnonzero(np.diff(spectrum.classes)) + 1
    if len(cuts) <= _MOST_BOUNDARIES:
        for cut in cuts:
            axes.axvline(cut - 0.5, color="#dddddd", linewidth=0.7, zorder=0)
    starts, ends = np.array([0, *cuts]), np.array([*cuts, n])
    dots: dict[str, Any] = {
        "markersize": float(np.clip(60.0 / np.sqrt(n), 2.4, 5.0)),
        "markeredgewidth": 0,
        "alpha": 0.5,
    }
    for which in ("dense", name):
        values = spectrum.eigenvectors[which][:, column]
        axes.plot(np.arange(n), values, ".", color=COLOURS[which], rasterized=True, **dots)
    for which in ("dense", name):
        values = spectrum.eigenvectors[which][:, column]
        means = [float(values[a:b].mean()) for a, b in zip(starts, ends, strict=True)]
        if which == "dense":
            axes.hlines(means, starts - 0.5, ends - 0.5, color="#000000", linewidth=2.6, label=LABELS[which])
        else:
            axes.hlines(means, starts - 0.5, ends - 0.5, color=COLOURS[which], linewidth=1.3, label=LABELS[which])
    axes.set_xlim(-0.5, n - 0.5)
    axes.locator_params(nbins=5)
    cosine = abs(float(spectrum.eigenvectors["dense"][:, column] @ spectrum.eigenvectors[name][:, column]))
    axes.set_title(f"dense and {LABELS[name].partition(',')[0]}: cosine {cosine:.3f}")
    if not column:
        axes.legend(loc="best", handlelength=1.2)


def activation_figure(pairs: Sequence[LayerPair]) -> str:
    """The activations before and after, per layer, in units of their own argument's and value's deviations."""
    return _draw("activations", _build_activations, pairs)


def _build_activations(pairs: Sequence[LayerPair]) -> Any:
    columns = 4 if -(-len(pairs) // 4) < -(-len(pairs) // 3) else 3  # four abreast only where it saves a row
    rows = -(-len(pairs) // columns)
    figure = _figure(11.0, 0.6 + 2.6 * rows)
    curves = [(_curve(pair.dense, pair.dense_scale, pair.dense_tau),
               _curve(pair.ternary, pair.ternary_scale, pair.ternary_tau)) for pair in pairs]  # fmt: skip
    values = np.concatenate([y for pair in curves for _, y in pair])
    low, high = max(1.15 * float(values.min()), -_LIMIT), min(1.1 * float(values.max()), _LIMIT)
    for k, (pair, (dense, ternary)) in enumerate(zip(pairs, curves, strict=True)):
        axes = figure.add_subplot(rows, columns, k + 1)
        axes.axhline(0.0, color="#dddddd", linewidth=0.8, zorder=0)
        axes.axvline(0.0, color="#dddddd", linewidth=0.8, zorder=0)
        lines = [axes.plot(*dense, color=COLOURS["dense"], linewidth=1.8)[0],
                 axes.plot(*ternary, color=COLOURS["ternary"], linewidth=1.8)[0]]  # fmt: skip
        axes.set(xlim=(-_REACH, _REACH), ylim=(low, high), xticks=range(-3, 4))
        axes.set_title(f"layer {k + 1}: {_short(str(pair.dense))}")
        if k >= len(pairs) - columns:
            axes.set_xlabel("argument / its standard deviation")
        if k % columns == 0:
            axes.set_ylabel("centred value / τ")
    figure.legend(lines, ["dense activation", "matched step"], loc="outside upper left", ncols=2)
    return figure


def _curve(act: Activation, scale: float, tau: float) -> tuple[FloatArray, FloatArray]:
    """Argument in units of `scale`, and the centred value in units of `tau`; steps with upright flanks."""
    x = np.linspace(-_REACH, _REACH, 701)
    if act.is_step:
        inside = act.thresholds[np.abs(act.thresholds) < _REACH * scale] / scale
        x = np.sort(np.concatenate([[-_REACH, _REACH], np.nextafter(inside, -np.inf), np.nextafter(inside, np.inf)]))
    with np.errstate(over="ignore", invalid="ignore"):
        y = (act(x * scale) - moments(act, scale).mean) / tau
    return x, np.clip(np.nan_to_num(y), -2.0 * _LIMIT, 2.0 * _LIMIT)


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:23] + "…"


def accuracy_figure(rows: Sequence[Mapping[str, Any]], size_labels: Sequence[str]) -> str:
    """Accuracy and bytes of the weights of the networks that were fitted, as bars with their numbers."""
    return _draw("accuracy", _build_accuracy, rows, size_labels)


def _build_accuracy(rows: Sequence[Mapping[str, Any]], size_labels: Sequence[str]) -> Any:
    figure = _figure(11.0, 0.9 + 0.48 * len(rows))
    accuracy, size = figure.subplots(1, 2, sharey=True)
    places = -np.arange(len(rows))
    names = [str(row["network"]) for row in rows]
    colours = [COLOURS.get(name, "#999999") for name in names]
    test = 100.0 * np.array([float(row["test"]) for row in rows])
    train = 100.0 * np.array([float(row["train"]) for row in rows])
    accuracy.barh(places, test, height=0.62, color=colours)
    accuracy.plot(train, places, "d", markersize=6, color="white", markeredgecolor="#222222", label="training")
    for place, numbers in zip(places, zip(test, train, strict=True), strict=True):
        accuracy.text(104.0, place, "{:.1f} %  ({:.1f} %)".format(*numbers), va="center", color="#222222")
    accuracy.set(xlim=(0.0, 134.0), xticks=range(0, 101, 20), title="test accuracy, %  (◇ and in brackets: training)")
    accuracy.spines["bottom"].set_bounds(0.0, 100.0)
    accuracy.set_yticks(places, names)
    weights = np.array([float(row["stored_bytes"]) for row in rows])
    size.barh(places, weights, height=0.62, color=colours)
    for place, value, label in zip(places, weights, size_labels, strict=True):
        size.text(value + 0.012 * weights.max(), place, label, va="center", color="#222222")
    size.set(xlim=(0.0, 1.32 * weights.max()), title="bytes of the weights in a file", xticks=[])
    size.spines["bottom"].set_visible(False)
    for axes in (accuracy, size):
        axes.tick_params(axis="y", length=0)
    return figure


def bytes_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    """Test accuracy against stored bytes of the weights, one point a network."""
    return _draw("bytes", _build_bytes, rows)


def _build_bytes(rows: Sequence[Mapping[str, Any]]) -> Any:
    figure = _figure(11.0, 3.8)
    axes = figure.subplots()
    sizes = np.array([float(row["stored_bytes"]) for row in rows]) / 1e6
    test = 100.0 * np.array([float(row["test"]) for row in rows])
    order = np.argsort(test, kind="stable")
    heights = test.copy()
    gap = 0.055 * max(float(np.ptp(test)), 5.0)
    for place, k in enumerate(order):  # labels of near points one above the other
        near = [heights[m] for m in order[:place] if abs(np.log(sizes[k] / sizes[m])) < 1.0]
        heights[k] = max([heights[k], *(height + gap for height in near[-1:])])
    for row, x, y, height in zip(rows, sizes, test, heights, strict=True):
        name = str(row["network"])
        axes.plot(x, y, "o", markersize=8, color=COLOURS.get(name.partition(",")[0], "#56b4e9"))
        axes.annotate(f"{name}, {y:.1f} %", (x, y), (1.13 * x, height), va="center", color="#222222", fontsize=8.5)
    _log_axis(axes, 0.6 * float(sizes.min()), 4.5 * float(sizes.max()))
    margin = 0.12 * max(float(np.ptp(heights)), 5.0)
    axes.set(ylim=(float(test.min()) - margin, float(heights.max()) + margin))
    axes.set(xlabel="megabytes of the weights in a file", ylabel="test accuracy, %")
    axes.grid(visible=True, axis="y", color="#eeeeee")
    return figure
