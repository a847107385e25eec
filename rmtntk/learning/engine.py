r"""Scores of kernel methods on a Gaussian mixture, from the population only.

With X = Z + J Mᵀ/√p the equivalent of the kernel is K̃ = c1 Z Zᵀ + c I + U Ω Uᵀ, U = [J/√p, Z M, ψ], and the cross
kernel of x = μ_a/√p + z is c1 Z z + U Ω u with u = [e_a/√p, Mᵀ z, ψ(x)]. A method whose dual vector is
w = Σ_k weight_k (K̃ − z_k)^{-1} y has then scores

.. math:: f(x) = z^T g + (\eta_1)_a/\sqrt p + \eta_3 \psi(x), \qquad
          \eta = \Omega U^T w, \quad g = c_1 Z^T w + M \eta_2,

Gaussian in each class; means are in η, variances in gᵀ C_a g, whose limit needs two resolvents with C_a between them.
"""

from dataclasses import dataclass, replace

import numpy as np

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_real
from rmtntk.coefficients import coefficients
from rmtntk.equivalents import Kind
from rmtntk.errors import InfiniteDiagonalError
from rmtntk.learning.resolvent import Noise, Solution, noise_of
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network

__all__ = ["Model", "Node", "Scores", "conjugate", "model_of", "respond", "score_moments", "squared_dual"]


@dataclass(frozen=True, eq=False)
class Model:
    """The equivalent of a kernel at one sample size.

    Attributes
    ----------
    noise : Noise
    omega : ndarray, shape (2 K + 1, 2 K + 1)
        Ω.
    slope, shift : float
        c1, c.
    counts : ndarray, shape (K,)
        n_b = n · weight_b, not rounded.
    psi : ndarray, shape (K,)
        Variance 2 tr C_a²/p² of ψ.
    targets : ndarray, shape (K, m)
    noise_std : float
    centering : str
    """

    noise: Noise
    omega: FloatArray
    slope: float
    shift: float
    counts: FloatArray
    psi: FloatArray
    targets: FloatArray
    noise_std: float
    centering: str

    @property
    def n(self) -> float:
        """Number of training samples."""
        return float(self.counts.sum())

    @property
    def mean_target(self) -> FloatArray:
        """Mean of the training targets, shape (m,)."""
        return np.asarray(self.counts @ self.targets / self.counts.sum())


@dataclass(frozen=True, eq=False)
class Node:
    """Response at one point z: w = (K̃ − z)^{-1}(y − b) = R (U h + noise), R = (c1 Z Zᵀ + s)^{-1}, s = c − z.

    Attributes
    ----------
    point : complex
        z.
    solution : Solution
    diagonal : ndarray, shape (K,)
        r_b, the limit of R_ii.
    h, eta : ndarray, shape (2 K + 1, m)
    intercept : ndarray, shape (m,)
        b.
    product : ndarray, shape (m,)
        yᵀ w of every output, without label noise.
    """

    point: complex
    solution: Solution
    diagonal: AnyArray
    h: AnyArray
    eta: AnyArray
    intercept: AnyArray
    product: AnyArray


@dataclass(frozen=True, eq=False)
class Scores:
    """Class-wise limits of the scores: means (K, m) and covariances (K, m, m)."""

    means: FloatArray
    covariances: FloatArray


