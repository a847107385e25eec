r"""The matching problem in units where it is scale-free, and its result.

A step layer is l(t) = a·q_j for r_j λ ≤ t < r_{j+1} λ: amplitude a, shape q (levels at a = 1), thresholds r in
units of the argument's standard deviation λ. With Δ the jumps of q, q̄ its mean and φ the normal density,

    S1 = Σ Δ_j φ(r_j),   S2 = Σ Δ_j r_j φ(r_j),   Sg = ½ Σ Δ_j (q_j + q_{j-1} − 2 q̄) r_j φ(r_j),   V = Var q

give h1 = a S1/λ, h2 = a S2/λ², g = a² Sg/λ², τ² = a² V. Any number of levels k has k − 1 thresholds.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from rmtntk._jit import steps
from rmtntk._typing import FloatArray
from rmtntk.activations import Activation, step
from rmtntk.coefficients import Coefficients, alpha_beta, coefficients
from rmtntk.matching.bounds import least_ridge
from rmtntk.network import Network, layer_scales

__all__ = [
    "SHAPES",
    "Layer",
    "Match",
    "Target",
    "evaluate",
    "finish",
    "infeasible",
    "quiet_search",
    "ratios",
    "residual_of",
    "target_of",
]

Objective = Literal["ck", "ntk", "both"]

# Shapes with two thresholds; {0,1,0} and {0,1,2} are these up to sign and a constant, which centring removes.
SHAPES: tuple[tuple[float, ...], ...] = ((-1.0, 0.0, 1.0), (1.0, 0.0, 1.0))


class StepSums(NamedTuple):
    """S1, S2, Sg and V of a shape at given thresholds."""

    s1: FloatArray | float
    s2: FloatArray | float
    sg: FloatArray | float
    v: FloatArray | float


class Layer(NamedTuple):
    """A step layer: thresholds r in units of its argument's standard deviation, shape q, amplitude a."""

    r: tuple[float, ...]
    shape: tuple[float, ...]
    amplitude: float


@dataclass(frozen=True, eq=False)
class Target:
    """What is to be matched: the dense network's moments |h1|, |h2|, |g|, and its last α (4,) and β (3,).

    Moments that are zero by symmetry are exactly 0 here, and so are the coefficients they make vanish.
    """

    net: Network
    tau0: float
    coefficients: Coefficients
    scale: FloatArray
    h1: FloatArray
    h2: FloatArray
    g: FloatArray
    alpha: FloatArray
    beta: FloatArray

    @property
    def depth(self) -> int:
        """Number of layers."""
        return self.net.depth

    @property
    def unit(self) -> float:
        """The coefficient that others are compared with: α1, or the larger of α2, α3 where α1 = 0."""
        return float(self.alpha[ratios(self.alpha)[1]])

    @property
    def silent_layer(self) -> int | None:
        """First layer (0-based) with h1 = h2 = 0, if there is one."""
        silent = np.flatnonzero((self.h1 == 0.0) & (self.h2 == 0.0))
        return int(silent[0]) if len(silent) else None

    def needs_g(self, layer: int) -> bool:
        """Whether α4 of `layer` (0-based) reaches a later layer's α2."""
        return bool((self.h2[layer + 1 :] > 0.0).any())


