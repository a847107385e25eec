"""Each published statement that fails, beside the one that holds, and the number that shows it; docs/errata.md's rows.

Statements about kernels: ‖K − K̃‖ in operator norm over growing n = p, two classes that differ in mean and covariance.
One that holds has a slope near -1/2 in log-log; one that fails levels off. "script" is the code published with the
paper (github.com/Model-Compression/Lossless_Compression, code/spectral_characteristics/tilde_ntk.py and tilde_CK.py).
"""

from dataclasses import replace
from typing import Any

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

import rmtntk as rn
from rmtntk import activations
from rmtntk.coefficients import Coefficients
from rmtntk.equivalents import operator_norm
from rmtntk.workflow.verification import example_mixture

Array = NDArray[np.float64]
EPSILON = 0.9  # sparsity of the ternary weights
HOLDS = -0.35  # a slope below counts as convergence; the theory's is -1/2


# The equivalent in plain NumPy, from its numbers


def dense(x: Array, labels: Any, mixture: rn.GaussianMixture, c: tuple[float, float, float], shift: float) -> Array:
    """c1 X Xᵀ + V A Vᵀ + shift · I, as in the paper."""
    p, t = x.shape[1], mixture.trace_deviations
    onehot = np.eye(mixture.n_classes)[labels]
    psi = ((x - mixture.means[labels] / np.sqrt(p)) ** 2).sum(axis=1) - mixture.traces[labels]
    corner = c[1] * np.outer(t, t) + c[2] * mixture.trace_products
    core = np.block([[corner, c[1] * t[:, None]], [c[1] * t[None, :], np.array([[c[1]]])]])
    factor = np.column_stack([onehot / np.sqrt(p), psi])
    result = c[0] * x @ x.T + factor @ core @ factor.T
    result[np.diag_indices_from(result)] += shift
    return np.asarray(result)


def preprint_beta(table: Coefficients) -> Coefficients:
    """β1 = α1 and β2 = α2, as in Theorem 2 of the preprint; β3 and κ are left right."""
    beta = table.beta.copy()
    beta[:, :2] = table.alpha[:, :2]
    return replace(table, beta=beta)


def script_kappa(net: rn.Network, tau0: float, *, start: bool, late: bool, twice: bool) -> float:
    """κ_L² as the published script has it: starting at τ_0, with moments at τ_l instead of τ_{l−1}, squared again."""
    kappa, tau = tau0 if start else tau0**2, tau0
    for act in net.activations:
        here = rn.moments(act, tau)
        tau = float(np.sqrt(here.variance))
        if late:
            here = rn.moments(act, tau)
        kappa = here.variance + kappa * here.d1_squared
    return kappa**2 if twice else kappa


def shifted_kappa(net: rn.Network, tau0: float) -> float:
    """κ_L² with E[σ'_{l−1}(τ_{l−2} ξ)²] in place of E[σ'_l(τ_{l−1} ξ)²] from the second layer on."""
    kappa, tau = tau0**2, tau0
    slope = rn.moments(net.activations[0], tau0).d1_squared
    for act in net.activations:
        here = rn.moments(act, tau)
        kappa = here.variance + kappa * slope
        tau, slope = float(np.sqrt(here.variance)), here.d1_squared
    return kappa


# Rows over n


def relu_rows(n: int, seed: int) -> dict[str, float]:
    """Three ReLU layers: the theorem's c and the preprint's β."""
    mixture = example_mixture(n)
    tau0 = mixture.tau0
    net = rn.Network(["relu"] * 3, tau0=tau0)
    table = rn.coefficients(net, tau0)
    x, labels = mixture.sample(n, seed, stratified=True)
    ck, ntk = rn.ck_ntk(net, x)
    rows = {}
    gap = ck - dense(x, labels, mixture, table.linear("ck"), table.shift("ck"))
    rows["CK, α: c = τ_L² − τ_0² α1 (here)"] = operator_norm(gap)
    extra = -(tau0**4) * table.linear("ck")[2]
    rows["CK, α: c with an additional −τ_0⁴ α3 (paper, script)"] = operator_norm(gap - extra * np.eye(n))
    gap = ntk - dense(x, labels, mixture, table.linear("ntk"), table.shift("ntk"))
    rows["NTK, β: c = κ_L² − τ_0² β1 (here)"] = operator_norm(gap)
    extra = -(tau0**4) * table.linear("ntk")[2]
    rows["NTK, β: c with an additional −τ_0⁴ β3 (paper, script)"] = operator_norm(gap - extra * np.eye(n))
    old = preprint_beta(table)
    gap = ntk - dense(x, labels, mixture, old.linear("ntk"), old.shift("ntk"))
    rows["NTK, β: β1 = α1, β2 = α2 (preprint)"] = operator_norm(gap)
    return rows