def model_of(
    net: Network,
    mixture: GaussianMixture,
    n: float,
    kind: Kind,
    targets: FloatArray,
    noise_std: float,
    tau0: float | None,
    centering: str,
) -> Model:
    """Collect what the equivalent needs; "fan_in" divides the data by √p."""
    p = mixture.n_features
    unit = net.input_factor(p)
    if tau0 is None:
        tau0 = net.tau0 if net.tau0 is not None else mixture.tau0 * float(np.sqrt(unit))
    table = coefficients(net, check_real(tau0, "tau0", low=0.0, open_low=True))
    c1, c2, c3 = table.linear(kind)
    shift = table.shift(kind)
    if not np.isfinite(shift):
        raise InfiniteDiagonalError(
            "the NTK of a network with jumps (steps, sign, heaviside) has an infinite diagonal and no learning curve: "
            "use kind='ck'"
        )
    counts = n * mixture.weights
    means = mixture.means * np.sqrt(unit)
    noise = noise_of(means, mixture.covariances * unit, counts / p, c1)
    t = unit * mixture.trace_deviations
    products = unit**2 * mixture.trace_products
    k = mixture.n_classes
    psi = 2.0 * np.diag(products) / p
    omega = np.zeros((2 * k + 1, 2 * k + 1))
    omega[:k, k : 2 * k] = omega[k : 2 * k, :k] = c1 * np.eye(k)
    omega[-1, -1] = c2
    if table.has_offset:
        # the constant part F + F' (δ_i + δ_j) + ½F'' (δ_i² + δ_j²), δ = ‖x‖² − τ_0² = (J/√p) t + ψ, 1 = (J/√p) √p;
        # what of δ² varies within a class is of lower order
        value, first, second = table.offset(kind)
        t = (unit * mixture.traces - table.tau[0] ** 2) * np.sqrt(p) + (means**2).sum(axis=1) / np.sqrt(p)
        one = np.full(k, np.sqrt(p))
        row = 0.5 * value * one + first * t + second * np.sqrt(p) * (t**2 / p + psi)
        omega[:k, :k] = np.outer(one, row) + np.outer(row, one)
        omega[:k, -1] = omega[-1, :k] = first * one
    omega[:k, :k] += c1 * (means @ means.T) + c2 * np.outer(t, t) + c3 * products
    omega[:k, -1] += c2 * t
    omega[-1, :k] += c2 * t
    return Model(noise, omega, c1, shift, counts, psi, targets, noise_std, centering)


def respond(model: Model, point: complex) -> Node:
    """Solve for the response at one point off the spectrum of K̃."""
    noise, k = model.noise, len(model.counts)
    solution = noise.solve(model.shift - point)
    s = model.shift - point
    s = s if s.imag != 0.0 else s.real
    delta = solution.delta
    r = 1.0 / (s * (1.0 + delta))
    p = noise.n_features
    b = np.zeros((2 * k + 1, 2 * k + 1), dtype=delta.dtype)
    b[np.arange(k), np.arange(k)] = noise.ratios * r
    b[k : 2 * k, k : 2 * k] = noise.between_weighted(solution.resolvent, noise.ratios / (1.0 + delta))
    b[-1, -1] = (model.counts * r * model.psi).sum()
    system = np.eye(2 * k + 1) + model.omega @ b
    root = np.sqrt(p)
    unit = np.zeros((2 * k + 1, 1 + model.targets.shape[1]))
    unit[:k, 0] = root
    unit[:k, 1:] = root * model.targets
    solved = np.linalg.solve(system, unit)  # (I + ΩB)^{-1} [1, y] in coordinates of U
    one, h = solved[:, :1], solved[:, 1:]
    intercept = np.zeros(model.targets.shape[1], dtype=delta.dtype)
    if model.centering == "targets":
        intercept = intercept + model.mean_target
    elif model.centering == "kernel":
        ones = unit[:, 0] @ b
        intercept = (ones @ h) / (ones @ one)
    h = h - one * intercept
    label = unit[:, 1:] - (unit[:, :1] * model.mean_target if model.centering != "none" else 0.0)
    product = np.einsum("im,ij,jm->m", label, b, h)
    return Node(point, solution, r, h, unit[:, 1:] - unit[:, :1] * intercept - h, intercept, product)


def squared_dual(model: Model, node: Node) -> float:
    """‖w‖² summed over the outputs, at a real point; n times a number of order one."""
    noise, k = model.noise, len(model.counts)
    s, delta, p = node.solution.shift.real, node.solution.delta, node.solution.resolvent
    load = noise.ratios / (1.0 + delta) ** 2
    spread = np.eye(k) - model.slope**2 * noise.products(p, p) * load
    inserted = np.linalg.solve(spread, noise.trace_with(p, p))  # tr(C_b lim Π²)/p
    square = 1.0 / (s**2 * (1.0 + delta)) - model.slope * inserted / (s * (1.0 + delta) ** 2)
    middle = noise.between_weighted(p, noise.ratios / (1.0 + delta) - s * model.slope * load * inserted, p)
    h1, h2, h3 = node.h[:k], node.h[k : 2 * k], node.h[-1]
    total = (noise.ratios * square) @ (h1**2).sum(axis=1) + np.einsum("am,ab,bm->", h2, middle, h2)
    total += (h3**2).sum() * (model.counts * square * model.psi).sum()
    total += h1.shape[1] * model.noise_std**2 * (model.counts @ square)
    return float(total)


