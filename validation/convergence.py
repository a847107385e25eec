"""Convergence: kernels against their equivalents as n and p grow, finite networks of several laws as widths grow.

    python validation/convergence.py            # every case; resumes where it stopped
    python validation/convergence.py --quick    # small sizes and three activations
    python validation/convergence.py --part equivalents --activations relu --data mixed --largest 8000

Part "equivalents": ‖K − K̃‖/‖K‖ in operator norm for CK and NTK of three layers, every activation × data set × form
("none" is the theorem as corrected, "diagonal" and "second_order" are this package's), at n = p and, for one case, at
p = n/2 and 2n. Slopes in log-log with the standard error of the fit over sizes and draws.

Part "laws": empirical kernels of finite networks with Gaussian, ternary, Bernoulli (±1) and Student weights against the
same K̃. The width must be large beside n: a network differs from its limit by about sqrt(n/width). What is asked is
whether the law matters. It does, through the fourth cumulant κ4 of the first layer's weights and only where E[σ''] ≠ 0:
with S = X∘X (entrywise square), i ≠ j,

    E[σ(w·x_i) σ(w·x_j)] = K_ij + ¼ κ4 E[σ'']² (S Sᵀ)_ij + smaller,

entries of order 1/p that are all alike: a rank-one term of norm about ¼ κ4 E[σ'']² n/p, as large as those the theorem
keeps. Later layers pass it on times E[σ']²; their own weights add terms of order n/width. The script measures the term
on the direction of ones, and compares laws before and after it is added to K̃ (F test of laws against seeds).

Cases are kept in ``convergence_cases.jsonl`` beside the results, with a hash of the package's and this script's source:
a second run repeats nothing, and nothing is reused after a change.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy import signal, stats

import rmtntk as rn
from rmtntk import activations
from rmtntk.equivalents import operator_norm

Array = NDArray[np.float64]
ACTIVATIONS = ("relu", "leaky_relu(negative_slope=0.1)", "abs", "gelu", "erf", "tanh", "sin")
TO_4000 = ("relu", "gelu", "erf")  # the others stop at 2000
DATA = ("iid", "means", "covariances", "mixed", "toeplitz")
FORMS = ("none", "diagonal", "second_order")
KINDS = ("ck", "ntk")
DEPTH = 3
DRAWS = {250: 6, 500: 4, 1000: 3, 2000: 2, 4000: 1, 8000: 1}
TOEPLITZ = (0.1, 0.5)  # C_a[i, j] = ρ_a^|i − j|
LAWS: dict[str, dict[str, Any]] = {
    "gaussian": {"law": "gaussian"},
    "ternary, ε = .5": {"law": "ternary", "sparsity": 0.5},
    "ternary, ε = .9": {"law": "ternary", "sparsity": 0.9},
    "bernoulli": {"law": "bernoulli"},
    "student": {"law": "student"},
}
# E[w⁴] − 3 at unit variance: 1/(1 − ε) − 3 for ternary weights, 6/(ν − 4) for Student's with ν = 6
KURTOSIS = {"gaussian": 0.0, "ternary, ε = .5": -1.0, "ternary, ε = .9": 7.0, "bernoulli": -2.0, "student": 3.0}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


# Data


def population(name: str, p: int) -> rn.GaussianMixture:
    """Return the mixture; Toeplitz covariances enter the theorem by their traces of products alone."""
    classes = 1 if name == "iid" else 2
    means, scales = np.zeros((classes, p)), np.ones(classes)
    if name in ("means", "mixed", "toeplitz"):
        means[0, 0], means[1, 1] = 2.0, -2.0
    if name in ("covariances", "mixed"):
        scales[1] += 4.0 / np.sqrt(p)
    if name == "toeplitz":
        return rn.GaussianMixture(means, scales, trace_products=toeplitz_products(p))
    return rn.GaussianMixture(means, scales)


def toeplitz_products(p: int) -> Array:
    """tr(C_a C_b)/p = Σ_k (1 − |k|/p) (ρ_a ρ_b)^|k|."""
    lag = np.arange(p)
    weight = (1.0 - lag / p) * np.where(lag == 0, 1.0, 2.0)
    return np.array([[weight @ (a * b) ** lag for b in TOEPLITZ] for a in TOEPLITZ])


def sample(name: str, n: int, p: int, seed: int) -> tuple[Array, NDArray[np.int64], rn.GaussianMixture]:
    """Draw n rows; Toeplitz noise is a stationary autoregression along the row."""
    mixture = population(name, p)
    generator = np.random.default_rng([seed, n, p, DATA.index(name)])
    if name != "toeplitz":
        return (*mixture.sample(n, generator), mixture)
    labels = generator.integers(0, 2, n)
    x = generator.standard_normal((n, p))
    for a, rho in enumerate(TOEPLITZ):
        rows = labels == a
        noise = x[rows] * np.sqrt(1.0 - rho**2)
        noise[:, 0] /= np.sqrt(1.0 - rho**2)
        x[rows] = signal.lfilter([1.0], [1.0, -rho], noise, axis=1) + mixture.means[a]
    return x / np.sqrt(p), labels, mixture


# Cases


def source_hash() -> str:
    """Hash of every source file that could change a result."""
    files = [Path(__file__), *sorted(Path(rn.__file__).parent.rglob("*.py"))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Cases:
    """Results by key, appended to a file as they are found."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path, self.hash = path, source_hash()
        self.known: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):  # a killed run leaves half a line
            path.write_text(text + "\n", encoding="utf-8")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry["source"] == self.hash:
                self.known[entry["key"]] = entry["value"]

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the result of a case, found or computed."""
        if key not in self.known:
            start = time.perf_counter()
            self.known[key] = compute()
            entry = {"key": key, "source": self.hash, "value": self.known[key]}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            print(f"  {key}: {time.perf_counter() - start:.1f} s", flush=True)
        return self.known[key]


# Kernels against equivalents


def distances(act: str, data: str, n: int, p: int, seed: int) -> dict[str, float]:
    """‖K − K̃‖/‖K‖ of both kernels and all forms for one draw."""
    x, labels, mixture = sample(data, n, p, seed)
    net = rn.Network([activations.parse(act)[0]] * DEPTH, tau0=mixture.tau0)
    result = {}
    for kind, kernel in zip(KINDS, rn.ck_ntk(net, x), strict=True):
        size = operator_norm(kernel)
        diagonal = kernel.diagonal().copy()
        for form in ("none", "second_order"):
            eq = rn.equivalent(net, x, labels, kind=kind, mixture=mixture, correction=form)  # type: ignore[arg-type]
            gap = eq.to_dense()
            gap -= kernel
            result[f"{kind} {form}"] = operator_norm(gap) / size
            if form == "none":  # "diagonal" is "none" with the kernel's own diagonal
                np.fill_diagonal(gap, 0.0)
                result[f"{kind} diagonal"] = operator_norm(gap) / size
        if n <= 500:  # the shortcut is what the package does
            eq = rn.equivalent(net, x, labels, kind=kind, mixture=mixture, correction="diagonal")  # type: ignore[arg-type]
            if abs(operator_norm(eq.to_dense() - kernel) / size - result[f"{kind} diagonal"]) > 1e-6:
                raise SystemExit(f"correction='diagonal' is not the plain form with the exact diagonal: {act}, {data}")
            if np.abs(eq.diagonal() - diagonal).max() > 1e-12 * diagonal.max():
                raise SystemExit(f"the diagonal of correction='diagonal' is not exact: {act}, {data}")
    return result


def slope_of(sizes: list[int], values: list[float]) -> tuple[float, float]:
    """Slope in log-log and its standard error (nan with two points)."""
    if min(values) <= 0.0:
        return float("nan"), float("nan")
    fit = stats.linregress(np.log(sizes), np.log(values))
    return float(fit.slope), float(fit.stderr) if len(sizes) > 2 else float("nan")


def equivalents_part(args: Any, cases: Cases) -> list[dict[str, Any]]:
    """All cases of the first part, as rows by activation, data, shape, kernel and form."""
    sizes = (250, 500, 1000) if args.quick else tuple(n for n in (500, 1000, 2000, 4000) if n <= args.largest)
    acts = args.activations or (("relu", "abs", "erf") if args.quick else ACTIVATIONS)
    data_sets = args.data or DATA
    by_act = {act: sizes if act in TO_4000 or args.quick else tuple(n for n in sizes if n <= 2000) for act in acts}
    plan = [(act, data, 1.0, by_act[act]) for act in acts for data in data_sets]
    if "mixed" in data_sets and acts[0] == "relu":
        plan += [("relu", "mixed", ratio, sizes[:-1] if ratio > 1 else sizes) for ratio in (0.5, 2.0)]
    if args.largest >= 8000 and not args.quick:
        chosen = (acts[0], "mixed" if "mixed" in data_sets else data_sets[0], 1.0)
        plan = [(*case, (*own, 8000) if case == chosen else own) for *head, own in plan for case in (tuple(head),)]
    rows = []
    for act, data, ratio, own in plan:
        found: dict[str, list[tuple[int, float]]] = {}
        for n in own:
            p = round(ratio * n)
            for draw in range(2 if args.quick and n < 1000 else 1 if args.quick else DRAWS[n]):
                key = f"{act} | {data} | n={n} p={p} | seed {args.seed + draw}"
                case = cases.get(key, lambda: distances(act, data, n, p, args.seed + draw))  # noqa: B023 - called at once
                for name, value in case.items():
                    found.setdefault(name, []).append((n, value))
        for name, pairs in found.items():
            slope, error = slope_of([n for n, _ in pairs], [value for _, value in pairs])
            mean = {n: float(np.mean([value for m, value in pairs if m == n])) for n in own}
            kind, form = name.split(" ")
            rows.append({
                "activation": act, "data": data, "p/n": ratio, "kernel": kind, "form": form, "mean": mean,
                "slope": slope, "slope_error": error, "points": pairs,
            })  # fmt: skip
    return rows


def print_equivalents(rows: list[dict[str, Any]]) -> None:
    """Print one line for every activation, data set, shape and kernel."""
    print("\n‖K − K̃‖/‖K‖ at the largest n, and slope ± standard error over n; three layers")
    print(f"{'activation':32}{'data':13}{'p/n':>4}{'n':>6}  {'':4}" + "".join(f"{form:>24}" for form in FORMS))
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["activation"], row["data"], row["p/n"], row["kernel"]), {})[row["form"]] = row
    for (act, data, ratio, kind), forms in groups.items():
        n = max(forms["none"]["mean"])
        cells = "".join(
            f"{forms[form]['mean'][n]:10.1e} {forms[form]['slope']:+6.2f} ±{forms[form]['slope_error']:4.2f} "
            for form in FORMS
        )
        print(f"{act:32}{data:13}{ratio:4.1f}{n:6d}  {kind.upper():4}{cells}")


# Finite networks


def law_term(net: rn.Network, x: Array, law: str, width: float) -> dict[str, Array]:
    """What the fourth cumulant of the weights adds to CK and NTK off the diagonal; `width` may be inf."""
    square = x * x
    level = square @ square.T  # Σ_k x_ik² x_jk² of the current features
    np.fill_diagonal(level, 0.0)
    tau, ck, ntk = float(net.tau0 or 1.0), np.zeros_like(level), np.zeros_like(level)
    for act in net.activations:
        m = rn.moments(act, tau)
        ck = m.d1**2 * ck + 0.25 * KURTOSIS[law] * m.d2**2 * level
        ntk = ck + m.d1**2 * ntk
        tau = float(np.sqrt(m.variance))
        level = np.full_like(level, m.variance**2 / width)  # features are incoherent: Σ_k f_ik² f_jk² ≈ τ⁴/width
        np.fill_diagonal(level, 0.0)
    return {"ck": ck, "ntk": ntk}


def network_errors(
    net: rn.Network, x: Array, width: int, law: str, seeds: list[int], targets: dict[str, Any]
) -> dict[str, list[float]]:
    """‖K_emp − K̃‖/‖K‖ of single networks against every target, and of their mean kernel."""
    extra = law_term(net, x, law, width)
    result: dict[str, list[float]] = {}
    total: dict[str, Array] = {}
    for seed in seeds:
        finite = rn.FiniteNetwork.sample(net, [width] * net.depth, x.shape[1], seed, dtype=np.float32, **LAWS[law])
        for kind in KINDS:
            kernel = np.asarray(getattr(finite, kind)(x, dtype=np.float32), dtype=np.float64)
            total[kind] = total.get(kind, 0.0) + kernel / len(seeds)
            gap = kernel - targets[kind]["second_order"]
            result.setdefault(f"{kind} plain", []).append(operator_norm(gap) / targets[kind]["norm"])
            result.setdefault(f"{kind} with term", []).append(operator_norm(gap - extra[kind]) / targets[kind]["norm"])
    for kind in KINDS:
        gap = total[kind] - targets[kind]["second_order"]
        result[f"{kind} mean plain"] = [operator_norm(gap) / targets[kind]["norm"]]
        result[f"{kind} mean with term"] = [operator_norm(gap - extra[kind]) / targets[kind]["norm"]]
    return result


def laws_part(args: Any, cases: Cases) -> list[dict[str, Any]]:
    """Errors by activation, width and law."""
    n = 128 if args.quick else 200
    widths = (256, 1024, 2048) if args.quick else (500, 1000, 2000, 4000)
    acts = ("relu",) if args.quick else ("relu", "tanh")
    seeds = 3 if args.quick else 6
    rows = []
    for act in acts:
        x, labels, mixture = sample("mixed", n, n, args.seed)
        net = rn.Network([act, act], tau0=mixture.tau0)
        targets: dict[str, Any] = {}
        for kind, kernel in zip(KINDS, rn.ck_ntk(net, x), strict=True):
            size = operator_norm(kernel)
            targets[kind] = {"norm": size, "floors": {}}
            for form in ("none", "second_order"):
                eq = rn.equivalent(net, x, labels, kind=kind, mixture=mixture, correction=form)  # type: ignore[arg-type]
                targets[kind][form] = eq.to_dense()
                targets[kind]["floors"][form] = operator_norm(targets[kind][form] - kernel) / size
        floors = {kind: targets[kind]["floors"] for kind in KINDS}
        for width in widths:
            for k, law in enumerate(LAWS):
                own = [args.seed + 1000 * k + s for s in range(seeds)]
                key = f"laws | {act} | n={n} | width {width} | {law} | seeds {own[0]}..{own[-1]}"
                case = cases.get(key, lambda: network_errors(net, x, width, law, own, targets))  # noqa: B023
                rows.append({
                    "activation": act, "n": n, "width": width, "law": law, "seeds": own, "floors": floors,
                    "errors": case,
                })  # fmt: skip
    return rows


def projections(net: rn.Network, x: Array, width: int, law: str, seeds: list[int]) -> dict[str, list[float]]:
    """1ᵀ(K_emp − K)1/n of CK and NTK, by network."""
    result: dict[str, list[float]] = {kind: [] for kind in KINDS}
    exact = dict(zip(KINDS, rn.ck_ntk(net, x), strict=True))
    for seed in seeds:
        finite = rn.FiniteNetwork.sample(net, [width] * net.depth, x.shape[1], seed, dtype=np.float32, **LAWS[law])
        for kind in KINDS:
            kernel = np.asarray(getattr(finite, kind)(x, dtype=np.float32), dtype=np.float64)
            result[kind].append(float((kernel - exact[kind]).mean() * len(x)))
    return result


def term_part(args: Any, cases: Cases) -> list[dict[str, Any]]:
    """The law's term along ones, measured and predicted, at growing n = p."""
    sizes = (100, 200) if args.quick else (150, 300, 600)
    plans = [("relu", 1), ("tanh", 1)] if args.quick else [("relu", 1), ("gelu", 1), ("tanh", 1), ("relu", 2)]
    rows = []
    for act, depth in plans:
        for n in sizes[: 4 - depth]:
            seeds = list(range(args.seed, args.seed + (12 if args.quick or n > 300 else 24)))
            x, _, mixture = sample("iid", n, n, args.seed)
            net = rn.Network([act] * depth, tau0=mixture.tau0)
            width = 10 * n
            for law in LAWS:
                key = f"term | {act} x {depth} | n=p={n} | width {width} | {law} | seeds {seeds[0]}..{seeds[-1]}"
                case = cases.get(key, lambda: projections(net, x, width, law, seeds))  # noqa: B023
                for kind in KINDS:
                    values = np.array(case[kind])
                    rows.append({
                        "activation": act, "depth": depth, "n": n, "width": width, "law": law, "kernel": kind,
                        "measured": float(values.mean()), "error": float(values.std(ddof=1) / np.sqrt(len(values))),
                        "predicted": float(law_term(net, x, law, width)[kind].mean() * n),
                        "limit": float(law_term(net, x, law, np.inf)[kind].mean() * n),
                        "norm": operator_norm(getattr(rn, kind)(net, x)),
                    })  # fmt: skip
    return rows


