r"""Limiting spectrum of the Gram matrix G = Z Zᵀ of a Gaussian mixture, rows z_i ~ N(0, C_a/p).

.. math::
    \tilde Q(\zeta) = \Bigl(\sum_b \frac{n_b}{p} \frac{C_b}{1+\delta_b} - \zeta I\Bigr)^{-1}, \quad
    \delta_b = \frac{\mathrm{tr} C_b \tilde Q}{p}, \quad q_a = \frac{-1}{\zeta (1 + \delta_a)}, \quad
    m = \sum_a \frac{n_a}{n} q_a

q_a is the limit of the diagonal of (G − ζ)^{-1} on class a, and Im m(x + i0)/π the density of eigenvalues.

References
----------
Benaych-Georges and Couillet (2016), Spectral analysis of the Gram matrix of mixture models.
Silverstein and Choi (1995), Analysis of the limiting spectral distribution of large-dimensional random matrices: K = 1.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_integer, check_real, check_square
from rmtntk.errors import ConvergenceError
from rmtntk.mixture import GaussianMixture
from rmtntk.stieltjes.noise import DenseSpectrum, JointSpectrum, Spectrum, common_basis, linked_classes
from rmtntk.stieltjes.rank import generic_rank
from rmtntk.stieltjes.solver import Core, attempt, below_zero, land, real_newton
from rmtntk.stieltjes.table import Interval, support

__all__ = ["Bulk", "Point"]


@dataclass(frozen=True, eq=False)
class Point:
    """Solution of the bulk equation at one ζ; made by :meth:`Bulk.solve`.

    Attributes
    ----------
    zeta : complex or float
        Where.
    delta : ndarray, shape (K,)
        δ_a = tr(C_a Q̃)/p; real where ζ is real and outside the support, else complex. Infinite at ζ = 0.
    q : ndarray, shape (K,)
        Limits of the diagonal of (G − ζ)^{-1} on each class.
    loads : ndarray, shape (K,)
        (n_a/p)/(1 + δ_a).
    m : complex or float
        Σ (n_a/n) q_a, the Stieltjes transform of G's spectrum.
    inside : bool
        Whether ζ is real and in the support, where everything is the limit from above.
    residual : float
        max |1 + ζ q_a (1 + δ_a)| with δ evaluated at q.
    m_slope : complex or float
        dm/dζ.
    """

    zeta: complex | float
    delta: AnyArray
    q: AnyArray
    loads: AnyArray
    m: complex | float
    inside: bool
    residual: float
    delta_slope: AnyArray
    q_slope: AnyArray
    m_slope: complex | float

    def derivative(self) -> tuple[AnyArray, AnyArray]:
        """dδ/dζ and dq/dζ, each of shape (K,); they are infinite at an edge of the support."""
        return self.delta_slope, self.q_slope


@dataclass(frozen=True, eq=False)
class _Part:
    """Classes linked to each other, and what G's block of their rows looks like near zero."""

    index: AnyArray
    core: Core
    scale: float
    rank: float
    hard: bool

    @property
    def atom(self) -> float:
        """Share of zero eigenvalues among the rows."""
        return max(0.0, 1.0 - self.rank / float(self.core.gamma.sum()))

    @cached_property
    def intervals(self) -> list[Interval]:
        """The support in units of `scale`, with tables."""
        return support(self.core, self.atom, self.hard)