def conjugate(node: Node) -> Node:
    """Return the response at the conjugate point."""
    return Node(
        node.point.conjugate(),
        replace(
            node.solution,
            shift=node.solution.shift.conjugate(),
            delta=node.solution.delta.conj(),
            resolvent=node.solution.resolvent.conj(),
        ),
        node.diagonal.conj(),
        node.h.conj(),
        node.eta.conj(),
        node.intercept.conj(),
        node.product.conj(),
    )


def score_moments(
    model: Model, left: list[Node], right: list[Node], weights: AnyArray, other: AnyArray
) -> list[Scores]:
    """Means and covariances of the scores of w = Re Σ_k weight_k w_k = Σ_l other_l w_l, for several combinations.

    Parameters
    ----------
    left, right : list of Node
        Two sets of nodes that give the same w: one node twice, or half a contour and all of it.
    weights, other : ndarray, shapes (T, len(left)) and (T, len(right))

    Returns
    -------
    list of Scores, length T
    """
    noise, k, outputs = model.noise, len(model.counts), model.targets.shape[1]
    c1sq = model.slope**2
    first, second = [node.solution.resolvent for node in left], [node.solution.resolvent for node in right]
    load_left = 1.0 / (1.0 + np.stack([node.solution.delta for node in left]))
    load_right = 1.0 / (1.0 + np.stack([node.solution.delta for node in right]))
    h_left, h_right = np.stack([node.h for node in left]), np.stack([node.h for node in right])
    table = noise.pair_products(first, second)
    load = load_left[:, None, :] * load_right[None, :, :]
    spread = np.eye(k) - c1sq * table * (noise.ratios * load)[:, :, None, :]
    inserted = np.linalg.solve(spread, table)  # [k, l, b, a]: tr(C_b lim Π_k C_a Π_l)/p
    f = inserted * load[..., None]  # [R_k Z C_a Zᵀ R_l]_ii in class b
    quad = c1sq * np.einsum(
        "klba,kbi,lbj->klaij", f * noise.ratios[:, None], h_left[:, :k], h_right[:, :k], optimize=True
    )
    norms = np.einsum("klba,b->kla", f, model.counts * model.psi)
    quad += c1sq * np.einsum("kla,ki,lj->klaij", norms, h_left[:, -1], h_right[:, -1], optimize=True)
    label_noise = np.einsum("klba,b->kla", f, model.counts)
    quad += (c1sq * model.noise_std**2) * label_noise[..., None, None] * np.eye(outputs)
    if noise.overlaps.any():
        inner = np.eye(k) + c1sq * (noise.ratios * load)[..., None] * inserted  # [k, l, b, a]
        middle = np.einsum("klba,klbxy->klaxy", inner, noise.pair_between(first, second), optimize=True)
        turned_left = np.stack([node.solution.shift * node.eta[k : 2 * k] for node in left])
        turned_right = np.stack([node.solution.shift * node.eta[k : 2 * k] for node in right])
        quad += np.einsum("kxi,klaxy,lyj->klaij", turned_left, middle, turned_right, optimize=True)
    eta = np.stack([node.eta for node in left])
    drop = model.mean_target - np.stack([node.intercept for node in left])
    out = []
    for row, columns in zip(weights, other, strict=True):
        mean = np.real(np.tensordot(row, eta[:, :k], 1)) / np.sqrt(noise.n_features)
        norm = np.real(row @ eta[:, -1])
        covariance = np.real(np.einsum("k,l,klaij->aij", row, columns, quad, optimize=True)) / noise.n_features
        covariance = covariance + model.psi[:, None, None] * np.outer(norm, norm)
        if model.centering != "none":
            mean = mean + model.mean_target - np.real(row @ drop)
        out.append(Scores(mean, 0.5 * (covariance + covariance.transpose(0, 2, 1))))
    return out
