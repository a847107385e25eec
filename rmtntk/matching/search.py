r"""Least excess under equations between coefficients: compiled values and gradients, sequential quadratic programming.

Thresholds (and levels, where they are free) of all layers are one vector z. Deterministic: starts come from a fixed
low-discrepancy sequence, moved onto the equations
and ranked by the variance they waste.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._jit import steps
from rmtntk._typing import FloatArray, IntArray
from rmtntk.matching.families import Family
from rmtntk.matching.problem import Layer, quiet_search

__all__ = ["Equation", "Problem", "Solution"]

GENERAL, ODD, EVEN = 0, 1, 2
_CONVERGED = 1e-13
_MARGIN = 1e-3  # of the cost, below the floor


class Equation(NamedTuple):
    """rows[row] = goal · rows[reference]; compared in logarithms if `log`. Rows as in `steps.network_rows`."""

    row: int
    reference: int
    goal: float
    log: bool
    name: str


class Solution(NamedTuple):
    """Parameters, cost −log ᾱ of the reference, and the largest deviation of an equation."""

    z: FloatArray
    cost: float
    deviation: float
    worst: str


@dataclass(eq=False)
class Problem:
    """Layers of given kinds and shapes; maximise rows[reference] under the equations, as far as cost = `floor`."""

    kinds: IntArray
    shapes: tuple[tuple[float, ...], ...]
    free: bool
    reference: int
    equations: tuple[Equation, ...]
    floor: float = -math.inf

    def __post_init__(self) -> None:
        self.sizes = np.array([len(q) for q in self.shapes], dtype=np.int64)
        self.levels = np.zeros((len(self.shapes), int(self.sizes.max())))
        for row, q in zip(self.levels, self.shapes, strict=True):
            row[: len(q)] = q
        self.counts = [
            int(steps.n_parameters(kind, k, self.free)) for kind, k in zip(self.kinds, self.sizes, strict=True)
        ]
        self.n = sum(self.counts)
        self._rows, self._jacobian = np.empty(7), np.empty((7, self.n))
        self._key = b""

    def _update(self, z: FloatArray) -> None:
        key = z.tobytes()
        if key != self._key:
            steps.network_jacobian(
                np.ascontiguousarray(z), self.kinds, self.sizes, self.free, self.levels, self._rows, self._jacobian
            )
            self._key = key

    def cost(self, z: FloatArray) -> float:
        """−log of the reference coefficient."""
        self._update(z)
        return -math.log(max(self._rows[self.reference], 1e-300))

    def cost_gradient(self, z: FloatArray) -> FloatArray:
        """Its gradient, (n,)."""
        self._update(z)
        return np.asarray(-self._jacobian[self.reference] / max(self._rows[self.reference], 1e-300))

    def deviations(self, z: FloatArray) -> FloatArray:
        """Of every equation."""
        self._update(z)
        rows = self._rows
        out = np.empty(len(self.equations))
        for i, e in enumerate(self.equations):
            ratio = rows[e.row] / max(rows[e.reference], 1e-300)
            out[i] = math.log(max(ratio, 1e-300) / e.goal) if e.log else (ratio - e.goal) / max(1.0, abs(e.goal))
        return out

    def deviation_gradients(self, z: FloatArray) -> FloatArray:
        """Their gradients, (equations, n)."""
        self._update(z)
        rows, jac = self._rows, self._jacobian
        out = np.empty((len(self.equations), self.n))
        for i, e in enumerate(self.equations):
            base = max(rows[e.reference], 1e-300)
            if e.log:
                out[i] = jac[e.row] / max(rows[e.row], 1e-300) - jac[e.reference] / base
            else:
                out[i] = (jac[e.row] - rows[e.row] / base * jac[e.reference]) / base / max(1.0, abs(e.goal))
        return out

    def bounds(self) -> list[tuple[float, float]]:
        """Box of the parameters."""
        out: list[tuple[float, float]] = []
        for kind, k, count in zip(self.kinds, self.sizes, self.counts, strict=True):
            n = k - 1 if kind == GENERAL else (k - 1) // 2
            first = (-4.5, 4.5) if kind == GENERAL else (-6.0, 1.3)
            out.extend([first] * min(n, 1) + [(-6.0, 2.0)] * (n - 1) + [(-30.0, 30.0)] * (count - n))
        return out

    def is_gap(self) -> FloatArray:
        """1 where a parameter is the logarithm of a gap between thresholds, (n,)."""
        out: list[float] = []
        for kind, k, count in zip(self.kinds, self.sizes, self.counts, strict=True):
            n = int(k - 1 if kind == GENERAL else (k - 1) // 2)
            out.extend([float(kind != GENERAL)] * min(n, 1) + [1.0] * (n - 1) + [0.0] * (count - n))
        return np.array(out)

    def starts(self, count: int, keep: int, extra: tuple[FloatArray, ...] = ()) -> list[FloatArray]:
        """The `keep` best of `count` points, no two of them close."""
        points = self.screen(count)
        measured = np.empty((count, 2))
        steps.project_all(points, *self._arrays(), 12, self.reference, measured)
        order = np.lexsort((measured[:, 1], np.where(measured[:, 0] < 1e-6, 0.0, measured[:, 0])))
        chosen: list[FloatArray] = list(extra)
        for i in order:
            if len(chosen) >= keep + len(extra):
                break
            if all(np.abs(points[i] - other).max() > 0.25 for other in chosen):
                chosen.append(points[i])
        return chosen

    def screen(self, count: int) -> FloatArray:
        """The first points of the sequence, (count, n)."""
        points = np.empty((count, self.n))
        primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)
        position = 0
        for layer, (kind, k) in enumerate(zip(self.kinds, self.sizes, strict=True)):
            n = int(k - 1 if kind == GENERAL else (k - 1) // 2)
            for j in range(n):
                low, high = (-1.8, 0.9) if kind == GENERAL and j == 0 else (-1.4, 0.8)
                if j or kind != GENERAL:  # gaps shrink as their number grows
                    shift = math.log(2.0 / max(n, 2))
                    low, high = low + shift, high + shift
                prime = primes[(2 * layer + j) % len(primes)]
                points[:, position + j] = low + (high - low) * _radical_inverse(count, prime, layer + j)
            levels = self.levels[layer, :k]
            rest = self.counts[layer] - n
            if rest:
                points[:, position + n : position + self.counts[layer]] = levels[k - rest :]
            position += self.counts[layer]
        return points

    def drop_dependent(self) -> None:
        """Forget equations that follow from others: α2/α1 from α3/α1 in one layer, β2/β1 from the α's in two."""
        points = np.array([self.screen(7)[i] for i in (1, 4, 6)])
        kept: list[Equation] = []
        every = self.equations
        for equation in every:
            self.equations = (*kept, equation)
            for z in points:
                gradients = self.deviation_gradients(z)
                sizes = np.linalg.norm(gradients, axis=1)
                if sizes.min() > 1e-10:
                    values = np.linalg.svd(gradients / sizes[:, None], compute_uv=False)
                    if values[-1] > 1e-9:
                        kept.append(equation)
                        break
        self.equations = tuple(kept)

    def _arrays(self) -> tuple[object, ...]:
        """What the compiled projection takes."""
        box = np.array(self.bounds())
        e = self.equations
        return (
            np.ascontiguousarray(box[:, 0]), np.ascontiguousarray(box[:, 1]), self.kinds, self.sizes, self.free,
            self.levels, np.array([x.row for x in e], dtype=np.int64),
            np.array([x.reference for x in e], dtype=np.int64), np.array([x.goal for x in e], dtype=np.float64),
            np.array([x.log for x in e], dtype=np.bool_),
        )  # fmt: skip

    def descend(self, start: FloatArray) -> Solution | None:
        """A local optimum on the equations, polished."""
        box = self.bounds()
        low, high = np.array(box).T
        constraints = []
        if self.equations:
            constraints = [{"type": "eq", "fun": self.deviations, "jac": self.deviation_gradients}]
        flat = self.floor - _MARGIN  # nothing below is worth the way

        def cost(z: FloatArray) -> float:
            return max(self.cost(z), flat)

        def gradient(z: FloatArray) -> FloatArray:
            return self.cost_gradient(z) if self.cost(z) > flat else np.zeros(self.n)

        with quiet_search():
            z = np.asarray(
                scipy.optimize.minimize(
                    cost, np.clip(start, low, high), jac=gradient, method="SLSQP", bounds=box,
                    constraints=constraints, options={"maxiter": 120, "ftol": 1e-13},
                ).x
            )  # fmt: skip
            if not np.isfinite(z).all():
                return None
            return self.measure(self.polish(z))

    def measure(self, z: FloatArray) -> Solution:
        """What z is worth."""
        gaps = np.abs(self.deviations(z))
        if not len(gaps):
            return Solution(z, self.cost(z), 0.0, "")
        worst = int(np.argmax(gaps))
        return Solution(z, self.cost(z), float(gaps[worst]), self.equations[worst].name)

    def polish(self, z: FloatArray) -> FloatArray:
        """Gauss–Newton steps of least norm onto the equations: the optimum moves by no more than their residual."""
        z = z.copy()
        if self.equations and steps.project(z, *self._arrays(), 20) > _CONVERGED:
            steps.project(z, *self._arrays(), 40)  # a double root is approached linearly
        return z

    def layers(self, z: FloatArray) -> list[Layer]:
        """Layers of variance one."""
        out = []
        position = 0
        p = np.empty(8)
        for kind, k, count, q in zip(self.kinds, self.sizes, self.counts, self.levels, strict=True):
            r, levels = np.empty(k - 1), q[:k].copy()
            steps.unpack(np.ascontiguousarray(z[position : position + count]), kind, k, self.free, r, levels)
            v = steps.layer_sums(r, levels, k, p)[3]
            if self.free:
                levels /= math.sqrt(v)
                v = 1.0
            out.append(Layer(tuple(map(float, r)), tuple(map(float, levels)), 1.0 / math.sqrt(v)))
            position += count
        return out


def parameters_of(layer: Layer, kind: int, free: bool) -> FloatArray:
    """Inverse of `steps.unpack`."""
    r, q = np.array(layer.r), np.array(layer.shape)
    n, k = len(r), len(q)
    if kind == GENERAL:
        z, values = np.append(r[:1], np.log(np.diff(r))), q
    else:
        half = n // 2
        positive = r[n - half :]
        z = np.log(np.diff(np.append(0.0, positive)))
        values = q[k - k // 2 :] if kind == ODD else q[k // 2 :]
    return np.append(z, values) if free else z


def shape_for(family: Family, kind: int) -> tuple[tuple[float, ...], ...]:
    """Shapes of the family that a layer of this kind may have."""
    return (family.shapes, family.odd_shapes, family.even_shapes)[kind]


def _radical_inverse(count: int, prime: int, offset: int) -> FloatArray:
    """Van der Corput sequence, rotated."""
    out = np.zeros(count)
    index, factor = np.arange(1, count + 1), 1.0 / prime
    while index.any():
        out += factor * (index % prime)
        index = index // prime
        factor /= prime
    return np.asarray((out + 0.38196601125 * offset) % 1.0)
