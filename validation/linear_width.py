"""Linear-width spectra against sampled networks: Kolmogorov–Smirnov distances, slopes over n, and densities.

Data: i.i.d. Gaussian rows, p = 0.8 n. Columns: CK; NTK against the mean law; NTK against the law given the weights;
and the theorem's own form r I + Σ q_l G_l with the features G_l of the sampled network, which isolates the limit
from what the theorem drops (entrywise products of norm O(n^-1/2)).
"""

from typing import Any

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

import rmtntk as rn
from rmtntk.linear_width import LinearWidthSpectrum, linear_width_spectrum

Array = NDArray[np.float64]
COLUMNS = ("ck", "ntk", "ntk given weights", "ntk form")
SHAPE = 0.8  # p/n


def distance(law: LinearWidthSpectrum, eigenvalues: Array) -> float:
    """Return sup |F − F_n|; eigenvalues within rounding of an atom count as the atom.

    F is computed at 400 of the eigenvalues and interpolated monotonically at the others.
    """
    values = np.sort(eigenvalues)
    n, top = len(values), values[-1]
    for where, _ in law.atoms:
        values[np.abs(values - where) <= 1e-9 * top] = where
    points, first = np.unique(values, return_index=True)
    chosen = np.unique(np.rint(np.linspace(0, len(points) - 1, 400)).astype(int)) if len(points) > 400 else slice(None)
    right = PchipInterpolator(points[chosen], law.cdf(points[chosen]))(points)
    left = right.copy()
    for where, mass in law.atoms:
        left[points == where] -= mass
    return float(max(np.abs(right - np.append(first[1:], n) / n).max(), np.abs(left - first / n).max()))


def draw_network(
    net: rn.Network, n: int, share: float, weights: str, seed: int
) -> tuple[Array, rn.FiniteNetwork, tuple[int, ...]]:
    """Draw data and network from independent streams."""
    data, draws = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    p, widths = round(SHAPE * n), (round(share * n),) * net.depth
    x = data.standard_normal((n, p)) / np.sqrt(p)
    sparsity = 0.5 if weights == "ternary" else 0.0
    return x, rn.FiniteNetwork.sample(net, widths, p, draws, law=weights, sparsity=sparsity), widths  # type: ignore[arg-type]


def kernels(net: rn.Network, finite: rn.FiniteNetwork, x: Array) -> list[Array]:
    """G_0 … G_L of the sampled network."""
    result = [x @ x.T]
    for depth in range(1, net.depth + 1):
        part = rn.Network(net.activations[:depth])
        result.append(rn.FiniteNetwork.from_arrays(part, finite.weights[:depth]).ck(x))
    return result


def measure(name: str, depth: int, share: float, n: int, weights: str, seed: int) -> dict[str, float]:
    """Distances of one draw."""
    net = rn.Network([name] * depth)
    x, finite, widths = draw_network(net, n, share, weights, seed)
    grams = kernels(net, finite, x)
    inputs = np.linalg.eigvalsh(grams[0])
    ck = linear_width_spectrum(net, widths, n, inputs)
    ntk = linear_width_spectrum(net, widths, n, inputs, kind="ntk")
    given = linear_width_spectrum(net, widths, n, inputs, kind="ntk", network=finite)
    form = ntk.shift * np.eye(n) + sum(q * g for q, g in zip(ntk.weights, grams, strict=True))
    sampled = np.linalg.eigvalsh(finite.ntk(x))
    values = (
        distance(ck, np.linalg.eigvalsh(grams[-1])),
        distance(ntk, sampled),
        distance(given, sampled),
        distance(ntk, np.linalg.eigvalsh(form)),
    )
    return dict(zip(COLUMNS, values, strict=True))


def slopes(sizes: list[int], draws: int, seed: int, cases: list[tuple[str, int, float]]) -> list[dict[str, Any]]:
    """Mean distances over draws at every n, and the slope of their logarithm."""
    rows = []
    for name, depth, share in cases:
        means = []
        for n in sizes:
            found = [measure(name, depth, share, n, ("gaussian", "ternary")[k % 2], seed + k) for k in range(draws)]
            means.append({key: float(np.mean([row[key] for row in found])) for key in COLUMNS})
        slope = {key: float(np.polyfit(np.log(sizes), np.log([row[key] for row in means]), 1)[0]) for key in COLUMNS}
        rows.append(
            {"activation": name, "depth": depth, "share": share, "sizes": sizes, "means": means, "slope": slope}
        )
    return rows


