"""Figure 2 of NTK-LC: eigenvalues and leading eigenvector of an exact kernel against its equivalent.

Left pair: a two-class Gaussian mixture; right pair: MNIST digits 6 against 8 (from the data extra). The paper
shows the NTK of a three-layer ReLU network; both kernels are drawn here, and the distances printed.
"""

import warnings
from typing import Any

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from numpy.typing import NDArray

import rmtntk as rn
from rmtntk.data import Scaling, load
from rmtntk.workflow.verification import example_mixture

Array = NDArray[np.float64]
NETWORK = rn.Network(["relu", "relu", "relu"])


def mixture_case(n: int, seed: int) -> tuple[str, Array, Any, rn.GaussianMixture]:
    """Draw n samples of the example mixture with p = n/2, class after class."""
    mixture = example_mixture(n // 2)
    x, labels = mixture.sample(n, seed, stratified=True)
    return f"Gaussian mixture, n = {n}, p = {n // 2}", x, labels, mixture


def mnist_case(n: int, seed: int) -> tuple[str, Array, Any, rn.GaussianMixture]:
    """Take n digits, sixes then eights, centred and scaled; the population is estimated from all of them."""
    data = load("mnist5k")
    chosen = np.isin(data.labels, (6, 8))
    x, labels = data.x[chosen], data.labels[chosen]
    x = Scaling.fit(x).transform(x)
    mixture = rn.GaussianMixture.from_data(x, labels)
    generator = np.random.default_rng(seed)
    rows = np.concatenate([generator.permutation(np.flatnonzero(labels == digit))[: n // 2] for digit in (6, 8)])
    return f"MNIST 6 and 8, n = {len(rows)}, p = {x.shape[1]}", x[rows], labels[rows], mixture


def measure(name: str, x: Array, labels: Any, mixture: rn.GaussianMixture, kind: str) -> dict[str, Any]:
    """Exact kernel and equivalents on one data set."""
    net = NETWORK.with_tau0(float(np.sqrt((x**2).sum() / len(x))))
    kernel = getattr(rn, kind)(net, x)
    row: dict[str, Any] = {"data": name, "kind": kind, "n": len(x), "p": x.shape[1], "tau0": net.tau0}
    spectra = {"exact": np.linalg.eigh(kernel)}
    for form in ("none", "diagonal", "second_order"):
        eq = rn.equivalent(net, x, labels, kind=kind, mixture=mixture, correction=form)  # type: ignore[arg-type]
        row[form] = rn.spectral_error(kernel, eq)
        spectra[form] = np.linalg.eigh(eq.to_dense())
    row["spectra"] = spectra
    row["alignment"] = float(abs(spectra["exact"][1][:, -1] @ spectra["none"][1][:, -1]))
    return row


def draw(rows: list[dict[str, Any]]) -> Figure:
    """One column a case: histogram above, leading eigenvector below."""
    figure = Figure(figsize=(4.4 * len(rows), 6.4), layout="constrained")
    axes = figure.subplots(2, len(rows))
    styles = {
        "exact": ("#0072B2", "exact K"),
        "none": ("#D55E00", "equivalent K̃"),
        "second_order": ("#009E73", "second order"),
    }
    for column, row in enumerate(rows):
        top, bottom = axes[0, column], axes[1, column]
        values = {name: row["spectra"][name][0] for name in styles}
        edges = np.linspace(min(v.min() for v in values.values()), max(v.max() for v in values.values()), 60)
        top.hist(values["exact"], edges, color=styles["exact"][0], alpha=0.45, label=styles["exact"][1])
        for name in ("none", "second_order"):
            top.hist(values[name], edges, histtype="step", color=styles[name][0], linewidth=1.4, label=styles[name][1])
        top.set_yscale("log")
        top.set_ylim(bottom=0.6)
        top.set_title(f"{row['kind'].upper()} — {row['data']}", fontsize=9.5)
        top.set_xlabel("eigenvalue")
        top.set_ylabel("count")
        exact = row["spectra"]["exact"][1][:, -1]
        for name, width, alpha in (("exact", 2.0, 0.45), ("none", 0.45, 1.0)):
            vector = row["spectra"][name][1][:, -1]
            vector = vector * np.sign(vector @ exact or 1.0)
            bottom.plot(vector, color=styles[name][0], linewidth=width, alpha=alpha)
        bottom.axvline(row["n"] / 2, color="0.5", linestyle=":", linewidth=1)
        bottom.set_xlabel("sample, by class")
        bottom.set_ylabel("leading eigenvector")
    axes[0, 0].legend(fontsize=8)
    return figure


def main() -> None:
    """Measure, print, write JSON and the figure."""
    warnings.simplefilter("ignore", rn.AssumptionWarning)  # digits are no mixture; the table says how far off it is
    args = parser(__doc__ or "").parse_args()
    n = 400 if args.quick else 3000
    cases = [mixture_case(n, args.seed), mnist_case(min(n, 1000), args.seed)]
    rows = [measure(*case, kind) for case in cases for kind in ("ck", "ntk")]
    print("‖K − K̃‖/‖K‖ for three ReLU layers")
    print(f"{'data':38}{'kernel':8}{'theorem':>10}{'diagonal':>10}{'2nd order':>11}{'alignment':>11}")
    for row in rows:
        print(
            f"{row['data']:38}{row['kind'].upper():8}{row['none']:10.4f}{row['diagonal']:10.4f}"
            f"{row['second_order']:11.5f}{row['alignment']:11.4f}"
        )
    figure = draw(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "figure2.png", dpi=110)
    for row in rows:
        row["eigenvalues"] = {name: value[0][::-1][:10].tolist() for name, value in row.pop("spectra").items()}
    path = save(args.out, "reproduce_figure2", args, {"rows": rows})
    print(f"written: {args.out / 'figure2.png'}, {path}")


if __name__ == "__main__":
    main()
