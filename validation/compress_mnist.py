"""Accuracy against stored bytes: ternary networks, the dense network, and the heuristics people use instead.

Random features with a readout on 5,000 MNIST digits (4,000 to train, 1,000 to test), every network with the same
preprocessing and penalty by generalised cross-validation. Each row of the grid is a network, a width, a sparsity, a
method and a seed (which sets the split and the weights). Finished rows are kept in compress_mnist.jsonl: a second
call goes on where the first stopped.

Methods: dense (Gaussian float32 weights, the network's own activations), weights (ternary weights, own activations),
matched steps (tight, layerwise, data and the published algorithm; a number is the number of levels), and heuristics
(naive_quantised: ternary weights with 1{|t| > 1}; naive_sparse: 80 % of Gaussian weights dropped at random; magnitude:
the smallest 80 % dropped). Bytes are those of the file with everything in it: for ternary networks what `save` writes
with an 8-bit readout, for others float32 values, a compressed bitmap where weights are missing, and a float32 readout.
"""

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from numpy.typing import NDArray

import rmtntk as rn
from rmtntk.data import Dataset, Scaling, load, train_test_split
from rmtntk.packing import pack, sample_ternary
from rmtntk.readout import fit_ridge

Array = NDArray[Any]
NETS = {"relu1": ["relu"], "relu2": ["relu"] * 2, "relu3": ["relu"] * 3, "tanh3": ["tanh"] * 3}
STEPS = {
    "tight": ("tight", 3), "tight4": ("tight", 4), "tight8": ("tight", 8), "layerwise": ("layerwise", 3),
    "data": ("data", 3), "data4": ("data", 4), "data8": ("data", 8), "paper": ("paper", 3),
}  # fmt: skip
HEURISTICS = ("naive_quantised", "naive_sparse", "magnitude")
METHODS = ("dense", "weights", *STEPS, *HEURISTICS)
TERNARY = ("weights", *STEPS, "naive_quantised")
LABELS = {
    "dense": "dense float32",
    "weights": "ternary weights, own activations",
    "tight": "tight, 3 levels",
    "tight4": "tight, 4 levels",
    "tight8": "tight, 8 levels",
    "layerwise": "layerwise, 3 levels",
    "data": "data, 3 levels",
    "data4": "data, 4 levels",
    "data8": "data, 8 levels",
    "paper": "published algorithm",
    "naive_quantised": "ternary weights, 1{|t| > 1}",
    "naive_sparse": "80 % dropped at random",
    "magnitude": "smallest 80 % dropped",
}
BUDGETS = (0.1e6, 0.2e6, 0.5e6, 1e6, 2e6, 5e6, 10e6)


class Cell(NamedTuple):
    """One row of the grid."""

    net: str
    width: int
    sparsity: float
    method: str
    seed: int

    @property
    def key(self) -> str:
        """Name under which the result is kept."""
        return f"{self.net}/{self.width}/{self.sparsity:g}/{self.method}/{self.seed}"


class Problem(NamedTuple):
    """A split in the units of the theory."""

    x: Array
    labels: Array
    x_test: Array
    labels_test: Array


def mixture(seed: int) -> Dataset:
    """Draw a mixture of four classes that differ in means and covariances, p = 400."""
    p, generator = 400, np.random.default_rng((seed, 1))  # another stream than the weights', or rows are means
    means = 2.5 * generator.standard_normal((4, p)) / np.sqrt(p) * np.sqrt(2.0)
    covariances = np.array([1.0, 1.0, 1.2, 1.2])
    x, labels = rn.GaussianMixture(means, covariances, np.full(4, 0.25)).sample(5000, generator)
    return Dataset("mixture", x, np.asarray(labels))


def problem(data: Dataset, seed: int) -> Problem:
    """Split and scale."""
    train, test = train_test_split(data, 0.2, seed)
    scaling = Scaling.fit(train.x)
    return Problem(scaling.transform(train.x), train.labels, scaling.transform(test.x), test.labels)


def score(features: Array, test: Array, case: Problem) -> tuple[float, float]:
    """Accuracy on the training and the test part of a ridge readout."""
    names, index = np.unique(case.labels, return_inverse=True)
    ridge = fit_ridge(features, np.eye(len(names))[index])

    def accuracy(values: Array, truth: Array) -> float:
        return float((names[(values @ ridge.coefficients + ridge.intercept).argmax(axis=1)] == truth).mean())

    return accuracy(features, case.labels), accuracy(test, case.labels_test)


