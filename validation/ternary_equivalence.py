r"""Dense nets and their three-level matches: how fast the exact infinite-width kernels become the same.

    python validation/ternary_equivalence.py            # n = p = 400 … 3200
    python validation/ternary_equivalence.py --quick

Two classes that differ in means and covariances, n = p. K is the kernel of the dense net and K' that of its match
(steps of two thresholds a layer), both exact; the NTK of steps is infinite on the diagonal, so what is compared is

    ‖off(K' − K)‖ / ‖off(K)‖,   off(A) = A without its diagonal, operator norms.

CK is matched with ``objective="ck"``, NTK with ``objective="ntk"`` ("tight"; "layerwise" matches both). Slopes are
least squares in log-log over sizes and draws, with the standard error of the fit; wanted is −.45 or less. Where no
class direction sees the difference (odd nets), its leading eigenvector sits on the rows whose norms are furthest from
tau0, and max |‖x_i‖² − tau0²| ~ √(log n/p): the slope is then above −½ by some .07, so that of the values over √log n
is printed as well.

What is left is looked at in two ways. "equal norms" scales every row to the norm tau0 that the nets are matched at (and
keeps the denominator): the coefficients of X Xᵀ and of its square are then the same for every pair, and what stays are
powers from the third on, O(1/n). And for one layer the difference of the CKs has an expansion in Hermite coefficients
at every row's own norm,

    off(K' − K)_ij = Σ_k [c'_k(s_i) c'_k(s_j) − c_k(s_i) c_k(s_j)] ρ_ij^k,  s_i = ‖x_i‖,

whose k = 0, 1, 2 vanish at s = tau0 and are linear in s² − tau0² = O(p^-1/2) near it: this is the part of order n^-1/2.
The slopes of h1 = E[σ'] and h2 = E[σ''] in tau² are half the third and fourth Hermite moments E[σ⁽³⁾], E[σ⁽⁴⁾], so a
match of these two as well removes it: ``method="moments"``, two thresholds with free levels ("four moments").

The diagonal: mean over rows of (K'_ii − K_ii)/α1 against ``Match.excess`` = (c' − c)/α1 (α1 → the larger of α2, α3
where α1 = 0), for the CK; at norm tau0 itself, and averaged over the rows as drawn, which differs by O(1/p).
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy import stats

import rmtntk as rn
from rmtntk.equivalents import operator_norm

Array = NDArray[np.float64]
ACTIVATIONS = ("relu", "tanh", "abs")
KINDS = ("ck", "ntk")
DRAWS = {100: 4, 200: 4, 400: 12, 800: 8, 1600: 6, 3200: 4}
COLOURS = {"relu": "#0072B2", "tanh": "#D55E00", "abs": "#009E73"}
TIGHT, LAYERWISE, EQUAL = "tight", "layerwise", "tight, equal norms"
STYLES = {TIGHT: ("-", "o"), LAYERWISE: ("--", "s"), EQUAL: (":", "^")}
FOUR, NO_LINEAR, NO_LOW = "four moments", "without k = 1", "without k = 0, 1, 2"


def population(p: int) -> rn.GaussianMixture:
    """Two classes with means ±2 and covariances I and (1 + 4/√p) I."""
    means = np.zeros((2, p))
    means[0, 0], means[1, 1] = 2.0, -2.0
    return rn.GaussianMixture(means, np.array([1.0, 1.0 + 4.0 / np.sqrt(p)]))


def off(kernel: Array) -> Array:
    """Set the diagonal to 0, in place."""
    np.fill_diagonal(kernel, 0.0)
    return kernel


def both(net: rn.Network, x: Array) -> dict[str, Array]:
    """CK and NTK off the diagonal."""
    kernels = rn.ck_ntk(net, x, diagonal=0.0)
    return {kind: off(kernel) for kind, kernel in zip(KINDS, kernels, strict=True)}


# Matches


def matches(net: rn.Network, tau0: float) -> dict[tuple[str, str], rn.Match]:
    """Match a net by every method, for every kernel."""
    found = {
        (method, kind): rn.match(net, tau0, method=method, objective=kind)  # type: ignore[arg-type]
        for method in (TIGHT, LAYERWISE)
        for kind in KINDS
    }
    for (method, kind), match in found.items():
        if not match.feasible:
            print(f"{net} has no match by {method!r} for {kind}: {match.message}")
    return {key: match for key, match in found.items() if match.feasible}


def low_parts(act: rn.Activation, tau: float, norms: Array, rho: Array) -> list[Array]:
    """Terms k = 0, 1, 2 of one layer's CK, centred at tau, with every row's own Hermite coefficients."""
    low, high = norms.min() ** 2, norms.max() ** 2
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(np.pi * (np.arange(9) + 0.5) / 9)
    table = [rn.moments(act, float(np.sqrt(q))) for q in nodes]
    centre = rn.moments(act, tau).mean
    scaled = (norms**2 - 0.5 * (low + high)) / (0.5 * (high - low))
    mapped = (nodes - 0.5 * (low + high)) / (0.5 * (high - low))

    def along(values: list[float]) -> Array:
        return np.polynomial.chebyshev.chebval(scaled, np.polynomial.chebyshev.chebfit(mapped, values, 8))

    c0 = along([m.mean - centre for m in table])
    c1 = along([m.d1 for m in table]) * norms
    c2 = along([m.d2 for m in table]) * norms**2 / np.sqrt(2.0)
    return [np.outer(c0, c0), np.outer(c1, c1) * rho, np.outer(c2, c2) * rho**2]


# Measurements


def one_draw(net: rn.Network, found: dict[tuple[str, str], rn.Match], x: Array, tau0: float) -> dict[str, Any]:
    """Differences by (variant, kernel), and the excess of the diagonal by method."""
    norms = np.linalg.norm(x, axis=1)
    equal = x * (tau0 / norms)[:, None]
    net = net.with_tau0(tau0)
    dense, dense_equal = both(net, x), both(net, equal)
    size = {kind: operator_norm(kernel) for kind, kernel in dense.items()}
    out: dict[str, Any] = {"difference": {}, "diagonal": {}}
    known: dict[Any, tuple[dict[str, Array], dict[str, Array] | None]] = {}  # one net may serve both kernels
    for (method, kind), match in found.items():
        key = tuple(map(str, match.activations))
        ternary = rn.Network(match.activations, tau0=tau0)
        if key not in known:
            known = {key: (both(ternary, x), both(ternary, equal) if method == TIGHT else None)}
        ours, ours_equal = known[key]
        out["difference"][method, kind] = operator_norm(ours[kind] - dense[kind]) / size[kind]
        if ours_equal is not None and method == TIGHT:
            out["difference"][EQUAL, kind] = operator_norm(ours_equal[kind] - dense_equal[kind]) / size[kind]
        if kind == "ck":
            at = equal[:1]
            rows = rn.kernel_diagonals(ternary, x).ck - rn.kernel_diagonals(net, x).ck
            exact = rn.kernel_diagonals(ternary, at).ck - rn.kernel_diagonals(net, at).ck
            out["diagonal"][method] = {
                "rows": float(rows.mean()) / match.unit,
                "at_tau0": float(exact[0]) / match.unit,
                "excess": match.excess,
                "own": match.target.shift("ck") / match.unit,
            }
    if net.depth == 1 and (TIGHT, "ck") in found:
        act, step = net.activations[0], found[TIGHT, "ck"].activations[0]
        rho = (x / norms[:, None]) @ (x / norms[:, None]).T
        gap = off(rn.ck(rn.Network([step], tau0=tau0), x)) - dense["ck"]
        parts = [off(b - a) for a, b in zip(low_parts(act, tau0, norms, rho), low_parts(step, tau0, norms, rho),
                                            strict=True)]  # fmt: skip
        out["difference"][NO_LINEAR, "ck"] = operator_norm(gap - parts[1]) / size["ck"]
        out["difference"][NO_LOW, "ck"] = operator_norm(gap - parts[0] - parts[1] - parts[2]) / size["ck"]
        moments = rn.match(net, tau0, method="moments")
        four = rn.Network(moments.activations, tau0=tau0)
        out["four_moments_excess"] = moments.excess
        for kind, kernel in both(four, x).items():
            out["difference"][FOUR, kind] = operator_norm(kernel - dense[kind]) / size[kind]
    return out


def slope_of(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Slope in log-log and its standard error."""
    fit = stats.linregress(*np.log(np.array(points, dtype=float)).T)
    return float(fit.slope), float(fit.stderr)