@dataclass(frozen=True, eq=False)
class Bulk:
    r"""Limiting spectrum of G = Z Zᵀ with n_a rows z_i ~ N(0, C_a/p) of each class.

    Parameters
    ----------
    covariances : array_like, shape (K,), (K, p) or (K, p, p)
        C_a as multiples of the identity, diagonals, or symmetric positive semi-definite matrices.
    counts : array_like, shape (K,)
        n_a > 0, not necessarily integers.
    n_features : int
        p.

    Attributes
    ----------
    counts, n, p
        As given; n = Σ n_a.

    Raises
    ------
    ValueError
        If shapes do not fit, a covariance is not symmetric positive semi-definite, or counts are not positive.

    Notes
    -----
    Covariances that are scalar, diagonal or commute cost O(K² p) per evaluation, O(K²) if scalar; others O(K p³).
    All is invariant under a change of units. Classes whose covariances have orthogonal ranges are solved apart.
    """

    covariances: FloatArray
    counts: FloatArray
    n: float
    p: int

    def __init__(self, covariances: ArrayLike, counts: ArrayLike, n_features: int) -> None:
        p = check_integer(n_features, "n_features", low=1)
        cov = check_array(covariances, "covariances", max(1, min(3, np.ndim(covariances))))
        k = len(cov)
        if cov.shape not in ((k,), (k, p), (k, p, p)):
            raise ValueError(
                f"`covariances` must have shape (K,), (K, {p}) or (K, {p}, {p}) for {p} features, got {cov.shape}"
            )
        number = check_array(counts, "counts", 1)
        if number.shape != (k,) or (number <= 0.0).any():
            raise ValueError(f"`counts` must be {k} positive numbers, one per covariance, got {number.tolist()}")
        if cov.ndim < 3 and (cov < 0.0).any():
            raise ValueError(f"`covariances` must not be negative, got an entry {cov.min():g}")
        for a in range(k if cov.ndim == 3 else 0):
            check_square(cov[a], f"covariances[{a}]")
        values = {"covariances": cov, "counts": number, "n": float(number.sum()), "p": p}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if cov.ndim == 3 and self._basis is None:
            _check_semidefinite(cov)

    @classmethod
    def from_mixture(cls, mixture: GaussianMixture, n: float) -> "Bulk":
        """Of n samples of a mixture, n_a = weights_a n, without its means.

        Parameters
        ----------
        mixture : GaussianMixture
            Population.
        n : float
            Number of samples, positive.
        """
        if not isinstance(mixture, GaussianMixture):
            raise TypeError(f"`mixture` must be a GaussianMixture, got {mixture!r}")
        size = check_real(n, "n", low=0.0, open_low=True)
        return cls(mixture.covariances, mixture.weights * size, mixture.n_features)

    # structure ---------------------------------------------------------------------------------------------------

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.counts)

    @cached_property
    def _basis(self) -> tuple[FloatArray, FloatArray] | None:
        """Common eigenvectors and eigenvalues of full covariances, None if there are none."""
        if self.covariances.ndim < 3:
            return None
        found = common_basis(np.asarray(0.5 * (self.covariances + np.swapaxes(self.covariances, 1, 2))))
        if found is not None and (found[1] < 0.0).any():
            _check_semidefinite(self.covariances)
        return found

    @cached_property
    def _spectrum(self) -> Spectrum:
        if self.covariances.ndim == 1:
            return JointSpectrum.of(self.covariances[:, None], 1.0)
        if self.covariances.ndim == 2:
            return JointSpectrum.of(self.covariances, self.p)
        if self._basis is not None:
            return JointSpectrum.of(self._basis[1], self.p)
        return DenseSpectrum(np.asarray(0.5 * (self.covariances + np.swapaxes(self.covariances, 1, 2))))

    @cached_property
    def _parts(self) -> list[_Part]:
        parts = []
        for group in linked_classes(self._spectrum):
            index = np.array(group)
            spectrum = self._spectrum.classes(index)
            scale = float(spectrum.largest.max())
            spectrum = spectrum.scaled(1.0 / scale)
            gamma = self.counts[index] / self.p
            parts.append(_Part(index, Core(spectrum, gamma), scale, *generic_rank(spectrum, gamma)))
        return parts

    @property
    def atom(self) -> float:
        """Mass of the eigenvalue 0: 1 − rank(Z)/n in the limit, 1 − p/n if p < n and no covariance is singular."""
        rank = sum(part.rank for part in self._parts)
        return float(max(0.0, 1.0 - rank * self.p / self.n))

    # solutions ---------------------------------------------------------------------------------------------------

    def solve(self, zeta: complex | float, start: Point | None = None) -> Point:
        r"""Solve the bulk equation.

        Parameters
        ----------
        zeta : complex or float
            Anywhere. On the real axis inside the support the limit from above is returned, Im q > 0.
        start : Point, optional
            A solution nearby, to save time; the result does not depend on it.

        Returns
        -------
        Point
            Real where ζ is real and outside the support.

        Raises
        ------
        ValueError
            If ζ is 0 and 0 is an eigenvalue of G in the limit, or an edge at which q diverges.
        ConvergenceError
            If the solution cannot be certified, within rounding of an edge.

        Notes
        -----
        Newton in log q along an arc from the negative axis, where the problem is convex. The result is certified: all
        Im q_a > 0, or ζ real and the derivative of the fixed-point map of spectral radius below 1; each implies that no
        other solution has either. Relative error a few eps, over the distance to the nearest edge to the power ½.
        """
        z = _check_point(zeta, "zeta")
        if z.imag < 0.0:
            return _conjugate(self.solve(z.conjugate(), None if start is None else _conjugate(start)))
        if z == 0.0 and (self.atom > 0.0 or len(self._zero) or any(part.hard for part in self._parts)):
            raise ValueError("`zeta` must not be 0: it is an eigenvalue of G in the limit, or an edge where q diverges")
        solutions = [self._solve_part(part, z, start) for part in self._parts]
        return self._point(z, solutions)

    def _solve_part(self, part: _Part, zeta: complex, start: Point | None) -> AnyArray:
        core, z = part.core, zeta / part.scale
        if start is not None:
            guess = np.asarray(start.q[part.index]) * part.scale
            if z.imag == 0.0 and not np.iscomplexobj(guess):
                real = real_newton(core, z.real, guess)
                if real is not None:
                    return real
            found, ok = attempt(core, np.array([z]), guess[None, :])
            if ok[0]:
                return found[0]
        if z == 0.0:
            near = 1e-3
            while near > 1e-30:
                real = real_newton(core, 0.0, below_zero(core, np.array([near]))[0])
                if real is not None:
                    return real
                near *= 0.1
            raise ConvergenceError("`zeta` = 0 is within rounding of the support: take a negative number", near)
        if z.imag == 0.0 and z.real < 0.0:
            return below_zero(core, np.array([-z.real]))[0]
        return land(core, np.array([z]))[0]

    @property
    def _zero(self) -> AnyArray:
        """Classes of zero covariance."""
        return np.setdiff1d(np.arange(self.n_classes), np.concatenate([[], *(part.index for part in self._parts)]))

    def _point(self, zeta: complex, solutions: list[AnyArray]) -> Point:
        real = zeta.imag == 0.0
        k = self.n_classes
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.divide(1.0, zeta)
            q: AnyArray = np.full(k, -inverse, dtype=np.complex128)
            q_slope: AnyArray = np.full(k, inverse**2, dtype=np.complex128)
            delta: AnyArray = np.zeros(k, dtype=np.complex128)
            delta_slope: AnyArray = np.zeros(k, dtype=np.complex128)
            for part, found in zip(self._parts, solutions, strict=True):
                h, s = part.core.terms(found[None, :])
                system = np.eye(len(found)) - part.core.coupling(found, s[0])
                slope = found * np.linalg.solve(system, found)
                h_slope = -s[0] @ (part.core.gamma * slope)
                q[part.index] = found / part.scale
                q_slope[part.index] = slope / part.scale**2
                delta[part.index] = -h[0] * part.scale * inverse
                delta_slope[part.index] = -h_slope * inverse + h[0] * part.scale * inverse**2
        inside = bool(real and np.iscomplexobj(np.concatenate(solutions or [np.zeros(0)])) and (q.imag > 0.0).any())
        if real and not inside:
            q, q_slope, delta, delta_slope = q.real, q_slope.real, delta.real, delta_slope.real
            zeta_out: complex | float = zeta.real
        else:
            zeta_out = zeta.real if real else zeta
        share = self.counts / self.n
        residual = 0.0 if zeta == 0.0 else float(np.abs(1.0 + zeta_out * q * (1.0 + delta)).max())
        return Point(
            zeta=zeta_out,
            delta=delta,
            q=q,
            loads=-zeta_out * q * self.counts / self.p,
            m=(share @ q).item(),
            inside=inside,
            residual=residual,
            delta_slope=delta_slope,
            q_slope=q_slope,
            m_slope=(share @ q_slope).item(),
        )

    # support and density -----------------------------------------------------------------------------------------

    @cached_property
    def edges(self) -> FloatArray:
        """Intervals of the support of the continuous part, shape (m, 2), ascending; the atom at 0 is not among them.

        Notes
        -----
        Edges are folds of the real solution, right to eps · max |1/q_a|: 1e-14 relative, less at an edge far below the
        scale of a class (covariances 11 decades apart: 1e-9). Gaps inside the support are all found for one
        class. For several, each shows as a minimum of the density that is followed to its bottom: seen down to relative
        widths of 5e-13 for two scalar classes; full covariances are searched more coarsely, to about 1e-7.
        """
        ends = sorted(
            (interval.left.x * part.scale, interval.right.x * part.scale)
            for part in self._parts
            for interval in part.intervals
        )
        merged: list[list[float]] = []
        for low, high in ends:
            if merged and low <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], high)
            else:
                merged.append([low, high])
        return np.array(merged).reshape(-1, 2)

    def class_densities(self, x: ArrayLike) -> FloatArray:
        """Im q_a(x + i0)/π, shape (..., K): spectral measures of the rows of each class, their atoms at 0 left out.

        Parameters
        ----------
        x : array_like, shape (...)
            Real points.
        """
        points = check_array(x, "x", np.ndim(x))
        flat = points.reshape(-1)
        out = np.zeros((len(flat), self.n_classes))
        for part in self._parts:
            scaled = flat / part.scale
            for interval in part.intervals:
                inside = np.flatnonzero((scaled > interval.left.x) & (scaled < interval.right.x))
                if len(inside):
                    values = self._imaginary(part, interval, scaled[inside])
                    out[np.ix_(inside, part.index)] = values / (np.pi * part.scale)
            if part.hard:
                out[np.ix_(np.flatnonzero(flat == 0.0), part.index)] = np.inf
        return out.reshape(*points.shape, self.n_classes)

    def _imaginary(self, part: _Part, interval: Interval, x: FloatArray) -> FloatArray:
        theta = interval.theta(x)
        values, rough = interval.lookup(theta)
        values /= interval.lift(theta)[:, None]
        if rough.any():
            values[rough] = np.concatenate(
                [land(part.core, x[i : i + 1].astype(np.complex128)).imag for i in np.flatnonzero(rough)]
            )
        return values

    def density(self, x: ArrayLike) -> FloatArray:
        """Density of eigenvalues at x, which integrates to 1 − atom.

        Parameters
        ----------
        x : array_like, shape (...)
            Real points; the density is 0 outside the support, infinite at 0 if it diverges there.

        Notes
        -----
        From tables, to about 1e-12 of the density's size on a logarithmic scale; where they do not converge (next to a
        gap that has nearly closed), solved at each point.
        """
        return np.asarray(self.class_densities(x) @ (self.counts / self.n))

    def cdf(self, x: ArrayLike) -> FloatArray:
        """Share of eigenvalues up to x, the atom at 0 included.

        Parameters
        ----------
        x : array_like, shape (...)
            Real points.

        Notes
        -----
        At gaps the share is exact: it counts signs of q and of I + Σ (n_b/p) q_b C_b. Within an interval the integrated
        density, of which :attr:`mass_error` tells the error, is scaled to the exact share.
        """
        points = check_array(x, "x", np.ndim(x))
        flat = points.reshape(-1)
        out = np.zeros(len(flat))
        out[flat >= 0.0] = self.counts[self._zero].sum() / self.n
        for part in self._parts:
            scaled = flat / part.scale
            mass = np.where(flat >= 0.0, part.atom, 0.0)
            weights = part.core.gamma / part.core.gamma.sum()
            for interval in part.intervals:
                inside = (scaled > interval.left.x) & (scaled < interval.right.x)
                rate = interval.mass / float(interval.total() @ weights)
                angles = interval.theta(scaled[inside])
                mass[inside] = interval.mass_below + rate * (interval.cumulate(angles) @ weights)
                mass[scaled >= interval.right.x] = interval.mass_below + interval.mass
            out += mass * (self.counts[part.index].sum() / self.n)
        return np.asarray(out.reshape(points.shape))

    @cached_property
    def mass_error(self) -> float:
        """Largest difference between an interval's integrated density and its exact mass."""
        errors = [0.0]
        for part in self._parts:
            weights = part.core.gamma / part.core.gamma.sum()
            share = self.counts[part.index].sum() / self.n
            errors += [share * abs(i.mass - float(i.total() @ weights)) for i in part.intervals]
        return float(max(errors))

    # the resolvent Q̃ ---------------------------------------------------------------------------------------------

    def _combine(self, weights: AnyArray, shift: complex | float, block: AnyArray, *, invert: bool) -> AnyArray:
        """(Σ w_b C_b + shift I) M or its inverse times M."""
        if self.covariances.ndim == 3 and self._basis is None:
            matrix = np.tensordot(weights, self.covariances, axes=(0, 0))
            matrix[np.diag_indices_from(matrix)] += shift
            return np.asarray(np.linalg.solve(matrix, block) if invert else matrix @ block)
        if self.covariances.ndim == 3 and self._basis is not None:
            basis, values = self._basis
            diagonal = (weights @ values + shift)[:, None]
            inner = basis.T @ block
            return np.asarray(basis @ (inner / diagonal if invert else inner * diagonal))
        diagonal = weights @ self.covariances + shift
        diagonal = diagonal[:, None] if np.ndim(diagonal) else diagonal
        return np.asarray(block / diagonal if invert else block * diagonal)

    def _rows(self, block: ArrayLike, name: str) -> FloatArray:
        matrix = check_array(block, name, 2)
        if len(matrix) != self.p:
            raise ValueError(f"`{name}` must have {self.p} rows, one per feature, got shape {matrix.shape}")
        return matrix

    def _invert(self, point: Point, block: AnyArray) -> AnyArray:
        if point.zeta == 0.0:
            raise ValueError("`point` must not be at ζ = 0, where Q̃ is infinite: take a negative ζ")
        return self._combine(point.loads, -point.zeta, block, invert=True)

    def apply(self, point: Point, block: ArrayLike) -> AnyArray:
        """Q̃ M.

        Parameters
        ----------
        point : Point
            Solution at ζ ≠ 0.
        block : array_like, shape (p, k)
            M.
        """
        return self._invert(point, self._rows(block, "block"))

    def quadratic(self, point: Point, left: ArrayLike, right: ArrayLike | None = None) -> AnyArray:
        """Leftᵀ Q̃ right, shape (k, m).

        Parameters
        ----------
        point : Point
            Solution at ζ ≠ 0.
        left, right : array_like, shapes (p, k) and (p, m)
            Vectors in columns; right is left if not given.
        """
        one = self._rows(left, "left")
        return np.asarray(one.T @ self._invert(point, one if right is None else self._rows(right, "right")))

    def quadratic_derivative(self, point: Point, left: ArrayLike, right: ArrayLike | None = None) -> AnyArray:
        """Leftᵀ (dQ̃/dζ) right, shape (k, m), the loads' dependence on ζ included.

        Parameters
        ----------
        point : Point
            Solution at ζ ≠ 0, not an edge.
        left, right : array_like, shapes (p, k) and (p, m)
            Vectors in columns; right is left if not given.
        """
        one = self._rows(left, "left")
        before = self._invert(point, one)
        after = before if right is None else self._invert(point, self._rows(right, "right"))
        slope = -(self.counts / self.p) * (point.q + point.zeta * point.q_slope)
        return np.asarray(-before.T @ self._combine(slope, -1.0, after, invert=False))

    def trace_products(self, point: Point) -> AnyArray:
        """tr(C_a Q̃ C_b Q̃)/p, shape (K, K), at ζ ≠ 0."""
        if point.zeta == 0.0:
            raise ValueError("`point` must not be at ζ = 0, where Q̃ is infinite: take a negative ζ")
        out = np.zeros((self.n_classes, self.n_classes), dtype=point.q.dtype)
        for part in self._parts:
            _, s = part.core.terms(point.q[part.index][None, :] * part.scale)
            out[np.ix_(part.index, part.index)] = s[0] * (part.scale / point.zeta) ** 2
        return out


