"""Limiting spectra against sampled exact kernels: bulk, outliers, alignments and their spread.

1. Kolmogorov-Smirnov distance of the whole spectrum of one sampled kernel to the limit and to the limit with the terms
   of order n^-1/2 put back ("at this n"). With p < n the limit has an atom, which no finite n has: its distance does
   not fall.
2. Outliers above the bulk and alignments, averaged over draws, of the exact kernel and of its equivalent; slope of the
   deviations over n.
3. Predicted standard deviation of the outliers against that of many draws of the equivalent.
4. Visibility thresholds of the means and of the covariances.
"""

import warnings
from typing import Any

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

import rmtntk as rn
from rmtntk.spectra import LimitingSpectrum, limiting_spectrum, visibility_threshold

Array = NDArray[np.float64]
NETWORKS = {"relu x1": ["relu"], "relu x3": ["relu"] * 3, "erf x1": ["erf"], "tanh x3": ["tanh"] * 3}


def mixtures(p: int) -> dict[str, rn.GaussianMixture]:
    """Two classes that differ in means, in covariances, and in both."""
    means = np.zeros((2, p))
    means[:, 0] = 2.0, -2.0
    shift = 2.0 / np.sqrt(p)
    second = np.where(np.arange(p) % 2 == 0, 0.4, 1.6) - shift
    return {
        "means": rn.GaussianMixture(means, np.ones(2)),
        "mixed": rn.GaussianMixture(means, np.stack([np.full(p, 1.0 + shift), second]), [0.4, 0.6]),
        "covariances": rn.GaussianMixture(np.zeros((2, p)), np.array([1.0 + 4.0 * shift, 1.0 - 4.0 * shift])),
    }


def distance(values: Array, spectrum: LimitingSpectrum, *, finite_size: bool) -> float:
    """Kolmogorov-Smirnov distance, both sides of every eigenvalue."""
    n = len(values)
    at = spectrum.cdf(values, finite_size=finite_size)
    before = spectrum.cdf(np.nextafter(values, -np.inf), finite_size=finite_size)
    return float(max(np.abs(at - np.arange(1, n + 1) / n).max(), np.abs(before - np.arange(n) / n).max()))


