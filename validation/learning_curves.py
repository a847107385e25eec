"""Learning curves from the theory against trained kernels: ridge regression and gradient flow on Gaussian mixtures.

Three columns a quantity: the prediction, regression with the exact kernel on samples, and regression with the sampled
equivalent K̃, which tells the limit of the resolvents apart from the difference between K and K̃. Means over draws with
their standard errors; samples are stratified.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from numpy.typing import NDArray

import rmtntk as rn
from rmtntk.learning import gradient_flow, kernel_flow, learning_curve

Array = NDArray[np.float64]
NOISE = 0.3
RIDGES = np.array([1e-3, 0.1, 1.0, 10.0])  # times c1
COLOURS = {"means": "#0072B2", "mixed": "#D55E00", "covariances": "#009E73", "three classes": "#CC79A7"}


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    activations: tuple[str, ...]
    mixture: str
    kind: Literal["ck", "ntk"]
    n: int
    p: int

    @property
    def name(self) -> str:
        """Network, kernel, mixture and sizes."""
        depth = len(self.activations)
        net = self.activations[0] if depth == 1 else f"{self.activations[0]}×{depth}"
        return f"{net} {self.kind.upper()}, {self.mixture}, n = {self.n}, p = {self.p}"


def mixture_of(name: str, p: int) -> rn.GaussianMixture:
    """Two classes that differ in means, in covariances or in both; or three that differ in both."""
    classes = 3 if name == "three classes" else 2
    means, covariances = np.zeros((classes, p)), np.ones((classes, p))
    if name in ("means", "mixed"):
        means[:2, 0] = 2.0, -2.0
    if name in ("covariances", "mixed"):
        covariances[0] += 1.0 / np.sqrt(p)
        covariances[1] = np.where(np.arange(p) % 2 == 0, 0.4, 1.6) - 1.0 / np.sqrt(p)
    if name == "three classes":
        means[0, 0], means[1, 1] = 2.5, -2.5
        covariances[2] = np.where(np.arange(p) % 2 == 0, 0.5, 1.5)
        return rn.GaussianMixture(means, covariances, [0.3, 0.3, 0.4])
    return rn.GaussianMixture(means, covariances, [0.4, 0.6])


def figures_of_merit(scores: Array, test_y: Array, labels: Array, targets: Array) -> tuple[float, float]:
    """Test error and accuracy of scores (n_test, m)."""
    nearest = ((scores[:, None, :] - targets) ** 2).sum(axis=2).argmin(axis=1)
    return float(((scores - test_y) ** 2).sum(axis=1).mean()), float((nearest == labels).mean())


def one_draw(case: Case, targets: Array, ridges: Array, times: Array, rng: Any, surrogate: bool) -> tuple[Array, Array]:
    """Train and test error and accuracy over ridges and over times, by eigendecomposition of the kernel."""
    mixture = mixture_of(case.mixture, case.p)
    net = rn.Network(list(case.activations), tau0=mixture.tau0)
    x, labels = mixture.sample(case.n, rng, stratified=True)
    test, test_labels = mixture.sample(4000, rng, stratified=True)
    y = targets[labels] + NOISE * rng.standard_normal((case.n, targets.shape[1]))
    if surrogate:
        both = rn.equivalent(
            net, np.vstack([x, test]), np.concatenate([labels, test_labels]), kind=case.kind, mixture=mixture
        )
        factor, rows = both.factor @ both.core, both.rows
        c1, shift = both.coefficients.linear(case.kind)[0], both.coefficients.shift(case.kind)
        kernel = c1 * x @ x.T + factor[: case.n] @ both.factor[: case.n].T
        kernel = 0.5 * (kernel + kernel.T) + shift * np.eye(case.n)
        cross = c1 * rows[case.n :] @ x.T + factor[case.n :] @ both.factor[: case.n].T
    else:
        function = rn.ck if case.kind == "ck" else rn.ntk
        kernel, cross = function(net, x), function(net, test, x)
    values, vectors = np.linalg.eigh(kernel)
    turned, turned_cross = vectors.T @ y, cross @ vectors
    over_ridge = []
    for ridge in ridges:
        dual = turned / (values + ridge)[:, None]
        train = float((ridge * dual**2 * ridge).sum() / case.n)
        over_ridge.append((train, *figures_of_merit(turned_cross @ dual, targets[test_labels], test_labels, targets)))
    over_time = []
    if len(times):
        flow = kernel_flow(kernel, y, times, cross=cross)
        assert flow.test is not None
        for loss, scores in zip(flow.train_error, flow.test, strict=True):
            over_time.append((float(loss), *figures_of_merit(scores, targets[test_labels], test_labels, targets)))
    return np.array(over_ridge), np.array(over_time)


def measure(case: Case, draws: int, seed: int, times: Array, ridges: Array = RIDGES) -> dict[str, Any]:
    """Theory, exact kernel and sampled equivalent."""
    mixture = mixture_of(case.mixture, case.p)
    net = rn.Network(list(case.activations))
    c1 = rn.coefficients(net, mixture.tau0).linear(case.kind)[0]
    absolute = ridges * c1
    curve = learning_curve(net, mixture, case.n, kind=case.kind, ridge=absolute, noise_std=NOISE)
    row: dict[str, Any] = {
        "case": case.name,
        "parameters": case,
        "ridges_over_c1": ridges,
        "theory": np.stack([curve.train_error[0], curve.test_error[0], curve.accuracy[0]], axis=1),
        "times": times,
    }
    if len(times):
        flow = gradient_flow(net, mixture, case.n, times, kind=case.kind, noise_std=NOISE)
        row["flow_theory"] = np.stack([flow.train_error, flow.test_error, flow.accuracy], axis=1)
        row["flow_error"] = flow.error
    for name, surrogate in (("exact", False), ("equivalent", True)):
        found = [
            one_draw(case, curve.targets, absolute, times, np.random.default_rng([seed, k]), surrogate)
            for k in range(draws)
        ]
        for part, label in ((0, name), (1, f"flow_{name}")):
            if part and not len(times):
                continue
            stack = np.stack([item[part] for item in found])
            row[label] = stack.mean(axis=0)
            row[f"{label}_se"] = stack.std(axis=0, ddof=1) / np.sqrt(draws)
    return row


def deviation(row: dict[str, Any], name: str, prefix: str = "") -> tuple[float, float, float, float]:
    """Largest relative deviations of train and test error, of accuracy in points, and the test error's s.e."""
    theory, found = row[f"{prefix}theory"], row[f"{prefix}{name}"]
    error = row[f"{prefix}{name}_se"]
    seen = theory[:, 0] > 1e-3 * theory[:, 0].max()
    train = float(np.abs(found[seen, 0] / theory[seen, 0] - 1.0).max())
    relative = np.abs(found[:, 1] / theory[:, 1] - 1.0)
    worst = int(relative.argmax())
    points = float(100.0 * np.abs(found[:, 2] - theory[:, 2]).max())
    return train, float(relative[worst]), points, float(error[worst, 1] / theory[worst, 1])