def sparse_bytes(weights: list[Array], readout: int) -> int:
    """Bytes of float32 values, a deflated bitmap of where they are, and a readout of so many numbers."""
    total = 4 * readout
    for w in weights:
        mask = w != 0.0
        total += 4 * int(mask.sum())
        total += 0 if mask.all() else len(zlib.compress(np.packbits(mask).tobytes(), 9))
    return total


def gaussian(cell: Cell, net: rn.Network, case: Problem) -> dict[str, float]:
    """The dense network and what is left of it after dropping weights."""
    depth = net.depth
    network = rn.FiniteNetwork.sample(net, (cell.width,) * depth, case.x.shape[1], cell.seed, dtype=np.float32)
    kept = []
    for k, w in enumerate(network.weights):
        if cell.method == "dense":
            kept.append(w)
            continue
        if cell.method == "magnitude":
            mask = np.abs(w) > np.quantile(np.abs(w), 0.8)
        else:
            mask = np.random.default_rng((cell.seed, k)).random(w.shape) >= 0.8
        masked = np.where(mask, w, 0.0)
        kept.append((masked / np.sqrt((masked**2).mean())).astype(np.float32))
    network = rn.FiniteNetwork(network.net, tuple(kept), network.biases, network.readout)
    train, test = score(network.features(case.x), network.features(case.x_test), case)
    classes = len(np.unique(case.labels))
    return {"train": train, "test": test, "bytes": sparse_bytes(kept, (cell.width + 1) * classes)}


def ternary(cell: Cell, net: rn.Network, case: Problem) -> dict[str, float]:
    """Ternary weights with the network's own, matched, or naive activations."""
    widths = (cell.width,) * net.depth
    options: dict[str, Any] = {"widths": widths, "sparsity": cell.sparsity, "rng": cell.seed}
    if cell.method == "weights":
        model = rn.compress(net, case.x, activations="dense", **options)
    elif cell.method == "naive_quantised":
        generator = np.random.default_rng(cell.seed)
        sizes = zip(widths, (case.x.shape[1], *widths[:-1]), strict=True)
        packed = [pack(sample_ternary(rows, columns, cell.sparsity, generator)) for rows, columns in sizes]
        tau0 = float(np.sqrt((case.x**2).sum() / len(case.x)))
        steps, tau = [], tau0
        for _ in widths:  # 1{|t| > 1} of arguments of unit variance
            steps.append(rn.activations.step([-tau, tau], [1.0, 0.0, 1.0]))
            tau = float(rn.coefficients(rn.Network(steps), tau0).tau[-1])
        dense = net.with_tau0(tau0)
        model = rn.TernaryNetwork(dense, dense.with_activations(tuple(steps)), packed, cell.sparsity)
    else:
        method, levels = STEPS[cell.method]
        model = rn.compress(net, case.x, method=method, levels=None if method == "paper" else levels, **options)
    model.fit(case.x, case.labels, bits=8)
    train, test = model.score(case.x, case.labels), model.score(case.x_test, case.labels_test)
    with tempfile.TemporaryDirectory() as folder:
        size = model.save(Path(folder) / "model.npz")
    result = {"train": train, "test": test, "bytes": size}
    if model.match is not None:
        result |= {"residual": model.match.residual, "excess": model.match.excess}
    return result


def grid(args: argparse.Namespace) -> Iterator[Cell]:
    """All cells, cheap ones first."""
    widths = args.widths or ([250, 500] if args.quick else [250, 500, 1000, 2000, 3000, 4000, 8000])
    nets = args.nets or (["relu1", "relu3"] if args.quick else list(NETS))
    sparsities = args.sparsity or ([0.9] if args.quick else [0.0, 0.5, 0.9])
    methods = args.methods or (["dense", "weights", "tight", "paper", "naive_quantised"] if args.quick else METHODS)
    for width in sorted(widths):
        for seed in range(args.seed, args.seed + args.seeds):
            for net in nets:
                for method in methods:
                    # Gaussian weights have no sparsity of their own; they are done once.
                    for sparsity in sparsities if method in TERNARY else [0.0]:
                        yield Cell(net, width, sparsity, method, seed)