def bulk(n: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Part 1; also one case's eigenvalues for the figure."""
    rows, shown = [], {}
    for ratio in (0.5, 1.0, 2.0):
        mixture = mixtures(int(ratio * n))["mixed"]
        x, _ = mixture.sample(n, seed, stratified=True)
        for name, activations in NETWORKS.items():
            net = rn.Network(activations, tau0=mixture.tau0)
            for kind, kernel in zip(("ck", "ntk"), rn.ck_ntk(net, x), strict=True):
                spectrum = limiting_spectrum(net, mixture, n, kind=kind)  # type: ignore[arg-type]
                values = np.linalg.eigvalsh(kernel)
                row = {"network": name, "kind": kind, "n": n, "p / n": ratio}
                row["limit"] = distance(values, spectrum, finite_size=False)
                row["at this n"] = distance(values, spectrum, finite_size=True)
                rows.append(row)
                print(f"{name:10}{kind:5}{ratio:6.1f}{row['limit']:10.4f}{row['at this n']:12.4f}", flush=True)
                if kind == "ck" and name == "relu x3" and ratio != 1.0:
                    shown[f"CK, relu x3, p/n = {ratio}"] = (spectrum, values)
    return rows, shown


def leading(matrix: Any, count: int, labels: Any, psi: Array) -> tuple[Array, Array]:
    """Largest eigenvalues, descending, and squared cosines with the class indicators and ψ."""
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    values, vectors = eigsh(matrix, k=count, v0=start, tol=1e-8)
    order = np.argsort(values)[::-1]
    sides = np.column_stack([np.eye(labels.max() + 1)[labels], psi])
    sides /= np.linalg.norm(sides, axis=0)
    return values[order], (vectors[:, order].T @ sides) ** 2


def outliers(sizes: list[int], draws: int, seed: int) -> list[dict[str, Any]]:
    """Part 2."""
    rows = []
    for name in ("means", "mixed", "covariances"):
        for kind in ("ck", "ntk"):
            for activations in (["relu"], ["relu"] * 3):
                found: dict[str, list[float]] = {"exact": [], "equivalent": []}
                for n in sizes:
                    mixture = mixtures(n // 2)[name]
                    net = rn.Network(activations, tau0=mixture.tau0)
                    limit = limiting_spectrum(net, mixture, n, kind=kind, stratified=True)  # type: ignore[arg-type]
                    count = int((limit.outliers > limit.edges[-1, 1]).sum())
                    sums: dict[str, list[tuple[Array, Array]]] = {"exact": [], "equivalent": []}
                    for draw in range(draws if count else 0):
                        x, labels = mixture.sample(n, seed + draw, stratified=True)
                        eq = rn.equivalent(net, x, labels, kind=kind, mixture=mixture)  # type: ignore[arg-type]
                        centred = x - mixture.means[labels] / np.sqrt(x.shape[1])
                        psi = (centred**2).sum(axis=1) - mixture.traces[labels]
                        kernel = getattr(rn, kind)(net, x)
                        sums["exact"].append(leading(kernel, count, labels, psi))
                        sums["equivalent"].append(leading(eq, count, labels, psi))
                    for which, seen in sums.items():
                        if not seen:
                            continue
                        values = np.mean([v for v, _ in seen], axis=0)
                        cosines = np.mean([c for _, c in seen], axis=0)
                        off = float(np.abs(values / limit.outliers[:count] - 1.0).max())
                        turned = float(np.abs(cosines - limit.alignments[:count]).max())
                        found[which].append(off)
                        row = {"mixture": name, "kind": kind, "depth": len(activations), "n": n, "matrix": which}
                        row |= {"outliers": limit.outliers[:count], "observed": values, "deviation": off}
                        row |= {"noise": float((limit.spread / limit.outliers)[:count].max() / np.sqrt(draws))}
                        row |= {"alignment": turned}
                        rows.append(row)
                        print(
                            f"{name:13}{kind:5}{len(activations):3}{n:6} {which:11}{off:9.4f}{row['noise']:9.4f}"
                            f"{turned:9.4f}  {np.array2string(limit.outliers[:count], precision=4)}",
                            flush=True,
                        )
                if len(sizes) > 1:
                    for which, offs in found.items():
                        if len(offs) == len(sizes):
                            slope = float(np.polyfit(np.log(sizes), np.log(offs), 1)[0])
                            rows.append({"mixture": name, "kind": kind, "depth": len(activations),
                                         "matrix": which, "slope": slope})  # fmt: skip
                            print(f"    slope of the deviation, {which}: {slope:.2f}")
    return rows


def spread(n: int, draws: int, seed: int) -> list[dict[str, Any]]:
    """Part 3."""
    rows = []
    for name in ("means", "mixed", "covariances"):
        mixture = mixtures(n // 2)[name]
        net = rn.Network(["relu"] * 2, tau0=mixture.tau0)
        for stratified in (True, False):
            limit = limiting_spectrum(net, mixture, n, stratified=stratified)
            count = int((limit.outliers > limit.edges[-1, 1]).sum())
            if not count:
                continue
            values = []
            for draw in range(draws):
                x, labels = mixture.sample(n, seed + draw, stratified=stratified)
                eq = rn.equivalent(net, x, labels, mixture=mixture)
                values.append(leading(eq, count, labels, np.ones(n))[0])
            ratio = np.std(values, axis=0, ddof=1) / limit.spread[:count]
            rows.append({"mixture": name, "stratified": stratified, "n": n, "draws": draws,
                         "predicted": limit.spread[:count], "observed / predicted": ratio})  # fmt: skip
            error = 1.0 / np.sqrt(2.0 * draws)
            print(f"{name:13}{'fixed' if stratified else 'drawn':8}{np.round(ratio, 3)} ± {error:.3f}", flush=True)
    return rows


def thresholds(n: int) -> list[dict[str, Any]]:
    """Part 4."""
    rows = []
    for name, mixture in mixtures(n // 2).items():
        for what in ("means", "covariances"):
            found = visibility_threshold(rn.Network(["relu"]), mixture, n, what=what)  # type: ignore[arg-type]
            rows.append({"mixture": name, "what": what, "scale": found.scale, "message": found.message})
            print(f"{name:13}{what:13}{found.message}")
    return rows


def draw_figure(shown: dict[str, Any]) -> Figure:
    """One panel a case."""
    figure = Figure(figsize=(6.4 * len(shown), 4.0), layout="constrained")
    for axes, (title, (spectrum, values)) in zip(np.ravel(figure.subplots(1, len(shown))), shown.items(), strict=True):
        spectrum.plot(axes, eigenvalues=values, finite_size=True)
        axes.set_title(title, loc="left")
    return figure


def main() -> None:
    """Measure, print, write JSON and the figure."""
    warnings.simplefilter("ignore", rn.AssumptionWarning)  # the covariances' traces are at twice the limit on purpose
    args = parser(__doc__ or "").parse_args()
    print("Kolmogorov-Smirnov distance of the spectrum\nnetwork   kind   p/n     limit   at this n")
    bulk_rows, shown = bulk(500 if args.quick else 4000, args.seed)
    print("\noutliers and alignments, largest deviation of the mean over draws")
    print("mixture      kind depth   n  matrix     relative    noise   cosine²  predicted")
    sizes = [400] if args.quick else [1000, 2000, 4000]
    outlier_rows = outliers(sizes, 3 if args.quick else 8, args.seed)
    print("\nspread of the outliers, observed over predicted")
    spread_rows = spread(300 if args.quick else 1000, 40 if args.quick else 200, args.seed)
    print("\nvisibility")
    threshold_rows = thresholds(400 if args.quick else 2000)
    args.out.mkdir(parents=True, exist_ok=True)
    draw_figure(shown).savefig(args.out / "limiting_spectra.png", dpi=110)
    content = {"bulk": bulk_rows, "outliers": outlier_rows, "spread": spread_rows, "thresholds": threshold_rows}
    path = save(args.out, "limiting_spectra", args, content)
    print(f"written: {args.out / 'limiting_spectra.png'}, {path}")


if __name__ == "__main__":
    main()