@dataclass(frozen=True, eq=False)
class Match:
    """Step activations whose kernels match those of a dense network, and how well.

    Attributes
    ----------
    activations : tuple of Activation
        One step function a layer, in units of its argument; empty if nothing was found.
    residual : float
        Largest relative deviation of α2/α1 and α3/α1 (β's for ``objective="ntk"``); absolute where the
        target is 0; of α2 and α3 alone, relative to the larger, where α1 = 0.
    excess : float
        (c' − c)/α1: how much larger the implicit ridge c I of the ternary network is, in units of the
        linear coefficient (of α2 or α3 where α1 = 0).
    excess_bound : float
        Proven: no network of steps with as many levels (consecutive pieces, of any heights) and these coefficients has
        a smaller excess (:mod:`rmtntk.matching.bounds`). Rounding aside, of the order of 1e-12.
    feasible : bool
        Whether the residual is below 1e-10; for "paper", whether it and the misfit of the algorithm's own equations
        are below 1e-6.
    message : str
        One sentence: what was found, or which coefficient cannot be reached.
    method, objective : str
        How it was found; which kernel's coefficients agree ("ck", "ntk" or "both").
    tau0 : float
        Input scale it is made for.
    unit : float
        What the excess is in units of: α1, or the larger of α2 and α3 where α1 = 0.
    coefficients, target : Coefficients
        Of the step network (None if nothing was found) and of the dense one.
    risk : float, optional
        What ``method="data"`` minimises; None for the others.
    """

    activations: tuple[Activation, ...]
    residual: float
    excess: float
    excess_bound: float
    feasible: bool
    message: str
    method: str
    objective: Objective
    tau0: float
    unit: float
    coefficients: Coefficients | None = field(repr=False)
    target: Coefficients = field(repr=False)
    risk: float | None = None

    @property
    def gap(self) -> float:
        """Excess less its bound or 0, whichever is larger: the answer is within this of the best (where feasible).

        Below 0 there is nothing to win, and an excess below 0 is given only where the levels allow no other: then it
        is compared with the bound alone.
        """
        return self.excess - max(self.excess_bound, min(self.excess, 0.0))


FEASIBLE_RESIDUAL = 1e-10


def evaluate(r: FloatArray, shape: tuple[float, ...]) -> StepSums:
    """S1, S2, Sg, V for thresholds of shape (..., k − 1) and a shape of k levels."""
    points = np.ascontiguousarray(r, dtype=np.float64).reshape(-1, len(shape) - 1)
    out = np.empty((len(points), 4))
    steps.sums_table(points, np.array(shape, dtype=np.float64), out)
    fields = out.T.reshape(4, *np.shape(r)[:-1])
    return StepSums(*(field if field.ndim else float(field) for field in fields))


def target_of(net: Network, tau0: float) -> Target:
    """Compute what is to be matched; moments below 1e-13 of the activation's scale count as 0."""
    table = coefficients(net, tau0)
    scales = layer_scales(net, tau0)
    unit = np.array([math.sqrt(float(m.second[0])) for m in scales.moments])
    lam = scales.scale

    def moment(name: str, power: int, degree: int) -> FloatArray:
        values = np.array([abs(float(getattr(m, name)[0])) for m in scales.moments])
        return np.where(values * lam**power <= 1e-13 * unit**degree, 0.0, values)

    h1, h2, g = moment("d1", 1, 1), moment("d2", 2, 1), moment("half_d2_squared", 2, 2)
    alpha, beta = alpha_beta(h1, h2, g, net.weight_std**2)
    return Target(net, tau0, table, lam, h1, h2, g, alpha[-1], beta[-1])


def ratios(row: FloatArray) -> tuple[FloatArray, int]:
    """(α1, α2, α3) over the reference: α1, or the larger of the others where α1 = 0."""
    reference = 0 if row[0] > 0.0 else (1 if row[1] >= row[2] else 2)
    unit = row[reference] if row[reference] > 0.0 else 1.0
    return row[:3] / unit, reference


def residual_of(row: FloatArray, target: FloatArray) -> float:
    """Largest relative deviation of the ratios, absolute where the target is 0."""
    wanted, reference = ratios(target)
    if row[reference] <= 0.0:
        return math.inf
    got = row[:3] / row[reference]
    unit = np.where(wanted > 0.0, wanted, 1.0)
    return float((np.abs(got - wanted) / unit).max())


