r"""Edges of the support: folds of the real solution branch, where the largest eigenvalue of |M| reaches 1.

Outside the support q_a ≠ 0 and I + Σ γ_b q_b C_b is not singular: log|q| is a good coordinate along a whole gap,
in which no sign changes.
"""

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._typing import FloatArray
from rmtntk.errors import ConvergenceError
from rmtntk.stieltjes.noise import JointSpectrum
from rmtntk.stieltjes.solver import Core, below_zero, jacobian, radius, real_newton

__all__ = ["above_all", "fold", "gap_candidates", "next_to_zero"]


def above_all(core: Core) -> tuple[float, FloatArray]:
    """A point above the support and its solution."""
    x = 2.0 * core.bound
    for _ in range(60):
        q = real_newton(core, x, -1.0 / (x - core.spectrum.traces))
        if q is not None:
            return x, q
        x *= 2.0
    raise ConvergenceError("no point above the support was certified", x)


def next_to_zero(core: Core, atom: float) -> tuple[float, FloatArray]:
    """A point between 0 and the support and its solution, for a core without a hard edge.

    At −ε, ε far below the left edge, each q_a behaves like 1/ε or like a constant: the solution at +ε follows.
    """
    size = np.array([0.1])
    q: FloatArray | None = None
    while size[0] > 1e-60:
        q = below_zero(core, size, q)
        slope = -size[0] * np.linalg.solve(jacobian(core, q)[0][0], q[0])  # d log q/d log|ζ|
        if (np.abs(slope - np.round(slope)) < 0.02).all():
            found = real_newton(core, float(size[0]), np.where(slope < -0.5, -q[0], q[0]))
            if found is not None and abs(core.mass(found) - atom) < 1e-9:
                return float(size[0]), found
        size = 0.1 * size
    raise ConvergenceError("the support comes within 1e-60 of zero, in units of max ‖C_a‖", float(size[0]))


class _Branch:
    """The real curve of solutions through one of them, by the coordinate s = directionᵀ (log|q| − log|q_0|)."""

    def __init__(self, core: Core, x: float, q: FloatArray, tangent: FloatArray) -> None:
        self.core, self.x, self.q = core, x, q
        self.direction = tangent / (tangent @ tangent)

    def bordered(self, q: FloatArray, x: float) -> tuple[FloatArray, FloatArray]:
        """Jacobian of the equations and of s in (log|q|, x), and q (h − x), which is 1 on the curve."""
        k = len(q)
        h, s = self.core.terms(q[None, :])
        ratio = q * (h[0] - x)
        system = np.zeros((k + 1, k + 1))
        system[:k, :k] = np.diag(ratio) - self.core.coupling(q, s[0])
        system[:k, k] = -q
        system[k, :k] = self.direction
        return system, ratio

    def tangent(self, q: FloatArray, x: float) -> tuple[FloatArray, float]:
        """D log|q|/ds and dx/ds."""
        system, _ = self.bordered(q, x)
        right = np.zeros(len(q) + 1)
        right[-1] = 1.0
        out = np.asarray(np.linalg.solve(system, right), dtype=np.float64)
        return out[:-1], float(out[-1])

    def correct(self, s: float, q: FloatArray, x: float) -> tuple[FloatArray, float] | None:
        """Newton onto the curve at s from a guess."""
        last = np.inf
        for _ in range(20):
            with np.errstate(all="ignore"):
                system, ratio = self.bordered(q, x)
                right = np.append(1.0 - ratio, s - self.direction @ np.log(q / self.q))
                try:
                    step = np.linalg.solve(system, right)
                except np.linalg.LinAlgError:
                    return None
            size = float(np.abs(step[:-1]).max())
            if not np.isfinite(step).all() or size > 2.0:
                return None
            q, x = q * np.exp(step[:-1]), x + step[-1]
            if size < 1e-14 or (size < 1e-9 and size > 0.25 * last):
                return q, x
            last = size
        return None