def small_dense(args: argparse.Namespace) -> Iterator[Cell]:
    """Dense networks small enough for the lower budgets."""
    if not args.quick and not args.methods:
        for seed in range(args.seed, args.seed + args.seeds):
            for net in args.nets or list(NETS):
                for width in (30, 60, 125):
                    for method in ("dense", *HEURISTICS):
                        yield Cell(net, width, 0.9 if method in TERNARY else 0.0, method, seed)


def run(cells: list[Cell], data: Callable[[int], Dataset], path: Path) -> dict[str, dict[str, float]]:
    """Compute what is missing in the file and return everything asked for."""
    done: dict[str, dict[str, float]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            done[entry.pop("key")] = entry
    problems: dict[int, Problem] = {}
    start, todo = time.perf_counter(), [cell for cell in cells if cell.key not in done]
    for count, cell in enumerate(todo):
        if cell.seed not in problems:
            problems[cell.seed] = problem(data(cell.seed), cell.seed)
        net = rn.Network(NETS[cell.net])
        began = time.perf_counter()
        try:
            measure = ternary if cell.method in TERNARY else gaussian
            result = measure(cell, net, problems[cell.seed])
        except rn.InfeasibleError as error:
            result = {"infeasible": str(error)}  # type: ignore[dict-item]  # kept, so that it is not tried again
        result["seconds"] = round(time.perf_counter() - began, 2)
        done[cell.key] = result
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": cell.key, **result}) + "\n")
        spent = time.perf_counter() - start
        left = spent / (count + 1) * (len(todo) - count - 1)
        accuracy = f"{result['test']:.3f}" if "test" in result else "infeasible"
        clock = f"{spent:6.0f} s, about {left:.0f} s to go"
        print(f"  {count + 1}/{len(todo)} {cell.key:36} {accuracy}  {clock}", flush=True)
    return {cell.key: done[cell.key] for cell in cells}


def finished(path: Path) -> list[Cell]:
    """Return the rows that are in the file."""
    if not path.exists():
        raise SystemExit(f"{path} does not exist: run the grid, or a part of it, first")
    keys = [json.loads(line)["key"].split("/") for line in path.read_text(encoding="utf-8").splitlines()]
    return [Cell(net, int(width), float(zeros), method, int(seed)) for net, width, zeros, method, seed in keys]


class Summary(NamedTuple):
    """Mean and standard deviation over seeds."""

    net: str
    width: int
    sparsity: float
    method: str
    mean: float
    std: float
    size: float
    seeds: int


def summarise(cells: list[Cell], results: dict[str, dict[str, float]]) -> list[Summary]:
    """Average over seeds."""
    groups: dict[tuple[str, int, float, str], list[dict[str, float]]] = {}
    for cell in cells:
        if "test" in results[cell.key]:
            groups.setdefault((cell.net, cell.width, cell.sparsity, cell.method), []).append(results[cell.key])
    rows = []
    for (net, width, sparsity, method), entries in groups.items():
        values = [entry["test"] for entry in entries]
        rows.append(
            Summary(
                net, width, sparsity, method, float(np.mean(values)), float(np.std(values)),
                float(np.mean([entry["bytes"] for entry in entries])), len(entries),
            )
        )  # fmt: skip
    return rows


def table(rows: list[Summary]) -> str:
    """One line a network, width and sparsity, one column a method; per cent, standard deviation behind ±."""
    methods = [method for method in METHODS if any(row.method == method for row in rows)]
    lines = [f"{'network':8}{'width':>6}{'zeros':>6}" + "".join(f"{method:>16}" for method in methods)]
    by = {(row.net, row.width, row.sparsity, row.method): row for row in rows}
    for net, width in sorted({(row.net, row.width) for row in rows}):
        for sparsity in sorted({row.sparsity for row in rows if (row.net, row.width) == (net, width)}):
            entries = []
            for method in methods:
                row = by.get((net, width, sparsity if method in TERNARY else 0.0, method))
                entries.append(f"{'–':>16}" if row is None else f"{100 * row.mean:10.1f} ±{100 * row.std:4.1f}")
            lines.append(f"{net:8}{width:6}{sparsity:6.1f}" + "".join(entries))
    return "\n".join(lines)


def budgets(rows: list[Summary]) -> list[dict[str, Any]]:
    """Best accuracy within each byte budget: of dense nets, of heuristics, of ternary ones (8-bit readouts)."""
    families = {
        "dense": ("dense",),
        "heuristics": HEURISTICS,
        "ternary": ("weights", *STEPS),
        "ternary activations": tuple(STEPS),
    }
    out = []
    for budget in BUDGETS:
        entry: dict[str, Any] = {"budget": budget}
        for name, methods in families.items():
            fits = [row for row in rows if row.method in methods and row.size <= budget]
            best = max(fits, key=lambda row: row.mean, default=None)
            entry[name] = None if best is None else best._asdict()
        out.append(entry)
    return out


def budget_text(entries: list[dict[str, Any]]) -> str:
    """Print the budgets."""
    lines = ["", "Best within a budget of stored bytes (test accuracy, per cent)"]
    for entry in entries:
        parts = []
        for name in ("dense", "heuristics", "ternary", "ternary activations"):
            best = entry[name]
            parts.append(f"{name}: –" if best is None else f"{name}: {_winner(best)}")
        lines.append(f"  {entry['budget'] / 1e6:5.1f} MB  " + ";  ".join(parts))
    return "\n".join(lines)


def _winner(best: dict[str, Any]) -> str:
    return f"{100 * best['mean']:.1f} ({best['method']} {best['net']} {best['width']})"


def draw(rows: list[Summary]) -> Figure:
    """Accuracy against bytes: one panel a network."""
    nets = [net for net in NETS if any(row.net == net for row in rows)]
    figure = Figure(figsize=(3.6 * len(nets), 4.4), layout="constrained")
    axes = figure.subplots(1, len(nets), sharey=True, squeeze=False)[0]
    styles = {"dense": "k.-", "weights": "C2^-", "tight": "C0o-", "layerwise": "C4v-", "data": "C9o--", "data4": "C1s-",
              "data8": "C3D-", "tight4": "C1s:", "tight8": "C3D:", "paper": "C5x-", "naive_quantised": "C7+:",
              "naive_sparse": "C7x:", "magnitude": "C7.:"}  # fmt: skip
    for axis, net in zip(axes, nets, strict=True):
        for method in METHODS:
            mine = [row for row in rows if row.net == net and row.method == method]
            if not mine:
                continue
            best = max({row.sparsity for row in mine})
            mine = sorted((row for row in mine if row.sparsity == best), key=lambda row: row.size)
            values = [100 * row.mean for row in mine]
            spread = [100 * row.std for row in mine]
            sizes = [row.size / 1e6 for row in mine]
            axis.errorbar(sizes, values, spread, fmt=styles[method], ms=4, lw=1.2, capsize=2, label=LABELS[method])
        axis.set_xscale("log")
        axis.set_xlabel("stored megabytes")
        axis.set_title(f"{net[:-1]} × {net[-1]}", fontsize=10)
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("test accuracy, %")
    axes[0].set_ylim(bottom=55)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def main() -> None:
    """Measure, print, write JSON and the figure."""
    options = parser(__doc__ or "")
    options.add_argument("--data", default="mnist5k", help="mnist5k, mixture, or a file or folder rmtntk.data reads")
    options.add_argument("--seeds", type=int, default=0, help="number of seeds (default 5, quick 1)")
    options.add_argument("--widths", type=int, nargs="+")
    options.add_argument("--nets", nargs="+", choices=list(NETS))
    options.add_argument("--sparsity", type=float, nargs="+")
    options.add_argument("--methods", nargs="+", choices=METHODS)
    options.add_argument("--finished", action="store_true", help="report the rows finished by earlier runs, run none")
    args = options.parse_args()
    args.seeds = args.seeds or (1 if args.quick else 5)
    args.out.mkdir(parents=True, exist_ok=True)
    fixed = None if args.data == "mixture" else load(args.data)
    name = "compress_mnist" if args.data == "mnist5k" else f"compress_{Path(args.data).stem}"
    path = args.out / f"{name}.jsonl"
    cells = finished(path) if args.finished else [*small_dense(args), *grid(args)]
    results = run(cells, mixture if fixed is None else lambda _: fixed, path)
    rows = summarise(cells, results)
    print(table(rows))
    best = budgets(rows)
    print(budget_text(best))
    draw(rows).savefig(args.out / f"{name}.png", dpi=110)
    content = {"rows": [row._asdict() for row in rows], "budgets": best}
    print(f"written: {args.out / f'{name}.png'}, {save(args.out, name, args, content)}")


if __name__ == "__main__":
    main()