def panel(axes: Any, name: str, depth: int, share: float, kind: str, n: int, seed: int) -> None:
    """One histogram under its density."""
    net = rn.Network([name] * depth)
    x, finite, widths = draw_network(net, n, share, "ternary", seed)
    law = linear_width_spectrum(
        net,
        widths,
        n,
        np.linalg.eigvalsh(x @ x.T),
        kind=kind,
        network=finite,  # type: ignore[arg-type]
    )
    sampled = np.linalg.eigvalsh(getattr(finite, kind)(x))
    low, high = max(law.edges[0, 0], 1e-6 * law.mean), law.edges[-1, 1]  # a hard edge is at 0
    bulk = sampled[sampled > 0.3 * low]  # without the eigenvalues that are 0 up to rounding
    bins = np.geomspace(bulk.min() * 0.97, max(bulk.max(), high) * 1.03, 60)
    counts, _ = np.histogram(bulk, bins)
    heights = counts / (n * np.diff(np.log(bins)))
    axes.stairs(heights, bins, fill=True, color="#0072B2", alpha=0.4)
    spread = np.concatenate([np.geomspace(1e-9, 1e-3, 60), np.linspace(1e-3, 1.0, 400)])  # close to the lower edge
    grid = low * (high / low) ** spread
    axes.plot(grid, grid * law.density(grid), color="#D55E00", linewidth=1.4)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(0.0, 1.35 * float(heights.max()))
    axes.set_title(f"{kind.upper()}, {name} ×{depth}, d/n = {share:g}", fontsize=9)
    note = f"KS {distance(law, sampled):.3f}"
    if law.atoms:
        note += f"\natom {law.atoms[0][1]:.2f} at {law.atoms[0][0]:.2f}"
    axes.text(0.97, 0.96, note, transform=axes.transAxes, ha="right", va="top", fontsize=8)


def draw(n: int, seed: int) -> Figure:
    """CK above, NTK below, over depths and widths."""
    cases = [("relu", 1, 0.5), ("relu", 2, 2.0), ("tanh", 2, 1.0), ("erf", 3, 1.0), ("tanh", 3, 0.5)]
    figure = Figure(figsize=(3.1 * len(cases), 5.6), layout="constrained")
    axes = figure.subplots(2, len(cases))
    for column, (name, depth, share) in enumerate(cases):
        for row, kind in enumerate(("ck", "ntk")):
            panel(axes[row, column], name, depth, share, kind, n, seed + column)
            axes[1, column].set_xlabel("eigenvalue λ")
    axes[0, 0].set_ylabel("density of log λ")
    axes[1, 0].set_ylabel("density of log λ")
    figure.suptitle(
        f"Eigenvalues of sampled ternary networks (blue) and their linear-width limit, n = {n}, p = {SHAPE:g} n"
    )
    return figure


def main() -> None:
    """Measure, print, write JSON and the figure."""
    args = parser(__doc__ or "").parse_args()
    sizes, draws = ([100, 150, 200], 2) if args.quick else ([250, 500, 1000, 2000], 4)
    names, depths, shares = ("relu", "tanh", "erf"), (1, 2, 3), (0.5, 1.0, 2.0)
    cases = [(a, d, s) for a in names for d in depths for s in shares]
    if args.quick:
        cases = [("relu", 1, 0.5), ("tanh", 2, 1.0), ("erf", 3, 2.0)]
    rows = slopes(sizes, draws, args.seed, cases)
    print(
        f"Mean KS distance of {draws} draws (Gaussian and ternary in turn) at n = {sizes[-1]}, slope over n in brackets"
    )
    print(f"{'network':14}{'d/n':>5}" + "".join(f"{key:>22}" for key in COLUMNS))
    for row in rows:
        cells = "".join(f"{row['means'][-1][key]:14.4f} ({row['slope'][key]:5.2f})" for key in COLUMNS)
        print(f"{row['activation']} ×{row['depth']:<9}{row['share']:>5g}{cells}")
    figure = draw(200 if args.quick else 2000, args.seed + 1000)
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "linear_width.png", dpi=110)
    path = save(args.out, "linear_width", args, {"rows": rows})
    print(f"written: {args.out / 'linear_width.png'}, {path}")


if __name__ == "__main__":
    main()
