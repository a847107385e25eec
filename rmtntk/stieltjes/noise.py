r"""What the fixed point of the bulk needs of the covariances: h_a = tr(C_a R)/p and S_ab = tr(C_a R C_b R)/p.

.. math:: R(q) = \Bigl(I + \sum_b \gamma_b q_b C_b\Bigr)^{-1}, \qquad \gamma_b = n_b/p

Covariances that commute are a discrete measure on R^K (`JointSpectrum`, O(K² J) for J distinct points);
others are matrices (`DenseSpectrum`, O(K p³)).
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rmtntk._typing import AnyArray, FloatArray

__all__ = ["DenseSpectrum", "JointSpectrum", "Spectrum", "common_basis", "linked_classes"]

_CHUNK = 1 << 21  # entries of a temporary


@dataclass(frozen=True, eq=False)
class JointSpectrum:
    """Joint eigenvalues of commuting covariances: points (K, J) with weights (J,) that sum to at most 1."""

    points: FloatArray
    weights: FloatArray

    @classmethod
    def of(cls, eigenvalues: FloatArray, dimension: float) -> "JointSpectrum":
        """Of eigenvalues, shape (K, J), each of weight 1/dimension; equal columns are merged, zero ones dropped."""
        kept = eigenvalues[:, (eigenvalues != 0.0).any(axis=0)]
        points, multiplicity = np.unique(kept, axis=1, return_counts=True)
        return cls(points, multiplicity / dimension)

    @property
    def largest(self) -> FloatArray:
        """‖C_a‖, shape (K,)."""
        return np.asarray(self.points.max(axis=1, initial=0.0))

    @property
    def traces(self) -> FloatArray:
        """Tr C_a/p, shape (K,)."""
        return np.asarray(self.points @ self.weights)

    def scaled(self, factor: float) -> "JointSpectrum":
        """Of covariances multiplied by a factor."""
        return JointSpectrum(self.points * factor, self.weights)

    def classes(self, index: AnyArray) -> "JointSpectrum":
        """Of some of the classes."""
        points = self.points[index]
        kept = (points != 0.0).any(axis=0)
        return JointSpectrum(points[:, kept], self.weights[kept])

    def terms(self, load: AnyArray) -> tuple[AnyArray, AnyArray]:
        """h, shape (N, K), and S, shape (N, K, K), at γ q, shape (N, K)."""
        k, j = self.points.shape
        step = max(1, _CHUNK // (k * j))
        if len(load) > step:
            parts = [self.terms(load[i : i + step]) for i in range(0, len(load), step)]
            return np.concatenate([h for h, _ in parts]), np.concatenate([s for _, s in parts])
        r = 1.0 / (1.0 + load @ self.points)
        h = (r * self.weights) @ self.points.T
        half = self.points * (np.sqrt(self.weights) * r)[:, None, :]
        return h, half @ np.swapaxes(half, -1, -2)

    def third(self, load: AnyArray, v: AnyArray) -> AnyArray:
        """tr(C_a R V R C_b R)/p with V = Σ v_c C_c, shape (K, K), at one γ q, shape (K,)."""
        r = 1.0 / (1.0 + load @ self.points)
        return (self.points * (self.weights * r**3 * (v @ self.points))) @ self.points.T

    def negative(self, load: FloatArray) -> float:
        """Share of negative eigenvalues of I + Σ γ_b q_b C_b, at one real γ q."""
        return float(self.weights[1.0 + load @ self.points < 0.0].sum())

    def ranges(self) -> AnyArray:
        """Which points each class covers, shape (K, J)."""
        return self.points != 0.0

    def joint_rank(self, index: AnyArray) -> float:
        """rank(Σ C_a)/p over some classes."""
        return float(self.weights[self.ranges()[index].any(axis=0)].sum())


@dataclass(frozen=True, eq=False)
class DenseSpectrum:
    """Full symmetric covariances, shape (K, p, p)."""

    matrices: FloatArray

    @property
    def largest(self) -> FloatArray:
        """‖C_a‖, shape (K,)."""
        return np.array([float(np.linalg.eigvalsh(c)[-1]) for c in self.matrices])

    @property
    def traces(self) -> FloatArray:
        """Tr C_a/p, shape (K,)."""
        return np.asarray(np.trace(self.matrices, axis1=1, axis2=2) / self.matrices.shape[1])

    def scaled(self, factor: float) -> "DenseSpectrum":
        """Of covariances multiplied by a factor."""
        return DenseSpectrum(self.matrices * factor)

    def classes(self, index: AnyArray) -> "DenseSpectrum":
        """Of some of the classes."""
        return DenseSpectrum(self.matrices[index])

    def _products(self, load: AnyArray) -> list[AnyArray]:
        system = np.tensordot(load, self.matrices, axes=(0, 0))
        system[np.diag_indices_from(system)] += 1.0
        r = np.linalg.inv(system)
        if np.iscomplexobj(r):  # two real products, half the cost of a complex one
            re, im = np.ascontiguousarray(r.real), np.ascontiguousarray(r.imag)
            return [c @ re + 1j * (c @ im) for c in self.matrices]
        return [c @ r for c in self.matrices]

    def terms(self, load: AnyArray) -> tuple[AnyArray, AnyArray]:
        """h, shape (N, K), and S, shape (N, K, K), at γ q, shape (N, K)."""
        k, p = self.matrices.shape[:2]
        h = np.empty((len(load), k), dtype=load.dtype)
        s = np.empty((len(load), k, k), dtype=load.dtype)
        for i, row in enumerate(load):
            products = self._products(row)
            h[i] = [np.trace(x) / p for x in products]
            for a in range(k):
                for b in range(a, k):
                    s[i, a, b] = s[i, b, a] = np.einsum("ij,ji->", products[a], products[b]) / p
        return h, s

    def third(self, load: AnyArray, v: AnyArray) -> AnyArray:
        """tr(C_a R V R C_b R)/p with V = Σ v_c C_c, shape (K, K), at one γ q, shape (K,)."""
        products = self._products(load)
        middle = sum(x * w for x, w in zip(products, v, strict=True))
        left = [x @ middle for x in products]
        return np.array([[np.einsum("ij,ji->", x, y) for y in products] for x in left]) / len(self.matrices[0])

    def negative(self, load: FloatArray) -> float:
        """Share of negative eigenvalues of I + Σ γ_b q_b C_b, at one real γ q."""
        system = np.tensordot(load, self.matrices, axes=(0, 0))
        system[np.diag_indices_from(system)] += 1.0
        return float((np.linalg.eigvalsh(system) < 0.0).mean())

    def joint_rank(self, index: AnyArray) -> float:
        """rank(Σ C_a)/p over some classes."""
        total = sum(self.matrices[a] / np.trace(self.matrices[a]) for a in index)
        values = np.linalg.eigvalsh(total)
        return float((values > len(values) * np.finfo(float).eps * values[-1]).mean())


Spectrum: TypeAlias = JointSpectrum | DenseSpectrum


def linked_classes(spectrum: Spectrum) -> list[list[int]]:
    """Classes whose ranges are not orthogonal, directly or through others; zero covariances belong nowhere.

    Rows of classes that are not linked are orthogonal: G is block diagonal over the groups.
    """
    if isinstance(spectrum, JointSpectrum):
        cover = spectrum.ranges().astype(np.float64)
        touch = cover @ cover.T > 0.0
    else:
        norms = np.sqrt(np.einsum("aij,aij->a", spectrum.matrices, spectrum.matrices))
        overlap = np.einsum("aij,bij->ab", spectrum.matrices, spectrum.matrices)
        floor = 1e-13 * np.outer(norms, norms)  # tr(C_a C_b) of orthogonal ranges is rounding
        touch = overlap > np.where(floor > 0.0, floor, np.inf)
    free = [a for a in range(len(touch)) if touch[a, a]]
    groups = []
    while free:
        group, stack = [], [free[0]]
        while stack:
            a = stack.pop()
            if a in free:
                free.remove(a)
                group.append(a)
                stack.extend(b for b in free if touch[a, b])
        groups.append(sorted(group))
    return groups


def common_basis(matrices: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Common eigenvectors (p, p) and eigenvalues (K, p) of symmetric matrices, or None if they do not commute."""
    norms = np.sqrt(np.einsum("aij,aij->a", matrices, matrices))
    used = [a for a in range(len(matrices)) if norms[a] > 0.0]
    if not used:
        return np.eye(matrices.shape[1]), np.zeros(matrices.shape[:2])
    eps = matrices.shape[1] * np.finfo(float).eps
    for i, a in enumerate(used):
        for b in used[i + 1 :]:
            product = matrices[a] @ matrices[b]
            if np.linalg.norm(product - product.T) > 8.0 * eps * norms[a] * norms[b]:
                return None
    # distinct irrational weights: equal eigenvalues of the sum are equal in each class but by accident
    mixed = sum(matrices[a] / norms[a] * (1.0 + np.sqrt(2.0 + 3.0 * i) % 1.0) for i, a in enumerate(used))
    _, basis = np.linalg.eigh(mixed)
    values = np.einsum("ij,aij->aj", basis, matrices @ basis)
    for a in used:
        rest = matrices[a] @ basis - basis * values[a]
        if np.linalg.norm(rest) > 64.0 * eps * norms[a]:
            return None
        largest = values[a].max()
        if values[a].min() < -64.0 * eps * largest:
            return None  # not positive semi-definite: refused by the caller
        values[a][np.abs(values[a]) <= 4.0 * eps * largest] = 0.0  # the rank, as numpy.linalg.matrix_rank takes it
    return basis, values