def print_terms(rows: list[dict[str, Any]]) -> None:
    """Print the law's term."""
    print("\nThe law of the weights: 1ᵀ(K_emp − K)1/n, mean ± standard error, [predicted at this width | as width → ∞]")
    for row in rows:
        z = (row["measured"] - row["predicted"]) / row["error"]
        print(
            f"{row['activation']:5}× {row['depth']} {row['kernel'].upper():4} n=p={row['n']:4d} {row['law']:16}"
            f"{row['measured']:+8.4f} ± {row['error']:.4f}  [{row['predicted']:+.4f} | {row['limit']:+.4f}]"
            f"  z {z:+5.1f}  ‖K‖ {row['norm']:.3f}"
        )


def law_tests(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """F test of laws against seeds in the log error of single networks, with and without the law's term."""
    tests = []
    for act in dict.fromkeys(row["activation"] for row in rows):
        own = [row for row in rows if row["activation"] == act]
        for kind in KINDS:
            for variant in ("plain", "with term"):
                for width in sorted({row["width"] for row in own}):
                    groups = [np.log(row["errors"][f"{kind} {variant}"]) for row in own if row["width"] == width]
                    f = stats.f_oneway(*groups)
                    tests.append({
                        "activation": act, "kernel": kind, "variant": variant, "width": width,
                        "error": float(np.exp(np.mean(groups))), "seeds": len(groups[0]),
                        "spread_of_laws": float(np.std([g.mean() for g in groups], ddof=1)),
                        "spread_of_seeds": float(np.sqrt(np.mean([g.var(ddof=1) for g in groups]))),
                        "f": float(f.statistic), "p_value": float(f.pvalue),
                    })  # fmt: skip
    return tests


def print_laws(rows: list[dict[str, Any]], tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Print errors by law and width, slopes, and the tests."""
    slopes: dict[str, Any] = {}
    laws = list(dict.fromkeys(row["law"] for row in rows))
    for act in dict.fromkeys(row["activation"] for row in rows):
        own = [row for row in rows if row["activation"] == act]
        widths = sorted({row["width"] for row in own})
        for kind in KINDS:
            floors = own[0]["floors"][kind]
            for variant in ("plain", "with term"):
                name = "K̃" if variant == "plain" else "K̃ + law's term"
                print(f"\n{act} × 2, {kind.upper()}, n = p = {own[0]['n']}: ‖K_emp − ({name})‖/‖K‖ by width")
                print(f"(K̃ is {floors['second_order']:.1e} from K, the theorem's form {floors['none']:.1e})")
                print(f"{'law':18}" + "".join(f"{w:>9d}" for w in widths) + f"{'slope':>16}   mean kernel, widest")
                for law in laws:
                    mine = [r for r in own if r["law"] == law]
                    points = [(r["width"], v) for r in mine for v in r["errors"][f"{kind} {variant}"]]
                    slope, error = slope_of([w for w, _ in points], [v for _, v in points])
                    slopes[f"{act} {kind} {variant} {law}"] = (slope, error)
                    cells = "".join(f"{np.mean([v for w, v in points if w == width]):9.4f}" for width in widths)
                    last = mine[-1]["errors"][f"{kind} mean {variant}"][0]
                    print(f"{law:18}{cells}{slope:+9.3f} ± {error:.3f}{last:12.4f}")
    print("\nSpread of the log error between laws and between seeds, F test")
    for test in tests:
        print(
            f"{test['activation']:6}{test['kernel'].upper():4} {test['variant']:10}width {test['width']:5d}: laws "
            f"{test['spread_of_laws']:.4f}, seeds {test['spread_of_seeds']:.4f} (a mean of {test['seeds']} would "
            f"spread by {test['spread_of_seeds'] / np.sqrt(test['seeds']):.4f}), p = {test['p_value']:.3f}"
        )
    return slopes


# Figures


def draw_equivalents(rows: list[dict[str, Any]]) -> Figure:
    """Kernels in rows, data sets in columns, activations in colour, forms by line."""
    data_sets = list(dict.fromkeys(row["data"] for row in rows))
    acts = list(dict.fromkeys(row["activation"] for row in rows))
    figure = Figure(figsize=(3.0 * len(data_sets) + 1.2, 6.4), layout="constrained")
    axes = figure.subplots(2, len(data_sets), sharex=True, sharey=True, squeeze=False)
    styles = {"none": ("-", 1.6), "diagonal": ("--", 1.2), "second_order": (":", 1.6)}
    for row in rows:
        if row["p/n"] != 1.0:
            continue
        panel = axes[KINDS.index(row["kernel"]), data_sets.index(row["data"])]
        n, values = list(row["mean"]), list(row["mean"].values())
        style, width = styles[row["form"]]
        colour = COLOURS[acts.index(row["activation"]) % len(COLOURS)]
        panel.loglog(n, values, style, color=colour, linewidth=width, marker=".", markersize=4)
    sizes = sorted({n for row in rows for n in row["mean"]})
    guide = np.array([sizes[0], sizes[-1]], dtype=float)
    for i, kind in enumerate(KINDS):
        axes[i, 0].set_ylabel(f"{kind.upper()}:  ‖K − K̃‖ / ‖K‖")
        for j, data in enumerate(data_sets):
            axes[i, j].loglog(guide, 0.35 * (guide / guide[0]) ** -0.5, color="0.7", linewidth=4, alpha=0.5, zorder=0)
            axes[i, j].set_xticks(sizes, [str(n) for n in sizes], fontsize=8)
            axes[i, j].xaxis.set_minor_locator(NullLocator())
            axes[i, j].grid(alpha=0.2)
            if i == 0:
                axes[i, j].set_title(data, fontsize=11)
            else:
                axes[i, j].set_xlabel("n = p")
    handles = [
        axes[0, 0].plot([], [], color=COLOURS[k % len(COLOURS)], label=act.split("(")[0])[0]
        for k, act in enumerate(acts)
    ]
    names = {"none": "theorem", "diagonal": "exact diagonal", "second_order": "second order"}
    handles += [
        axes[0, 0].plot([], [], style, color="0.3", label=names[form])[0] for form, (style, _) in styles.items()
    ]
    handles.append(axes[0, 0].plot([], [], color="0.7", linewidth=4, alpha=0.5, label="slope −½")[0])
    figure.legend(handles=handles, loc="outside right center", fontsize=9, frameon=False)
    return figure


def draw_laws(rows: list[dict[str, Any]], terms: list[dict[str, Any]]) -> Figure:
    """Error against width before and after the law's term (CK), and the term measured against predicted."""
    acts = list(dict.fromkeys(row["activation"] for row in rows))
    figure = Figure(figsize=(13.5, 3.9 * len(acts)), layout="constrained")
    grid = figure.add_gridspec(len(acts), 3)
    handles: list[Any] = []
    for i, act in enumerate(acts):
        own = [row for row in rows if row["activation"] == act]
        widths = np.array(sorted({row["width"] for row in own}), dtype=float)
        first = None
        for j, variant in enumerate(("plain", "with term")):
            panel = figure.add_subplot(grid[i, j], sharey=first)
            first = first or panel
            for k, law in enumerate(LAWS):
                mine = [row for row in own if row["law"] == law]
                shift = 1.0 + 0.035 * (k - 2)
                for row in mine:
                    values = row["errors"][f"ck {variant}"]
                    panel.loglog([row["width"] * shift] * len(values), values, "o", color=COLOURS[k], markersize=3.2,
                                 alpha=0.5)  # fmt: skip
                means = [row["errors"][f"ck mean {variant}"][0] for row in mine]
                panel.loglog(widths * shift, means, "_", color=COLOURS[k], markersize=11, markeredgewidth=2)
            top = np.mean([v for row in own if row["width"] == widths[0] for v in row["errors"][f"ck {variant}"]])
            panel.loglog(widths, top * (widths / widths[0]) ** -0.5, color="0.6", linewidth=1)
            panel.set_title(
                f"CK, two {act} layers, n = p = {own[0]['n']}: " + ("K̃" if variant == "plain" else "K̃ + law's term"),
                fontsize=10,
            )
            panel.set_xlabel("width (line: slope −½)")
            panel.set_xticks(widths, [f"{w:g}" for w in widths])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.2)
            if j == 0:
                panel.set_ylabel("‖K_emp − ·‖ / ‖K‖, their mean (bars)")
    panel = figure.add_subplot(grid[:, 2])
    for k, law in enumerate(LAWS):
        mine = [row for row in terms if row["law"] == law]
        markers = panel.errorbar(
            [row["predicted"] for row in mine], [row["measured"] for row in mine], [2 * row["error"] for row in mine],
            fmt="o", color=COLOURS[k], markersize=4, linewidth=1, alpha=0.8, label=law,
        )  # fmt: skip
        handles.append(markers)
    low, high = panel.get_xlim()
    panel.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=0)
    panel.set_xlabel("predicted from κ4")
    panel.set_ylabel("measured 1ᵀ(K_emp − K)1/n, ± 2 s.e.")
    panel.set_title("What the law of the weights adds", fontsize=10)
    panel.legend(handles=handles, fontsize=8)
    panel.grid(alpha=0.2)
    return figure