def kappa_rows(n: int, seed: int) -> dict[str, float]:
    """The script's κ, on data of scale τ_0 = 1.5 that its start can tell from τ_0²."""
    unit = example_mixture(n)
    factor = 1.5 / unit.tau0
    mixture = rn.GaussianMixture(factor * unit.means, factor**2 * unit.covariances)
    net = rn.Network(["relu"] * 3, tau0=mixture.tau0)
    table = rn.coefficients(net, mixture.tau0)
    x, labels = mixture.sample(n, seed, stratified=True)
    gap = rn.ntk(net, x) - dense(x, labels, mixture, table.linear("ntk"), table.shift("ntk"))
    rows = {"NTK, τ_0 = 1.5: κ_l² = τ_l² + κ_{l−1}² E[σ'²] from τ_0² (here)": operator_norm(gap)}
    for label, options in SCRIPT.items():
        wrong = script_kappa(net, mixture.tau0, **options) - table.kappa_sq[-1]
        rows[f"NTK, τ_0 = 1.5: κ² {label} (script)"] = operator_norm(gap - wrong * np.eye(n))
    return rows


SCRIPT = {
    "starts at τ_0": {"start": True, "late": False, "twice": False},
    "from τ after its update": {"start": False, "late": True, "twice": False},
    "squared twice": {"start": False, "late": False, "twice": True},
    "with all three": {"start": True, "late": True, "twice": True},
}


def tanh_rows(n: int, seed: int) -> dict[str, float]:
    """Three tanh layers, where E[σ'²] depends on the scale."""
    mixture = example_mixture(n)
    net = rn.Network(["tanh"] * 3, tau0=mixture.tau0)
    table = rn.coefficients(net, mixture.tau0)
    x, labels = mixture.sample(n, seed, stratified=True)
    gap = rn.ntk(net, x) - dense(x, labels, mixture, table.linear("ntk"), table.shift("ntk"))
    wrong = shifted_kappa(net, mixture.tau0) - table.kappa_sq[-1]
    return {
        "NTK, tanh: κ_l² with σ'_l(τ_{l−1}) (here)": operator_norm(gap),
        "NTK, tanh: κ_l² with σ'_{l−1}(τ_{l−2}), l ≥ 2 (preprint)": operator_norm(gap - wrong * np.eye(n)),
    }


def law_rows(n: int, seed: int) -> dict[str, float]:
    """σ(t) = t², one layer, ternary weights: its kernel is a polynomial in the moments of the weights, exactly."""
    kappa4 = 1.0 / (1.0 - EPSILON) - 3.0
    mixture = example_mixture(n)
    tau0 = mixture.tau0
    net = rn.Network([activations.monomial(2)], tau0=tau0)
    table = rn.coefficients(net, tau0)
    x, labels = mixture.sample(n, seed, stratified=True)
    square = x * x
    term = kappa4 * square @ square.T
    kernel = rn.ck(net, x) + term  # E[u²v²] = |x|²|y|² + 2 (x·y)² + κ4 Σ x_k² y_k²
    gap = kernel - dense(x, labels, mixture, table.linear("ck"), table.shift("ck"))
    np.fill_diagonal(term, 0.0)
    return {
        "CK, t², ternary weights: no term of the law (both papers)": operator_norm(gap),
        "CK, t², ternary weights: + ¼ κ4 h2² (X∘X)(X∘X)ᵀ (here)": operator_norm(gap - term),
    }


# Rows without n


def kappa_values() -> list[tuple[str, str, str]]:
    """κ_3² of three ReLU layers at τ_0 = 1 and 1.2."""
    net = rn.Network(["relu"] * 3)
    rows = []
    for tau0 in (1.0, 1.2):
        right = rn.coefficients(net, tau0).kappa_sq[-1]
        for label, options in SCRIPT.items():
            wrong = script_kappa(net, tau0, **options)
            rows.append((f"κ_3² of 3 ReLU layers, τ_0 = {tau0}, {label}", f"{wrong:.4f}", f"{right:.4f}"))
    return rows


def step_values() -> list[tuple[str, str, str]]:
    """E[σ'²] of erf(t/h) as it approaches the sign: it grows like 1/h, and κ with it."""
    rows = []
    for h in (1e-1, 1e-2, 1e-3):
        act = activations.erf_with(rate=1.0 / h)
        rows.append(
            (f"κ_1² of erf(t/{h:g}), τ_0 = 1", f"{rn.coefficients(rn.Network([act]), 1.0).kappa_sq[-1]:.1f}", "∞")
        )
    limit = rn.coefficients(rn.Network(["sign"]), 1.0).kappa_sq[-1]
    rows.append(("κ_1² of sign, τ_0 = 1: κ of a step activation", "finite", str(limit)))
    return rows