def measure(sizes: tuple[int, ...], depths: tuple[int, ...], seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All differences and diagonals, with slopes."""
    differences, diagonals, four = [], [], {}
    for act in ACTIVATIONS:
        for depth in depths:
            net = rn.Network([act] * depth)
            points: dict[tuple[str, str], list[tuple[int, float]]] = {}
            for n in sizes:
                start = time.perf_counter()
                mixture = population(n)
                found = matches(net, mixture.tau0)
                diagonal: dict[str, list[dict[str, float]]] = {}
                for draw in range(DRAWS[n]):
                    x, _ = mixture.sample(n, np.random.default_rng([seed, n, draw]))
                    case = one_draw(net, found, x, mixture.tau0)
                    for key, value in case["difference"].items():
                        points.setdefault(key, []).append((n, value))
                    if "four_moments_excess" in case:
                        four[f"{act}, n = {n}"] = case["four_moments_excess"]
                    for method, values in case["diagonal"].items():
                        diagonal.setdefault(method, []).append(values)
                for method, rows in diagonal.items():
                    drawn = np.array([row["rows"] for row in rows])
                    diagonals.append({
                        "activation": act, "depth": depth, "n": n, "method": method, "excess": rows[0]["excess"],
                        "own": rows[0]["own"], "at_tau0": rows[0]["at_tau0"], "rows": float(drawn.mean()),
                        "error": float(drawn.std(ddof=1) / np.sqrt(len(drawn))),
                    })  # fmt: skip
                say(f"{act} × {depth}, n = {n}: {time.perf_counter() - start:.0f} s")
            for (variant, kind), values in points.items():
                slope, error = slope_of(values)
                over_log = slope_of([(m, v / np.sqrt(np.log(m))) for m, v in values])[0]
                differences.append({
                    "activation": act, "depth": depth, "kind": kind, "variant": variant, "slope": slope, "error": error,
                    "slope_over_root_log": over_log,
                    "mean": {n: float(np.mean([v for m, v in values if m == n])) for n in sizes},
                    "values": values,
                })  # fmt: skip
    return {"differences": differences, "diagonals": diagonals, "four_moments_excess": four}


def print_results(found: dict[str, Any], sizes: tuple[int, ...]) -> None:
    """Print both tables."""
    print("\n‖off(K' − K)‖/‖off(K)‖, mean over draws")
    head = f"{'net':9}{'kernel':8}{'variant':21}"
    print(head + "".join(f"{f'n = {n}':>11}" for n in sizes) + "        slope      over √log n")
    for row in found["differences"]:
        cells = "".join(f"{value:11.2e}" for value in row["mean"].values())
        print(f"{row['activation'] + ' × ' + str(row['depth']):9}{row['kind'].upper():8}{row['variant']:21}{cells}"
              f"  {row['slope']:+.2f} ± {row['error']:.2f}        {row['slope_over_root_log']:+.2f}")  # fmt: skip
    print("\nDiagonal of the CK: (K'_ii − K_ii)/α1 against Match.excess, at norm tau0 and as the mean over rows ± s.e.")
    for row in found["diagonals"]:
        size = max(abs(row["excess"]), row["own"])  # an excess of 0 is compared with the dense network's own c/α1
        relative = (row["rows"] - row["excess"]) / size
        exact = abs(row["at_tau0"] - row["excess"]) / size
        print(
            f"{row['activation'] + ' × ' + str(row['depth']):9}{row['method']:11}n = {row['n']:<6d}excess "
            f"{row['excess']:9.5f}   at tau0 {exact:.0e} relative   rows {row['rows']:9.5f} ± {row['error']:.5f}  "
            f"{relative:+.2%}"
        )
    print("\nExcess of the step with four moments, one layer: "
          + "; ".join(f"{name}: {value:.4f}" for name, value in found["four_moments_excess"].items()))  # fmt: skip


def draw(found: dict[str, Any], sizes: tuple[int, ...], depths: tuple[int, ...]) -> Figure:
    """Kernels in rows, depths in columns; activations in colour, variants by line."""
    figure = Figure(figsize=(3.6 * len(depths) + 1.6, 6.6), layout="constrained")
    axes = figure.subplots(2, len(depths), sharex=True, sharey="row", squeeze=False)
    for row in found["differences"]:
        if row["variant"] not in STYLES:
            continue
        panel = axes[KINDS.index(row["kind"]), depths.index(row["depth"])]
        line, marker = STYLES[row["variant"]]
        panel.loglog(list(row["mean"]), list(row["mean"].values()), line, marker=marker, markersize=4,
                     color=COLOURS[row["activation"]], linewidth=1.4)  # fmt: skip
    ends = np.array([sizes[0], sizes[-1]], dtype=float)
    for i, kind in enumerate(KINDS):
        axes[i, 0].set_ylabel(f"{kind.upper()}:  ‖off(K′ − K)‖ / ‖off(K)‖")
        axes[i, 0].set_ylim(bottom=2e-6)  # an even net of three layers sees norms alone: nothing is left without them
        for j, depth in enumerate(depths):
            panel = axes[i, j]
            for power, shade in ((0.5, "0.75"), (1.0, "0.88")):
                panel.loglog(ends, 0.1 * (ends / ends[0]) ** -power, color=shade, linewidth=4, zorder=0)
            panel.set_xticks(sizes, [str(n) for n in sizes], fontsize=8)
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.2)
            if i == 0:
                panel.set_title(f"{depth} layer" + ("s" if depth > 1 else ""), fontsize=11)
            else:
                panel.set_xlabel("n = p")
    panel = axes[0, 0]
    handles = [panel.plot([], [], color=colour, label=act)[0] for act, colour in COLOURS.items()]
    handles += [panel.plot([], [], line, marker=marker, markersize=4, color="0.3", label=name)[0]
                for name, (line, marker) in STYLES.items()]  # fmt: skip
    handles += [panel.plot([], [], color=shade, linewidth=4, label=label)[0]
                for shade, label in (("0.75", "slope −½"), ("0.88", "slope −1"))]  # fmt: skip
    figure.legend(handles=handles, loc="outside right center", fontsize=9, frameon=False)
    return figure


def main() -> None:
    """Measure, print, write JSON and the figure."""
    options = parser(__doc__ or "")
    options.add_argument("--largest", type=int, default=3200, help="largest n = p: 400, 800, 1600 or 3200")
    args = options.parse_args()
    sizes = (100, 200, 400) if args.quick else tuple(n for n in (400, 800, 1600, 3200) if n <= args.largest)
    depths = (1, 2) if args.quick else (1, 2, 3)
    if args.quick:
        DRAWS[400] = 4
    start = time.perf_counter()
    found = measure(sizes, depths, args.seed, lambda line: print(line, flush=True))
    print_results(found, sizes)
    args.out.mkdir(parents=True, exist_ok=True)
    draw(found, sizes, depths).savefig(args.out / "ternary_equivalence.png", dpi=120)
    found["seconds"] = time.perf_counter() - start
    path = save(args.out, "ternary_equivalence", args, found)
    print(f"\nwritten: {args.out / 'ternary_equivalence.png'}, {path}")


if __name__ == "__main__":
    main()