def predictions(row: dict[str, Any]) -> dict[str, Array]:
    """Smooth lines of the theory for the figure, over ridges and times."""
    case, mixture = row["parameters"], mixture_of(row["parameters"].mixture, row["parameters"].p)
    net = rn.Network(list(case.activations))
    c1 = rn.coefficients(net, mixture.tau0).linear(case.kind)[0]
    ridges, times = np.geomspace(RIDGES[0], RIDGES[-1], 80), np.geomspace(0.1, 100.0, 80)
    curve = learning_curve(net, mixture, case.n, kind=case.kind, ridge=ridges * c1, noise_std=NOISE)
    flow = gradient_flow(net, mixture, case.n, times, kind=case.kind, noise_std=NOISE)
    return {
        "ridges": ridges,
        "ridge_train": curve.train_error[0],
        "ridge_test": curve.test_error[0],
        "times": times,
        "time_train": flow.train_error,
        "time_test": flow.test_error,
    }


def draw(curves: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]], p: int) -> Figure:
    """Errors and accuracy over n, over the ridge and over time: lines are predictions, points are simulations."""
    figure = Figure(figsize=(13.0, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    net = rn.Network(["relu"] * 3)
    for name, points in curves.items():
        sizes = [row["parameters"].n for row in points]
        mixture = mixture_of(name, p)
        grid = np.unique(np.geomspace(sizes[0], sizes[-1], 60).astype(int)).tolist()
        ridge = 0.1 * rn.coefficients(net, mixture.tau0).linear("ntk")[0]
        curve = learning_curve(net, mixture, grid, ridge=ridge, noise_std=NOISE)
        for axis, column, line in ((axes[0, 0], 1, curve.test_error), (axes[1, 0], 2, curve.accuracy)):
            axis.plot(p / np.array(grid), line[:, 0], color=COLOURS[name], label=name)
            found = np.stack([row["exact"][0] for row in points])[:, column]
            spread = np.stack([row["exact_se"][0] for row in points])[:, column]
            axis.errorbar(p / np.array(sizes), found, spread, fmt="o", color=COLOURS[name], markersize=4)
    for row in rows:
        name = row["parameters"].mixture
        lines = predictions(row)
        for axis, column, part in ((axes[0, 1], 1, "test"), (axes[1, 1], 0, "train")):
            axis.plot(lines["ridges"], lines[f"ridge_{part}"], color=COLOURS[name], label=name)
            axis.plot(row["ridges_over_c1"], row["exact"][:, column], "o", color=COLOURS[name], markersize=4)
        for axis, column, part in ((axes[0, 2], 1, "test"), (axes[1, 2], 0, "train")):
            shown = lines[f"time_{part}"] > 1e-7  # above the error of the contour
            axis.plot(lines["times"][shown], lines[f"time_{part}"][shown], color=COLOURS[name], label=name)
            seen = row["flow_exact"][:, column] > 1e-7
            axis.plot(row["times"][seen], row["flow_exact"][seen, column], "o", color=COLOURS[name], markersize=4)
    titles = (f"p = {p}, ridge = 0.1 c1", f"n = {rows[0]['parameters'].n}, ridge regression", "gradient flow")
    for column, (title, label) in enumerate(zip(titles, ("p/n", "ridge / c1", "time, 1/kernel"), strict=True)):
        axes[0, column].set_title(title, fontsize=10)
        axes[0, column].set_ylabel("test error")
        axes[0, column].legend(fontsize=8)
        for axis in axes[:, column]:
            axis.set_xscale("log")
            axis.set_xlabel(label)
    ratios = [p / row["parameters"].n for row in next(iter(curves.values()))]
    for axis in axes[:, 0]:
        axis.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axis.set_xticks([], minor=True)
        axis.invert_xaxis()
    axes[1, 0].set_ylabel("accuracy")
    for axis in (axes[1, 1], axes[1, 2]):
        axis.set_yscale("log")
        axis.set_ylabel("training error")
    title = "NTK of three ReLU layers on Gaussian mixtures: prediction (lines) and the exact kernel on samples (points)"
    figure.suptitle(title, fontsize=11)
    return figure


def cases_of(n: int, p: int, quick: bool) -> list[Case]:
    """Networks × mixtures, both kernels for ReLU, and three classes."""
    nets = [("relu",), ("relu",) * 3, ("erf",), ("tanh",)]
    out = []
    for net in nets[1:3] if quick else nets:
        for mixture in ("means", "mixed", "covariances"):
            out.append(Case(net, mixture, "ntk", n, p))
            if net == ("relu",) * 3 and not quick:
                out.append(Case(net, mixture, "ck", n, p))
    out.append(Case(("relu",) * 3, "three classes", "ntk", n, p))
    return out


def main() -> None:
    """Measure, print, write JSON and the figure."""
    args = parser(__doc__ or "").parse_args()
    n, p, draws = (400, 200, 4) if args.quick else (2000, 1000, 6)
    times = np.geomspace(0.1, 100.0, 10)
    start = time.perf_counter()
    rows = []
    print(f"largest deviation over ridges of 0.001 to 10 c1, {draws} draws: exact kernel | sampled equivalent")
    heads = "".join(f"{head:>8}" for head in ("train", "test", "(s.e.)", "acc/pt"))
    print(f"{'case':52}{heads} |{heads}")
    for case in cases_of(n, p, args.quick):
        flow = times if case.activations == ("relu",) * 3 and case.kind == "ntk" else np.empty(0)
        row = measure(case, draws, args.seed, flow)
        rows.append(row)
        text = f"{case.name:52}"
        for name in ("exact", "equivalent"):
            train, test, points, se = deviation(row, name)
            text += f"{100 * train:7.1f}%{100 * test:7.1f}%{100 * se:7.1f}%{points:8.2f}" + (
                " |" if name == "exact" else ""
            )
            row[f"deviation_{name}"] = {"train": train, "test": test, "accuracy_points": points, "test_se": se}
        print(text, flush=True)
    print("gradient flow, largest deviation over times of 0.1 to 100")
    flows = [row for row in rows if len(row["times"])]
    for row in flows:
        text = f"{row['case']:52}"
        for name in ("exact", "equivalent"):
            train, test, points, se = deviation(row, name, "flow_")
            text += f"{100 * train:7.1f}%{100 * test:7.1f}%{100 * se:7.1f}%{points:8.2f}" + (
                " |" if name == "exact" else ""
            )
            row[f"flow_deviation_{name}"] = {"train": train, "test": test, "accuracy_points": points, "test_se": se}
        print(text)
    base = 200 if args.quick else 800
    sizes = [base // 4, base // 2, base, 2 * base, 4 * base]
    print(f"p/n from 4 to 1/4 at p = {base}, ridge 0.1 c1: largest deviation")
    curves = {}
    for mixture in ("means", "mixed", "covariances"):
        points = [
            measure(Case(("relu",) * 3, mixture, "ntk", size, base), draws, args.seed, np.empty(0), np.array([0.1]))
            for size in sizes
        ]
        curves[mixture] = points
        for row in points:
            train, test, acc, se = deviation(row, "exact")
            print(f"{row['case']:52}{100 * train:7.1f}%{100 * test:7.1f}%{100 * se:7.1f}%{acc:8.2f}", flush=True)
    figure = draw(curves, flows, base)
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "learning_curves.png", dpi=110)
    for row in [*rows, *(row for points in curves.values() for row in points)]:
        row["parameters"] = asdict(row["parameters"])
    content = {"noise_std": NOISE, "draws": draws, "rows": rows, "curves": curves}
    path = save(args.out, "learning_curves", args, content)
    print(f"written: {args.out / 'learning_curves.png'}, {path} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
