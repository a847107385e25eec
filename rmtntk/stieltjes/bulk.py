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

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_real
from rmtntk.errors import ConvergenceError
from rmtntk.mixture import GaussianMixture
from rmtntk.stieltjes.ensemble import Ensemble, Part
from rmtntk.stieltjes.point import Point, check_point, conjugate
from rmtntk.stieltjes.solver import attempt, below_zero, land, real_newton
from rmtntk.stieltjes.table import Interval

__all__ = ["Bulk", "Point"]


@dataclass(frozen=True, eq=False, init=False)
class Bulk(Ensemble):
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
        z = check_point(zeta, "zeta")
        if z.imag < 0.0:
            return conjugate(self.solve(z.conjugate(), None if start is None else conjugate(start)))
        if z == 0.0 and (self.atom > 0.0 or len(self._zero) or any(part.hard for part in self._parts)):
            raise ValueError("`zeta` must not be 0: it is an eigenvalue of G in the limit, or an edge where q diverges")
        solutions = []
        for part in self._parts:
            try:
                solutions.append(self._solve_part(part, z, start))
            except ConvergenceError as error:
                raise part.advised(error) from error
        return self._point(z, solutions)

    def _solve_part(self, part: Part, zeta: complex, start: Point | None) -> AnyArray:
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

    def _imaginary(self, part: Part, interval: Interval, x: FloatArray) -> FloatArray:
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
