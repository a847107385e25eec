"""Adaptive Gauss–Legendre quadrature against the standard normal density, for many scales at once.

The integrals wanted are E[f(τ ξ)], ξ ~ N(0, 1), for a whole vector of τ (one per sample), with f smooth
between known breakpoints. Panels of all τ live in one flat list; every round evaluates the integrand once,
compares a 20-node rule on each panel with the two rules of its halves, and keeps splitting only the panels
that disagree.
"""

import math
from collections.abc import Callable
from functools import lru_cache

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
_FAR = 7.9
_MAX_ROUNDS = 48
_CHUNK = 1024
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


@lru_cache(maxsize=16)
def _grid(reach: float, width: float) -> FloatArray:
    near = min(reach, 10.0)
    edge, far = near, []
    while edge < reach:
        edge = min(reach, 1.42 * edge)
        far.append(edge)
    if reach > 10.0:
        far.append(reach - 1.0)  # the last panels show whether the integrand ends before the range does
    grid = np.linspace(-near, near, 2 * math.ceil(near / width) + 1)
    return np.unique(np.concatenate([grid, far, np.negative(far)]))


def panel_edges(breaks: FloatArray, *, reach: float = RANGE, width: float = 2.0) -> tuple[FloatArray, FloatArray]:
    """Return panels that cover [-reach, reach] with 0 and `breaks` among the edges.

    None is wider than `width` up to 10 standard deviations; beyond, where φ < 1e-22, they grow by the factor 1.42.
    """
    edges = _grid(reach, width)
    if breaks.size:
        edges = np.unique(np.concatenate([edges, breaks[np.abs(breaks) < reach]]))
    return edges[:-1], edges[1:]


def integrate(
    integrand: Integrand,
    breaks: list[FloatArray],
    *,
    tolerance: float,
    reach: float = RANGE,
    floor: FloatArray | float = 0.0,
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
    floor : float or ndarray, shape (problems, m)
        Added to the integral of the absolute value: what the integrand's own rounding is relative to.

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
    error = np.zeros((n_problems, width))
    size = np.zeros((n_problems, width)) + floor
    _add(size, problem, magnitude)
    # What is left on the last panels is about what lies beyond them.
    outer = (left <= -reach) | (right >= reach)
    if (magnitude[outer] > 1e-9 * size[problem[outer]]).any():
        raise AccuracyError(
            "the Gaussian integrals of the activation diverge, or have their mass beyond the range of float64's normal "
            "density, at this scale",
            math.inf,
        )
    _add(error, problem[outer], magnitude[outer])
    # Far panels on which next to nothing lies are not looked at again.
    idle = (np.minimum(np.abs(left), np.abs(right)) >= _FAR) & (magnitude <= 1e-18 * size[problem]).all(axis=1)
    total = np.zeros((n_problems, width))
    _add(total, problem[idle], coarse[idle])
    _add(error, problem[idle], magnitude[idle])
    left, right, problem, coarse, magnitude = (a[~idle] for a in (left, right, problem, coarse, magnitude))
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
        _add(total, problem[done], both[done])
        _add(error, problem[done], change[done])
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


def _add(total: FloatArray, problem: IntArray, parts: FloatArray) -> None:
    """Add the parts of every problem to its line."""
    for k in range(total.shape[1]):
        total[:, k] += np.bincount(problem, parts[:, k], len(total))


def _rule(
    integrand: Integrand, left: FloatArray, right: FloatArray, problem: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Integrals over each panel, of the integrand and of its absolute value, shape (panels, m)."""
    values, sizes = [], []
    for start in range(0, len(left), _CHUNK):
        part = slice(start, start + _CHUNK)
        nodes, weights = gauss_panels(left[part], right[part])
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            sample = integrand(nodes, problem[part])
            value = np.einsum("pk,pkm->pm", weights, sample)
            if not np.isfinite(value).all():
                raise AccuracyError(
                    "the Gaussian integrals of the activation diverge or overflow float64 at this scale", math.inf
                )
            values.append(value)
            sizes.append(np.einsum("pk,pkm->pm", weights, np.abs(sample)))
    return np.concatenate(values), np.concatenate(sizes)
