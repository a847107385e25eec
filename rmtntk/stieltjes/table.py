r"""Piecewise Chebyshev tables of Im q over the support, and the search for gaps inside it.

An interval [l, r] is covered by an angle, log x = mid − half cos θ (x = r sin²(θ/2) where the density diverges at 0),
in which square-root edges are analytic. Tabulated is V_a = Im q_a · lift(θ), bounded and of order θ at an edge;
sin(θ/2) removes the divergence at a hard one, and dx = lift · measure dθ.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import chebyshev
from scipy.fft import dct

from rmtntk._typing import AnyArray, FloatArray
from rmtntk.errors import ConvergenceError
from rmtntk.stieltjes.edges import above_all, fold, gap_candidates, next_to_zero
from rmtntk.stieltjes.noise import JointSpectrum
from rmtntk.stieltjes.solver import Core, attempt, land

__all__ = ["Edge", "Interval", "Panel", "support"]

_FEW, _MANY = 16, 48
_TOLERANCE, _TOLERANCE_DENSE = 1e-13, 1e-10
_ROUNDING = 1e-9
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Edge:
    """End of an interval; q is None at a hard edge at 0."""

    x: float
    q: FloatArray | None

    @property
    def rounding(self) -> float:
        """Error of x: the equation −1/q_a + h_a = x is resolved to rounding of its largest terms."""
        return 0.0 if self.q is None else max(1e-13 * self.x, 4.0 * _EPS * float(np.abs(1.0 / self.q).max()))


@dataclass(frozen=True, eq=False)
class Panel:
    """Chebyshev coefficients of V, shape (N, K), and of log q with its jumps removed, on [low, high] in θ."""

    low: float
    high: float
    values: FloatArray
    logs: AnyArray
    tail: float
    converged: bool

    def local(self, theta: FloatArray) -> FloatArray:
        """Θ on [−1, 1]."""
        return np.asarray((2.0 * theta - self.low - self.high) / (self.high - self.low))


@dataclass(eq=False)
class Interval:
    """A connected part of the support and its table."""

    left: Edge
    right: Edge
    mass_below: float
    mass: float
    panels: list[Panel] = field(default_factory=list)
    solves: int = 0
    cumulative: list[FloatArray] = field(default_factory=list)

    @property
    def hard(self) -> bool:
        """Whether the density diverges at the left end, 0."""
        return self.left.q is None

    @property
    def half(self) -> float:
        """Half the width in log x."""
        return 0.5 * float(np.log1p((self.right.x - self.left.x) / self.left.x))

    def x(self, theta: AnyArray) -> FloatArray:
        """Where an angle lies."""
        if self.hard:
            return np.asarray(self.right.x * np.sin(0.5 * theta) ** 2)
        # each half measured from its own edge: no digits of x − edge are lost
        from_left = self.left.x * np.exp(2.0 * self.half * np.sin(0.5 * theta) ** 2)
        from_right = self.right.x * np.exp(-2.0 * self.half * np.cos(0.5 * theta) ** 2)
        return np.asarray(np.where(theta < 0.5 * np.pi, from_left, from_right))

    def theta(self, x: FloatArray) -> FloatArray:
        """Angle of a point of the interval."""
        if self.hard:
            return np.asarray(2.0 * np.arctan2(np.sqrt(x), np.sqrt(self.right.x - x)))
        below = np.log1p((x - self.left.x) / self.left.x)
        above = -np.log1p((x - self.right.x) / self.right.x)
        return np.asarray(2.0 * np.arctan2(np.sqrt(np.maximum(below, 0.0)), np.sqrt(np.maximum(above, 0.0))))

    def lift(self, theta: AnyArray) -> FloatArray:
        """V/Im q."""
        if self.hard:
            return np.asarray(self.right.x * np.sin(0.5 * theta))
        return np.asarray(self.half * self.x(theta))

    def measure(self, theta: AnyArray) -> FloatArray:
        """dx/dθ over lift."""
        return np.asarray(np.cos(0.5 * theta) if self.hard else np.sin(theta))

    def lookup(self, theta: FloatArray) -> tuple[FloatArray, AnyArray]:
        """V, shape (N, K), and which angles lie in panels that did not converge."""
        starts = np.array([panel.low for panel in self.panels])
        which = np.clip(np.searchsorted(starts, theta, side="right") - 1, 0, len(starts) - 1)
        k = self.panels[0].values.shape[1]
        out, rough = np.zeros((len(theta), k)), np.zeros(len(theta), dtype=bool)
        for i in np.unique(which):
            mask, panel = which == i, self.panels[i]
            out[mask] = chebyshev.chebval(panel.local(theta[mask]), panel.values).T
            rough[mask] = not panel.converged
        return out, rough

    def cumulate(self, theta: FloatArray) -> FloatArray:
        """∫ Im q_a dx/π from the left edge to an angle, shape (N, K)."""
        if not self.cumulative:
            self._integrate()
        starts = np.array([panel.low for panel in self.panels])
        which = np.clip(np.searchsorted(starts, theta, side="right") - 1, 0, len(starts) - 1)
        out = np.zeros((len(theta), self.panels[0].values.shape[1]))
        for i in np.unique(which):
            mask = which == i
            out[mask] = chebyshev.chebval(self.panels[i].local(theta[mask]), self.cumulative[i]).T
        return out

    def _integrate(self) -> None:
        before = np.zeros(self.panels[0].values.shape[1])
        for panel in self.panels:
            nodes = _nodes(panel.low, panel.high, _MANY + 32)
            values = chebyshev.chebval(panel.local(nodes), panel.values).T * self.measure(nodes)[:, None] / np.pi
            series = chebyshev.chebint(_coefficients(values), lbnd=-1) * (0.5 * (panel.high - panel.low))
            series[0] += before
            self.cumulative.append(np.asarray(series, dtype=np.float64))
            before = series.sum(axis=0)

    def total(self) -> FloatArray:
        """∫ Im q_a dx/π over the interval, shape (K,)."""
        return np.asarray(self.cumulate(np.array([np.pi]))[0])


def _nodes(low: float, high: float, number: int) -> FloatArray:
    """Chebyshev points of the first kind, ascending."""
    return np.asarray(0.5 * (low + high) - 0.5 * (high - low) * np.cos(np.pi * (np.arange(number) + 0.5) / number))


def _coefficients(values: AnyArray) -> AnyArray:
    """Chebyshev coefficients of values, shape (N, K), at :func:`_nodes`."""
    flipped = values[::-1]
    if np.iscomplexobj(values):
        out = dct(flipped.real, type=2, axis=0) + 1j * dct(flipped.imag, type=2, axis=0)
    else:
        out = dct(flipped, type=2, axis=0)
    out = out / len(values)
    out[0] *= 0.5
    return np.asarray(out)


class _Gap(Exception):
    """A point outside the support was met inside an interval."""

    def __init__(self, x: float, q: FloatArray) -> None:
        super().__init__()
        self.x, self.q = x, q


@dataclass(eq=False)
class _Builder:
    core: Core
    interval: Interval
    resolution: float
    most: int
    tolerance: float
    scale: FloatArray = field(default_factory=lambda: np.zeros(1))

    @property
    def floor(self) -> float:
        """Least error of an edge: h of matrices is right to rounding of tr C_a/p, however far below it the edge is."""
        cheap = isinstance(self.core.spectrum, JointSpectrum)
        return 0.0 if cheap else 4.0 * _EPS * float(self.core.spectrum.traces.max())

    def logs(self, q: AnyArray, theta: FloatArray) -> AnyArray:
        out = np.log(q)
        return out + np.log(np.sin(0.5 * theta))[:, None] if self.interval.hard else out

    def solve(self, theta: FloatArray, guess: AnyArray | None) -> AnyArray:
        """Q at angles, from guesses of log q if there are; raises _Gap outside the support."""
        x = self.interval.x(theta).astype(np.complex128)
        self.interval.solves += len(theta)
        q = np.zeros((len(theta), len(self.core.gamma)), dtype=np.complex128)
        ok = np.zeros(len(theta), dtype=bool)
        if guess is not None:
            start = np.exp(guess) / (np.sin(0.5 * theta)[:, None] if self.interval.hard else 1.0)
            q, ok = attempt(self.core, x, start)
        if not ok.all():
            q[~ok] = land(self.core, x[~ok])
        # the edges themselves are right to rounding: a node that close to one may come out on either side
        inner = np.abs(x.real - self.interval.left.x) > max(self.floor, self.interval.left.rounding)
        inner &= np.abs(x.real - self.interval.right.x) > max(self.floor, self.interval.right.rounding)
        outside = np.flatnonzero((q.imag == 0.0).all(axis=1) & inner)
        if len(outside):
            i = int(outside[len(outside) // 2])
            raise _Gap(float(x[i].real), q[i].real)
        return q

    def first(self, theta: FloatArray) -> AnyArray:
        """Q at the first panel's angles: all along arcs if cheap, else from the middle outwards."""
        if isinstance(self.core.spectrum, JointSpectrum):
            return self.solve(theta, None)
        known: list[tuple[float, AnyArray]] = []
        for edge, angle in ((self.interval.left, 0.0), (self.interval.right, np.pi)):
            if edge.q is not None:
                extra = np.log(np.sin(0.5 * angle)) if self.interval.hard else 0.0
                known.append((angle, np.log(edge.q.astype(np.complex128)) + extra))
        out = np.zeros((len(theta), len(self.core.gamma)), dtype=np.complex128)
        start = len(known)
        for i in sorted(range(len(theta)), key=lambda i: abs(i - len(theta) // 2)):
            guess = None
            if len(known) > start:
                near = sorted(known, key=lambda item: abs(item[0] - theta[i]))[:5]
                guess = _lagrange(near, float(theta[i]))[None, :]
            out[i] = self.solve(theta[i : i + 1], guess)[0]
            known.append((float(theta[i]), self.logs(out[i : i + 1], theta[i : i + 1])[0]))
        return out

    def panel(self, low: float, high: float, q: AnyArray, theta: FloatArray, *coarser: float) -> Panel:
        values = q.imag * self.interval.lift(theta)[:, None]
        self.scale = np.maximum(self.scale, np.abs(values).max(axis=0))
        scale = np.maximum(self.scale, 1e-3 * self.scale.max())
        series = _coefficients(values)
        tail = float((np.abs(series[-3:]) / scale).max())
        # rounding: twice the resolution, by nodes or by bisection, no longer helps
        flat = tail < _ROUNDING and any(tail > 0.1 * other for other in coarser)
        return Panel(low, high, series, _coefficients(self.logs(q, theta)), tail, tail <= self.tolerance or flat)

    def refine(self, low: float, high: float, parent: Panel | None) -> None:
        theta = _nodes(low, high, _FEW)
        q = self.first(theta) if parent is None else self.solve(theta, _guess(parent, theta))
        panel = self.panel(low, high, q, theta)
        if not panel.converged:
            coarse, theta = q, _nodes(low, high, _MANY)
            fresh = np.arange(_MANY) % 3 != 1  # the points of a third of the number are among them
            q = np.empty((_MANY, coarse.shape[1]), dtype=np.complex128)
            q[1::3], q[fresh] = coarse, self.solve(theta[fresh], _guess(panel, theta[fresh]))
            panel = self.panel(low, high, q, theta, panel.tail, *([parent.tail] if parent else []))
        if panel.converged:
            self.interval.panels.append(panel)
            return
        ends = self.interval.x(np.array([low, high]))
        if (
            high - low < self.resolution
            or ends[1] - ends[0] < 0.1 * self.resolution * ends[1]
            or len(self.interval.panels) >= self.most
        ):
            self.interval.panels.append(panel)
            return
        cut = self.dip(theta, q, panel)
        inner = 0.02 * (high - low)
        if cut is None or not low + inner < cut < high - inner:
            cut = 0.5 * (low + high)
        self.refine(low, cut, panel)
        self.refine(cut, high, panel)

    def dip(self, theta: FloatArray, q: AnyArray, panel: Panel) -> float | None:
        """Least total Im q at an inner minimum: raises _Gap if it is zero, else returns its angle."""
        level = (q.imag @ self.core.gamma) * self.interval.x(theta)
        # a gap or a cusp is deep between any neighbours; what is shallow is smooth, or rounding
        inner = np.flatnonzero(level[1:-1] < 0.99 * np.minimum(level[:-2], level[2:])) + 1
        if not len(inner):
            return None
        j = int(inner[np.argmin(level[inner])])

        def at(angle: float) -> float:
            where = np.array([angle])
            found = self.solve(where, _guess(panel, where))
            return float((found[0].imag @ self.core.gamma) * self.interval.x(where)[0])

        return _golden(at, theta[j - 1], theta[j], theta[j + 1], level[j])


def _golden(function: Callable[[float], float], low: float, middle: float, high: float, value: float) -> float:
    """Minimiser by golden section; that of a cusp is sharp, so the bracket shrinks to rounding."""
    least = 1e-13
    while high - low > least:
        left = middle - low > high - middle
        trial = middle - 0.381966 * (middle - low) if left else middle + 0.381966 * (high - middle)
        new = function(trial)
        if new < value:
            low, high = (low, middle) if left else (middle, high)
            if value - new < 1e-9 * value:  # smooth: flat to rounding
                return trial
            middle, value = trial, new
        elif left:
            low = trial
        else:
            high = trial
    return middle


def _guess(panel: Panel, theta: FloatArray) -> AnyArray:
    return np.asarray(chebyshev.chebval(panel.local(theta), panel.logs).T)


def _lagrange(known: list[tuple[float, AnyArray]], at: float) -> AnyArray:
    total = np.zeros_like(known[0][1])
    for i, (t, value) in enumerate(known):
        weight = np.prod([(at - s) / (t - s) for j, (s, _) in enumerate(known) if j != i])
        total = total + weight * value
    return np.asarray(total)


def support(core: Core, atom: float, hard: bool) -> list[Interval]:
    """Intervals of the support, ascending, with their tables.

    A gap shows by a certified point in it: the nodes of the table, refined until the series converge (which they cannot
    across a gap), and the minima of the density between nodes; for one class all gaps are known beforehand.
    """
    left = Edge(0.0, None) if hard else Edge(*fold(core, *next_to_zero(core, atom), 1.0))
    right = Edge(*fold(core, *above_all(core), -1.0))
    cheap = isinstance(core.spectrum, JointSpectrum)
    pending, done = [(left, right)], []
    for x, q in gap_candidates(core):
        pending = _split(core, pending, x, q)
    while pending:
        start, end = pending.pop()
        below = atom if start.q is None else core.mass(start.q)
        interval = Interval(start, end, below, 0.0)
        limits = (1e-9, 400, _TOLERANCE) if cheap else (1e-6, 40, _TOLERANCE_DENSE)
        builder = _Builder(core, interval, *limits)
        try:
            builder.refine(0.0, np.pi, None)
        except _Gap as gap:
            pending = pending + _split(core, [(start, end)], gap.x, gap.q)
            continue
        done.append(interval)
    done.sort(key=lambda item: item.right.x)
    for this, following in zip(done, [*done[1:], None], strict=True):
        this.mass = (1.0 if following is None else following.mass_below) - this.mass_below
    return done


def _split(core: Core, intervals: list[tuple[Edge, Edge]], x: float, q: FloatArray) -> list[tuple[Edge, Edge]]:
    out = []
    for left, right in intervals:
        if not left.x < x < right.x:
            out.append((left, right))
            continue
        end, start = Edge(*fold(core, x, q, -1.0)), Edge(*fold(core, x, q, 1.0))
        if not left.x < end.x < start.x < right.x:
            raise ConvergenceError(
                f"the edges {end.x:.17g} and {start.x:.17g} found around {x:.17g} are out of order (in max ‖C_a‖)",
                end.x - start.x,
            )
        out.extend([(left, end), (start, right)])
    return out
