r"""Spectrum of an exact kernel at finite n: the limit's bulk with what is of order n^{-1/2} in the kernel put back.

The limit replaces every sample's norm by τ_0 and drops (x_i·x_j)² − E off the diagonal. Neither moves the limit, but
both have operator norm O(n^{-1/2}), so the atom at c is smeared over that width, and a hard edge too. Keep

.. math:: K_{ij} \approx d_i d_j\, x_i \cdot x_j + c_3 \{(x_i \cdot x_j)^2 - T_{ab}/p\} + s_i 1_{i=j}

with d_i² = ∂K/∂(x·y) of two orthogonal samples of norm ‖x_i‖ and s_i = K(x_i, x_i) − d_i²‖x_i‖². The second term is
free of the first and acts as a Wigner matrix of variances w_ab = 2 c_3² T_ab²/p² (Hermite polynomials of degree 2). So

.. math:: q_i = \Bigl(s_i - z + d_i^2 \tfrac{\|x_i\|^2}{\tau_a^2} h_a - \sum_b n_b w_{ab} \bar q_b\Bigr)^{-1}, \quad
          h_a = \frac{1}{p} \mathrm{tr}\, C_a \Bigl(I + \sum_b \tfrac{n_b}{p} \theta_b C_b\Bigr)^{-1}, \quad
          \theta_b = E_b\Bigl[d^2 \tfrac{\|x\|^2}{\tau_b^2} q\Bigr], \quad \bar q_b = E_b[q]

with the expectations over the law of the norms, a Gamma of the mean and variance of ‖x‖² in each class.

References
----------
Lu and Yau (2022), arXiv 2205.06308, for the freeness of Hermite components of a kernel matrix (there without norms).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import scipy  # loads scipy.stats when it is first used

from rmtntk._typing import AnyArray, FloatArray
from rmtntk.errors import ConvergenceError
from rmtntk.kernels import ck, ntk
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network
from rmtntk.stieltjes import Bulk
from rmtntk.stieltjes.noise import JointSpectrum

__all__ = ["NormLaw"]

_NODES = 101
_STEP = 1e-3  # of the difference quotient in the cosine; its error is O(step⁴)
_WIDE, _NARROW = 1500, 801  # points over the support and around c
_TOLERANCE = 1e-9
_MASS = 5e-3


@dataclass(frozen=True, eq=False)
class NormLaw:
    """The smeared spectrum of one kernel.

    Attributes
    ----------
    bulk : Bulk
        Of the noise.
    diagonal, linear : ndarray, shape (K, N)
        s_i and d_i²‖x_i‖²/τ_a² at the nodes of the law of the norms, each of weight 1/N.
    wigner : ndarray, shape (K, K)
        n_b w_ab.
    support : (float, float)
        What the spectrum of the limit covers, atoms included.
    shift : float
        c.
    """

    bulk: Bulk
    diagonal: FloatArray
    linear: FloatArray
    wigner: FloatArray
    support: tuple[float, float]
    shift: float

    @classmethod
    def of(
        cls,
        net: Network,
        tau0: float,
        mixture: GaussianMixture,
        counts: FloatArray,
        kind: Literal["ck", "ntk"],
        quadratic: float,
        support: tuple[float, float],
        shift: float,
    ) -> "NormLaw":
        """Build it from the mixture on the scale of K_0, c3 and the limit's support and shift."""
        bulk = Bulk(mixture.covariances, counts, mixture.n_features)
        if not isinstance(bulk._spectrum, JointSpectrum):
            raise ValueError(
                "`finite_size` needs covariances that are scalar, diagonal or commute with each other, got full ones "
                "that do not: take finite_size=False, or a GaussianMixture of their diagonals"
            )
        if not mixture.traces.all():
            raise ValueError("`finite_size` needs classes of positive covariance, got one without noise")
        p = mixture.n_features
        traces, products = mixture.traces, mixture.trace_products
        variance = 2.0 * np.diag(products) / p
        levels = (np.arange(_NODES) + 0.5) / _NODES
        squares = np.repeat(traces[:, None], _NODES, axis=1)
        for a in range(len(traces)):
            nodes = scipy.stats.gamma.ppf(levels, traces[a] ** 2 / variance[a])
            unit = (nodes - nodes.mean()) / nodes.std()  # the nodes' own mean and variance, exactly
            squares[a] = np.maximum(traces[a] + np.sqrt(variance[a]) * unit, nodes[0] / nodes.mean() * traces[a])
        plain = replace(net, input_scaling="unit", tau0=tau0)
        slope, total = np.swapaxes([_along(plain, kind, np.sqrt(row)) for row in squares], 0, 1)
        size = squares / traces[:, None]
        wigner = 2.0 * quadratic**2 * products**2 * np.asarray(counts) / p**2
        return cls(bulk, total - slope * squares, slope * size, wigner, support, shift)

    @cached_property
    def width(self) -> float:
        """Standard deviation of what replaces the atom."""
        share = self.bulk.counts / self.bulk.n
        spread = float(share @ ((self.diagonal - self.shift) ** 2).mean(axis=1))
        return float(np.sqrt(spread + share @ self.wigner.sum(axis=1)))

    @cached_property
    def _smoothing(self) -> float:
        """Imaginary part at which the density is taken."""
        return max(2e-5 * (self.support[1] - self.support[0]), 0.02 * self.width)

    def density(self, x: FloatArray) -> FloatArray:
        """Density at real points, shape (N,), smoothed over a fiftieth of the width of the smeared atom."""
        q = self._solve(np.asarray(x, dtype=np.float64), self._smoothing)
        return np.asarray((q @ self.bulk.counts).imag / (self.bulk.n * np.pi))

    @cached_property
    def _table(self) -> tuple[FloatArray, FloatArray]:
        low, high = self.support
        pad = 12.0 * self.width + 0.02 * (high - low)
        half = 0.5 * (high - low) + pad
        wide = low - pad + half * (1.0 - np.cos(np.pi * np.arange(_WIDE + 1) / _WIDE))
        near = self.shift + 8.0 * self.width * np.linspace(-1.0, 1.0, _NARROW)
        grid = np.unique(np.concatenate([wide, near]))
        density = self.density(grid)
        steps = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
        total = np.concatenate([[0.0], np.cumsum(steps)])
        if abs(total[-1] - 1.0) > _MASS:
            raise ConvergenceError(
                f"the finite-size density has a mass of {total[-1]:.5f}: take finite_size=False", abs(total[-1] - 1.0)
            )
        return grid, total / total[-1]

    def cdf(self, x: FloatArray) -> FloatArray:
        """Distribution function at real points, shape (N,); normalised, the quadrature's mass is 1 within 5e-3."""
        grid, total = self._table
        return np.interp(x, grid, total, left=0.0, right=1.0)

    def _solve(self, x: FloatArray, target: float) -> AnyArray:
        """Return q̄, shape (N, K), at x + i target by Newton's method, continued from far above the axis."""
        out = np.empty((len(x), len(self.wigner)), dtype=np.complex128)
        for start in range(0, len(x), 512):
            out[start : start + 512] = self._solve_some(x[start : start + 512], target)
        return out

    def _solve_some(self, x: FloatArray, target: float) -> AnyArray:
        k = len(self.wigner)
        height = 4.0 * (self.support[1] - self.support[0] + self.width)
        z = x + 1j * height
        state = np.repeat((-1.0 / z)[:, None], 2 * k, axis=1)
        state[:, :k] *= self.linear.mean(axis=1)
        state = self._settle(z, state)
        while height > target:
            height = max(0.6 * height, target)
            state = self._settle(x + 1j * height, state)
        return state[:, k:]

    def _step(self, z: AnyArray, state: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Image of (θ, q̄) and its Jacobian."""
        k = len(self.wigner)
        share = self.bulk.counts / self.bulk.p
        h, s = self.bulk._spectrum.terms(share * state[:, :k])
        shift = state[:, k:] @ self.wigner.T
        q = 1.0 / (self.diagonal - z[:, None, None] + self.linear * h[:, :, None] - shift[:, :, None])
        q2 = q * q
        image = np.concatenate([(self.linear * q).mean(axis=2), q.mean(axis=2)], axis=1)
        flat = q2.mean(axis=2)
        once = (self.linear * q2).mean(axis=2)
        twice = (self.linear**2 * q2).mean(axis=2)
        jacobian = np.empty((len(z), 2 * k, 2 * k), dtype=np.complex128)
        through = s * share  # −dh/dθ
        jacobian[:, :k, :k] = twice[:, :, None] * through
        jacobian[:, k:, :k] = once[:, :, None] * through
        jacobian[:, :k, k:] = once[:, :, None] * self.wigner
        jacobian[:, k:, k:] = flat[:, :, None] * self.wigner
        return image, jacobian

    def _settle(self, z: AnyArray, state: AnyArray) -> AnyArray:
        k = len(self.wigner)
        state = np.array(state)
        live = np.arange(len(z))
        for _ in range(12):
            image, jacobian = self._step(z[live], state[live])
            gap = image - state[live]
            size = _relative(gap, image)
            move = np.linalg.solve(np.eye(2 * k) - jacobian, gap[:, :, None])[:, :, 0]
            new = state[live] + move
            # where Newton leaves the upper half plane, a damped step of the iteration, which cannot
            bad = ~(np.isfinite(new).all(axis=1) & (new.imag > 0.0).all(axis=1))
            new[bad] = 0.5 * (state[live][bad] + image[bad])
            state[live] = new
            live = live[(size > _TOLERANCE) | bad]
            if not len(live):
                return state
        for _ in range(20000):
            image, _ = self._step(z[live], state[live])
            size = _relative(image - state[live], image)
            state[live] = 0.5 * (state[live] + image)
            live = live[size > 1e-7]
            if not len(live):
                return state
        raise ConvergenceError("the finite-size equation did not settle: take finite_size=False", float(size.max()))


def _relative(gap: AnyArray, image: AnyArray) -> FloatArray:
    """Largest relative change of θ and of q̄, which have different units."""
    shape = (len(image), 2, -1)
    return np.asarray((np.abs(gap.reshape(shape)).max(axis=2) / np.abs(image.reshape(shape)).max(axis=2)).max(axis=1))


def _along(net: Network, kind: Literal["ck", "ntk"], norms: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope in x·y at orthogonal x, y of the given norm, and the diagonal, each of the shape of `norms`."""
    kernel = ck if kind == "ck" else ntk
    x = np.column_stack([norms, np.zeros_like(norms)])
    values = []
    for cosine in (_STEP, -_STEP, 2.0 * _STEP, -2.0 * _STEP):
        y = norms[:, None] * np.array([cosine, np.sqrt(1.0 - cosine * cosine)])
        values.append(np.diag(kernel(net, x, y)).astype(np.float64))
    slope = (8.0 * (values[0] - values[1]) - (values[2] - values[3])) / (12.0 * _STEP)
    return slope / norms**2, np.diag(kernel(net, x)).astype(np.float64)