def build(target: Target, layers: list[Layer]) -> tuple[Activation, ...]:
    """Put thresholds into the units of each layer's argument, and scale the last layer so that α1' = α1.

    Where α1 = 0 the larger of α2 and α3 sets the scale instead.
    """
    activations = []
    tau = target.tau0
    for layer in layers:
        lam = target.net.weight_std * tau
        activations.append(step([lam * r for r in layer.r], [layer.amplitude * q for q in layer.shape]))
        tau = layer.amplitude * math.sqrt(float(evaluate(np.array(layer.r), layer.shape).v))
    reference = ratios(target.alpha)[1]
    reached = coefficients(target.net.with_activations(activations), target.tau0).alpha[-1, reference]
    if reached > 0.0:
        last = activations[-1]
        activations[-1] = step(last.thresholds, math.sqrt(target.unit / reached) * last.levels)
    return tuple(activations)


def excess_bound(target: Target, levels: int, objective: Objective) -> float:
    r"""Lower bound of (c' − c)/α1 over all networks of `levels`-piece steps with the target's coefficients.

    With α1 = 0 there is a layer with S1 = 0, and τ_L² ≥ 2 τ_0⁴ α3/(Z u^{L−1}) with Z and u the greatest z and u.
    """
    row = target.alpha
    if target.unit == 0.0:
        return -math.inf
    c = target.coefficients.shift("ck")
    if row[0] == 0.0:
        ridge = least_ridge(levels).even(target.depth) * target.tau0**4 * row[2]
        return float((ridge - c) / target.unit)
    depth = target.depth
    options = []
    if objective in ("ck", "both"):
        # α3/α1 τ_0² = Σ ½ s_l p_{l−1}, s = S2²/S1², p the product of the u's
        options.append((target.tau0**2 * row[2] / row[0], [0.5] * depth))
    if objective in ("ntk", "both"):
        weights = [0.5 * (depth - k) + k + 1.0 for k in range(depth)]
        options.append(((depth + 1.0) * target.tau0**2 * target.beta[2] / target.beta[0], weights))
    inflation = max(least_ridge(levels).network(total, weights) for total, weights in options)
    return float((target.tau0**2 * row[0] * (inflation - 1.0) - c) / target.unit)


def finish(
    target: Target, layers: list[Layer], method: str, objective: Objective, *, levels: int | None = None
) -> Match:
    """Measure a solution with the network's own coefficients and describe it.

    `levels` is that of the family, for the bound; the most any layer has if not given.
    """
    activations = build(target, layers)
    levels = levels or max(len(layer.shape) for layer in layers)
    table = coefficients(target.net.with_activations(activations), target.tau0)
    rows = []
    if objective in ("ck", "both"):
        rows.append((table.alpha[-1], target.alpha))
    if objective in ("ntk", "both"):
        rows.append((table.beta[-1], target.beta))
    residual = max(residual_of(row, goal) for row, goal in rows)
    excess = float((table.shift("ck") - target.coefficients.shift("ck")) / target.unit)
    feasible = bool(residual <= FEASIBLE_RESIDUAL)
    bound = excess_bound(target, levels, objective)
    if feasible:
        message = (
            f"all coefficients agree to {residual:.1e}; "
            f"the implicit ridge is {'larger' if excess >= 0.0 else 'smaller'} by {abs(excess):.3g} × "
            f"{'α1' if target.alpha[0] > 0.0 else 'max(α2, α3)'}, excess "
            f"at least {bound:.3g} with {levels} levels"
        )
    else:
        message = f"the coefficients differ by {residual:.3g} (relative)"
    return Match(
        activations, residual, excess, bound, feasible,
        message, method, objective, target.tau0, target.unit, table, target.coefficients,
    )  # fmt: skip


@contextmanager
def quiet_search() -> Iterator[None]:
    """Silence what a search may meet on its way: overflow far out, and SLSQP's rounding at the bounds."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Values in x were outside bounds", RuntimeWarning)  # older SciPy
        yield


def infeasible(target: Target, method: str, objective: Objective, reason: str, *, levels: int = 3) -> Match:
    """Return the answer that there is none."""
    bound = excess_bound(target, levels, objective) if target.silent_layer is None else -math.inf
    return Match(
        (), math.inf, math.inf, bound, False, reason, method, objective, target.tau0, target.unit, None,
        target.coefficients,
    )  # fmt: skip