def _check_point(zeta: Any, name: str) -> complex:
    if isinstance(zeta, bool | np.bool_) or np.ndim(zeta) != 0 or not np.issubdtype(np.asarray(zeta).dtype, np.number):
        raise TypeError(f"`{name}` must be a real or complex number, got {zeta!r}")
    value = complex(zeta)
    if not np.isfinite(value):
        raise ValueError(f"`{name}` must be finite, got {zeta!r}")
    return value


def _check_semidefinite(cov: FloatArray) -> None:
    for a, matrix in enumerate(cov):
        values = np.linalg.eigvalsh(matrix)
        if values[0] < -1e-10 * max(values[-1], 0.0) or values[-1] < 0.0:
            raise ValueError(f"`covariances[{a}]` must be positive semi-definite, got an eigenvalue {values[0]:.3g}")


def _conjugate(point: Point) -> Point:
    return Point(
        zeta=np.conj(point.zeta).item(),
        delta=np.conj(point.delta),
        q=np.conj(point.q),
        loads=np.conj(point.loads),
        m=np.conj(point.m).item(),
        inside=point.inside,
        residual=point.residual,
        delta_slope=np.conj(point.delta_slope),
        q_slope=np.conj(point.q_slope),
        m_slope=np.conj(point.m_slope).item(),
    )