def main() -> None:
    """Measure, print, write JSON and the figures."""
    options = parser(__doc__ or "")
    options.add_argument("--part", choices=("equivalents", "laws", "both"), default="both")
    options.add_argument("--activations", nargs="+", help="only these, as the command line writes them")
    options.add_argument("--data", nargs="+", choices=DATA, help="only these data sets")
    options.add_argument("--largest", type=int, default=4000, help="largest n; 8000 adds it for one case")
    options.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    args = options.parse_args()
    cases = Cases(args.out / "convergence_cases.jsonl", fresh=args.fresh)
    start = time.perf_counter()
    content: dict[str, Any] = {"source": cases.hash}
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part in ("equivalents", "both"):
        content["equivalents"] = equivalents_part(args, cases)
        print_equivalents(content["equivalents"])
        draw_equivalents(content["equivalents"]).savefig(args.out / "convergence.png", dpi=120)
    if args.part in ("laws", "both"):
        content["laws"] = laws_part(args, cases)
        content["law_terms"] = term_part(args, cases)
        content["law_tests"] = law_tests(content["laws"])
        content["law_slopes"] = print_laws(content["laws"], content["law_tests"])
        print_terms(content["law_terms"])
        draw_laws(content["laws"], content["law_terms"]).savefig(args.out / "convergence_laws.png", dpi=120)
    content["seconds"] = time.perf_counter() - start
    print(f"\nwritten: {args.out / 'convergence*.png'}, {save(args.out, 'convergence', args, content)}")


if __name__ == "__main__":
    main()
