"""Adaptive Gauss–Legendre quadrature against the standard normal density, for many scales at once.

The integrals wanted are E[f(τ ξ)], ξ ~ N(0, 1), for a whole vector of τ (one per sample), with f smooth
between known breakpoints. Panels of all τ live in one flat list; every round evaluates the integrand once,
compares a 20-node rule on each panel with the two rules of its halves, and keeps splitting only the panels
that disagree.
"""

import math
from collections.abc import Callable

import numpy as np

from rmtntk._typing import FloatArray, IntArray
from rmtntk.errors import AccuracyError

__all__ = [
    "DIFFERENTIATION",
    "NODES_PER_PANEL",
    "NODE_SPAN",
    "RANGE",
    "gauss_panels",
    "integrate",
    "panel_edges",
]

NODES_PER_PANEL = 20
RANGE = 38.0  # the normal density underflows beyond: φ(38.6) is the smallest positive float64
_MAX_ROUNDS = 48
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(NODES_PER_PANEL)
NODE_SPAN = float(_NODES[-1] - _NODES[0])  # distance of a panel's outer nodes, in half-widths


def _differentiation_matrix(nodes: FloatArray) -> FloatArray:
    """Derivative at the nodes of the polynomial through values at the nodes (barycentric form)."""
    gap = nodes[:, None] - nodes[None, :] + np.eye(len(nodes))
    weight = 1.0 / gap.prod(axis=1)
    matrix = weight[None, :] / weight[:, None] / gap
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


DIFFERENTIATION = _differentiation_matrix(_NODES)

Integrand = Callable[[FloatArray, IntArray], FloatArray]


def gauss_panels(left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights, shape (panels, 20), of the rule on each panel [left, right]."""
    half = 0.5 * (right - left)[:, None]
    centre = 0.5 * (right + left)[:, None]
    return centre + half * _NODES, half * _WEIGHTS


def panel_edges(breaks: FloatArray, *, reach: float = RANGE, width: float = 2.0) -> tuple[FloatArray, FloatArray]:
    """Return panels that cover [-reach, reach], none wider than `width`, with `breaks` among the edges."""
    count = int(np.ceil(reach / width))
    grid = np.linspace(-reach, reach, 2 * count + 1)
    inside = breaks[np.abs(breaks) < reach]
    edges = np.unique(np.concatenate([grid, inside]))
    return edges[:-1], edges[1:]


def integrate(
    integrand: Integrand, breaks: list[FloatArray], *, tolerance: float, reach: float = RANGE
) -> tuple[FloatArray, FloatArray]:
    r"""Integrate vector-valued functions of ξ, one problem per entry of `breaks`.

    Parameters
    ----------
    integrand : callable
        ``integrand(xi, problem) -> values`` with `xi` of shape (panels, 20), `problem` of shape (panels,)
        and `values` of shape (panels, 20, m); the normal density is part of the integrand.
    breaks : list of ndarray
        For each problem the points, in units of ξ, where its integrand is not smooth.
    tolerance : float
        Wanted error of each integral, relative to the integral of the integrand's absolute value.
    reach : float
        Integrals run over [-reach, reach].

    Returns
    -------
    values, errors : ndarray, shape (problems, m)
        Integrals and bounds of their absolute error: ten times the last change under bisection plus
        rounding (64 eps times the integral of the absolute value).

    Raises
    ------
    AccuracyError
        If bisection does not reach the tolerance: a breakpoint was not declared, or the integral diverges.
    """
    n_problems = len(breaks)
    pieces = [panel_edges(points, reach=reach) for points in breaks]
    left = np.concatenate([piece[0] for piece in pieces])
    right = np.concatenate([piece[1] for piece in pieces])
    problem = np.repeat(np.arange(n_problems), [len(piece[0]) for piece in pieces])

    coarse, magnitude = _rule(integrand, left, right, problem)
    width = coarse.shape[1]
    total = np.zeros((n_problems, width))
    error = np.zeros((n_problems, width))
    size = np.zeros((n_problems, width))
    np.add.at(size, problem, magnitude)
    for _ in range(_MAX_ROUNDS):
        middle = 0.5 * (left + right)
        halves_left = np.concatenate([left, middle])
        halves_right = np.concatenate([middle, right])
        halves_problem = np.concatenate([problem, problem])
        fine, fine_size = _rule(integrand, halves_left, halves_right, halves_problem)
        count = len(left)
        both = fine[:count] + fine[count:]
        change = np.abs(both - coarse)
        np.maximum.at(size, problem, magnitude)
        # A panel may spend an error in proportion to its width, or be down to rounding.
        share = ((right - left) / (2.0 * reach))[:, None]
        allowed = np.maximum(tolerance * share, 4e-16) * size[problem]
        done = (change <= allowed).all(axis=1)
        np.add.at(total, problem[done], both[done])
        np.add.at(error, problem[done], change[done])
        if done.all():
            return total, 10.0 * error + 64.0 * np.finfo(float).eps * size
        todo = np.concatenate([~done, ~done])
        left, right, problem = halves_left[todo], halves_right[todo], halves_problem[todo]
        coarse, magnitude = fine[todo], fine_size[todo]
        if len(left) > 400_000:
            break
    reached = float((change[~done] / np.maximum(size[problem[: (~done).sum()]], 1e-300)).max())
    where = float(left[np.argmax(change[~done].max(axis=1))])
    raise AccuracyError(
        f"the Gaussian integrals of the activation did not converge to {tolerance:.1e} (reached {reached:.1e} "
        f"near ξ = {where:.4g} in units of τ): declare every point where the function or its derivative "
        "jumps in `breakpoints`, or ask for a larger `tolerance`",
        reached,
    )


def _rule(
    integrand: Integrand, left: FloatArray, right: FloatArray, problem: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Integrals over each panel, of the integrand and of its absolute value, shape (panels, m)."""
    chunk = 20_000
    values, sizes = [], []
    for start in range(0, len(left), chunk):
        part = slice(start, start + chunk)
        nodes, weights = gauss_panels(left[part], right[part])
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            sample = integrand(nodes, problem[part])
        if not np.isfinite(sample).all():
            raise AccuracyError(
                "the Gaussian integrals of the activation diverge or overflow float64 at this scale", math.inf
            )
        values.append(np.einsum("pk,pkm->pm", weights, sample))
        sizes.append(np.einsum("pk,pkm->pm", weights, np.abs(sample)))
    return np.concatenate(values), np.concatenate(sizes)