def matching_values() -> list[tuple[str, str, str]]:
    """Algorithm 1: what its last layer asks of three levels, and what three levels can do."""
    wanted = rn.coefficients(rn.Network(["relu"]), 1.0)
    match = rn.match(rn.Network(["relu"]), 1.0, method="tight")
    table = rn.coefficients(rn.Network(match.activations), 1.0)
    least = table.tau[-1] ** 2 * wanted.alpha[-1, 0] / table.alpha[-1, 0]
    odd = rn.match(rn.Network(["tanh"] * 2), 1.0, method="paper", n_starts=5)
    return [
        ("τ_1² of three levels with ReLU's h1, h2, τ_0 = 1 (Algorithm 1, last layer)", f"{wanted.tau[-1] ** 2:.4f}",
         f"≥ {least:.4f} found"),
        ("residual of α2, α3 for 2 tanh layers (Algorithm 1: σ_T has E[σ''] = 0 only as a → ∞)", "0",
         f"{odd.residual:.3g}, feasible: {odd.feasible}"),
    ]  # fmt: skip


def memory_values() -> list[tuple[str, str, str]]:
    """Bits a ternary weight takes: what the published count says and the entropy, which no code goes below."""
    rows = []
    for epsilon in (0.5, 0.9, 0.95):
        entropy = -epsilon * np.log2(epsilon) - (1.0 - epsilon) * np.log2((1.0 - epsilon) / 2.0)
        rows.append((f"bits a weight at ε = {epsilon:g} (script: 1 − ε)", f"{1.0 - epsilon:.3f}", f"≥ {entropy:.3f}"))
    return rows


def draw(sizes: tuple[int, ...], table: dict[str, list[float]]) -> Figure:
    """One panel a kernel; grey falls like n^-1/2, red levels off."""
    groups = {
        "CK, three ReLU layers": [name for name in table if name.startswith("CK, α")],
        "NTK, three ReLU layers": [name for name in table if name.startswith("NTK, β")],
        "NTK, three ReLU layers, τ_0 = 1.5: κ": [name for name in table if name.startswith("NTK, τ_0")],
        "NTK, three tanh layers: κ": [name for name in table if name.startswith("NTK, tanh")],
        "CK, one layer t², ternary weights": [name for name in table if name.startswith("CK, t²")],
    }
    figure = Figure(figsize=(16.0, 8.0), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    axes[-1].set_axis_off()
    reds = ("#D55E00", "#CC79A7", "#E69F00", "#8C564B", "#B22222", "#7F3C8D")
    for panel, (title, names) in zip(axes[: len(groups)], groups.items(), strict=True):
        count = 0
        for name in names:
            good = "(here)" in name
            colour = "#0072B2" if good else reds[count % len(reds)]
            count += not good
            panel.loglog(sizes, table[name], "o-", color=colour, linewidth=2.4 if good else 1.4, markersize=4,
                         label=name.split(": ", 1)[1])  # fmt: skip
        first = next(table[name] for name in names if "(here)" in name)
        panel.loglog(
            sizes, 0.85 * first[0] * (np.array(sizes) / sizes[0]) ** -0.5, color="0.7", linewidth=1, linestyle="--"
        )
        panel.set_xticks(sizes, [str(n) for n in sizes])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_title(title, fontsize=10.5)
        panel.set_xlabel("n = p (dashed: slope −½)")
        panel.set_ylabel("‖K − K̃‖")
        panel.grid(alpha=0.2, which="both")
        panel.legend(fontsize=7.5)
    return figure


def main() -> None:
    """Measure, print, write JSON and the figure."""
    args = parser(__doc__ or "").parse_args()
    sizes = (200, 400, 800) if args.quick else (500, 1000, 2000, 4000)
    draws = 1 if args.quick else 2
    table: dict[str, list[float]] = {}
    for n in sizes:
        found: dict[str, list[float]] = {}
        for draw_ in range(draws):
            for rows in (relu_rows, kappa_rows, tanh_rows, law_rows):
                for name, value in rows(n, args.seed + draw_).items():
                    found.setdefault(name, []).append(value)
        for name, values in found.items():
            table.setdefault(name, []).append(float(np.mean(values)))
    slopes = {name: float(np.polyfit(np.log(sizes), np.log(values), 1)[0]) for name, values in table.items()}
    print(f"‖K − K̃‖ by n = p, mean of {draws} draws{'':30}" + "".join(f"{n:>9}" for n in sizes) + "    slope")
    for name, values in table.items():
        verdict = "" if slopes[name] < HOLDS else "  does not converge"
        print(f"{name:66}" + "".join(f"{value:9.4f}" for value in values) + f"{slopes[name]:9.2f}{verdict}")
    numbers = {
        "κ of the script": kappa_values(),
        "NTK of steps": step_values(),
        "matching": matching_values(),
        "memory": memory_values(),
    }
    print(f"\n{'statement':88}{'published':>10}   right")
    for rows_ in numbers.values():
        for name, published, right in rows_:
            print(f"{name:88}{published:>10}   {right}")
    args.out.mkdir(parents=True, exist_ok=True)
    draw(sizes, table).savefig(args.out / "errata.png", dpi=110)
    content = {"sizes": sizes, "rows": table, "slopes": slopes, "numbers": numbers}
    print(f"written: {args.out / 'errata.png'}, {save(args.out, 'errata', args, content)}")


if __name__ == "__main__":
    main()