def fold(core: Core, x: float, q: FloatArray, sign: float) -> tuple[float, FloatArray]:
    """The edge next to a point outside the support, to its right (sign = 1) or left (−1), and q there.

    dx/ds changes sign at the fold; x is stationary there, hence right to rounding when s is to its square root.

    Raises
    ------
    ConvergenceError
        If none was found, or the solution found is not an edge: the largest eigenvalue of |M| must be 1.
    """
    pattern = core.mass(q)
    step, s = 0.2, 0.0
    for _ in range(2000):
        slope = np.linalg.solve(jacobian(core, q[None, :])[0][0], q)
        length = float(np.abs(slope).max())
        branch = _Branch(core, x, q, sign * slope / length)
        du, dx = branch.tangent(q, x)
        s = step
        moved = branch.correct(s, q * np.exp(s * du), x + s * dx)
        if moved is None or not np.isclose(core.mass(moved[0]), pattern, rtol=0.0, atol=1e-9):
            step *= 0.4
        elif branch.tangent(*moved)[1] * sign > 0.0:
            if radius(core, moved[0]) < 1.0:
                q, x = moved
                step = min(1.0, 1.6 * step)
            else:
                step *= 0.4
        else:
            edge = _stationary(branch, s, moved)
            if edge is not None and abs(radius(core, edge[0]) - 1.0) < 1e-5:
                return edge[1], edge[0]
            step *= 0.4
        if step < 1e-12:
            break
    raise ConvergenceError(f"no edge was found next to {x:.6g} (in units of max ‖C_a‖)", step)


def _stationary(branch: _Branch, end: float, there: tuple[FloatArray, float]) -> tuple[FloatArray, float] | None:
    known = {0.0: (branch.q, branch.x), end: there}

    def slope(s: float) -> float:
        if s not in known:
            near = min(known, key=lambda k: abs(k - s))
            q, x = known[near]
            du, dx = branch.tangent(q, x)
            moved = branch.correct(s, q * np.exp((s - near) * du), x + (s - near) * dx)
            if moved is None:
                raise ArithmeticError
            known[s] = moved
        return branch.tangent(*known[s])[1]

    try:
        root = scipy.optimize.brentq(slope, 0.0, end, xtol=1e-13, rtol=1e-14, maxiter=100)
        slope(root)
    except (ArithmeticError, np.linalg.LinAlgError):
        return None
    return known[root]


def gap_candidates(core: Core) -> list[tuple[float, FloatArray]]:
    r"""A point in every gap inside the support of one class, with its solution: no gap is missed.

    With s = 1/q, dx/dq > 0 where φ(s) = γ Σ_j ω_j c_j²/(s + γ c_j)² < 1 (Silverstein and Choi 1995), and φ is convex
    between its poles: at most one gap between neighbouring eigenvalues, at the minimum of φ.
    """
    spectrum = core.spectrum
    if len(core.gamma) > 1 or not isinstance(spectrum, JointSpectrum):
        return []
    gamma = float(core.gamma[0])
    order = np.argsort(spectrum.points[0])
    c, weight = spectrum.points[0][order], spectrum.weights[order]
    size = np.cbrt(gamma * weight * c**2)
    # two terms alone: minimum (a^⅓ + b^⅓)³/d² between poles a distance d apart
    wide = np.flatnonzero((size[1:] + size[:-1]) ** 3 < (gamma * np.diff(c)) ** 2)
    found = []
    for j in wide:
        low, high = gamma * c[j], gamma * c[j + 1]

        def slope(t: float, low: float = low, high: float = high) -> float:
            s = -(low + (high - low) * t)
            return float((weight * c**2 / (s + gamma * c) ** 3).sum())

        t = scipy.optimize.brentq(slope, 1e-14, 1.0 - 1e-14, xtol=1e-15)
        s = -(low + (high - low) * t)
        if gamma * float((weight * c**2 / (s + gamma * c) ** 2).sum()) < 1.0:
            x = -s + float((weight * c * s / (s + gamma * c)).sum())
            found.append((x, np.array([1.0 / s])))
    return found
