"""Each printed statement of NTK-LC that fails, beside the one that holds, by ‖K − K̃‖ over growing n = p.

Three ReLU layers on a two-class mixture. A statement that holds has a slope near -1/2 in log-log, one that
fails levels off.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from _common import parser, save

import rmtntk as rn
from rmtntk.coefficients import Coefficients
from rmtntk.equivalents import operator_norm
from rmtntk.workflow.verification import example_mixture

NETWORK = rn.Network(["relu", "relu", "relu"])


def extra_term(kind: str, table: Coefficients, tau0: float) -> float:
    """−τ0⁴ α3 (or β3), which the printed c of Theorems 1 and 2 has in excess."""
    return -(tau0**4) * table.linear(kind)[2]  # type: ignore[arg-type]


def preprint_beta(table: Coefficients) -> Coefficients:
    """β1 = α1 and β2 = α2, as in Theorem 2 of the preprint's first version; β3 and κ are left right."""
    beta = table.beta.copy()
    beta[:, :2] = table.alpha[:, :2]
    return replace(table, beta=beta)


def distances(n: int, draws: int, seed: int) -> dict[str, float]:
    """‖K − K̃‖ of every variant, averaged over draws."""
    mixture = example_mixture(n)
    net = NETWORK.with_tau0(mixture.tau0)
    table = rn.coefficients(net, mixture.tau0)
    variants = {
        ("ck", "corrected"): (table, 0.0),
        ("ck", "printed c (extra −τ0⁴ α3)"): (table, extra_term("ck", table, mixture.tau0)),
        ("ntk", "corrected"): (table, 0.0),
        ("ntk", "printed c (extra −τ0⁴ β3)"): (table, extra_term("ntk", table, mixture.tau0)),
        ("ntk", "preprint (β1 = α1, β2 = α2)"): (preprint_beta(table), 0.0),
    }
    total = {f"{kind.upper()} {name}": 0.0 for kind, name in variants}
    for draw in range(draws):
        x, labels = mixture.sample(n, seed + draw, stratified=True)
        kernels = dict(zip(("ck", "ntk"), rn.ck_ntk(net, x), strict=True))
        for (kind, name), (variant, extra) in variants.items():
            offset = extra
            eq = rn.equivalent(net, x, labels, kind=kind, mixture=mixture)  # type: ignore[arg-type]
            dense = eq.to_dense()
            new = variant.linear(kind)  # type: ignore[arg-type]
            if new != table.linear(kind):  # type: ignore[arg-type]
                change = core_for(mixture, new) - eq.core
                dense += (new[0] - table.linear(kind)[0]) * eq.rows @ eq.rows.T  # type: ignore[arg-type]
                dense += eq.factor @ change @ eq.factor.T
            offset += variant.shift(kind) - table.shift(kind)  # type: ignore[arg-type]
            np.fill_diagonal(dense, dense.diagonal() + offset)
            total[f"{kind.upper()} {name}"] += operator_norm(kernels[kind] - dense) / draws
    return total


def core_for(mixture: rn.GaussianMixture, c: tuple[float, float, float]) -> Any:
    """Matrix A for given (c1, c2, c3)."""
    t = mixture.trace_deviations
    corner = c[1] * np.outer(t, t) + c[2] * mixture.trace_products
    return np.block([[corner, c[1] * t[:, None]], [c[1] * t[None, :], np.array([[c[1]]])]])


def main() -> None:
    """Measure, print, write JSON."""
    args = parser(__doc__ or "").parse_args()
    sizes = (200, 400, 800) if args.quick else (500, 1000, 2000, 4000)
    rows = {n: distances(n, 1 if args.quick else 2, args.seed) for n in sizes}
    print("‖K − K̃‖ by n = p" + " " * 19 + "".join(f"{n:>9}" for n in sizes) + "    slope")
    slopes = {}
    for name in rows[sizes[0]]:
        values = [rows[n][name] for n in sizes]
        slopes[name] = float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
        print(f"{name:36}" + "".join(f"{value:9.4f}" for value in values) + f"{slopes[name]:9.2f}")
    print(f"written: {save(args.out, 'errata', args, {'rows': rows, 'slopes': slopes})}")


if __name__ == "__main__":
    main()
