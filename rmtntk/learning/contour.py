r"""Functions of time of a positive semi-definite matrix as sums of resolvents, with an error measured on its spectrum.

.. math:: e^{-tK} \approx \mathrm{Re} \sum_k \beta_k (K - z_k)^{-1}, \qquad
          \frac{1 - e^{-tK}}{K} \approx \mathrm{Re} \sum_k \alpha_k (K - z_k)^{-1}

over a hyperbola around [0, ∞), open to the right, which serves a range of times; half of the nodes, the others are
conjugates. The contour of the second has the pole of e^{−tz}/z inside, whose residue is the 1/K.

Source: Weideman and Trefethen (2007), "Parabolic and hyperbolic contours for computing the Bromwich integral",
section 4.
"""

from dataclasses import dataclass

import numpy as np

from rmtntk._typing import AnyArray, FloatArray
from rmtntk.errors import ConvergenceError

__all__ = ["Contour", "flow_contour", "phi"]

_COUNTS = (10, 14, 18, 22, 26, 30, 36, 42, 50, 60)
_TOLERANCE = 1e-8
_ACCEPTED = 1e-6
_GRID = 2001


@dataclass(frozen=True, eq=False)
class Contour:
    """Nodes in the upper half-plane and weights of the functions of time.

    Attributes
    ----------
    points : ndarray of complex, shape (N,)
    weights : ndarray of complex, shape (T, N)
        α of (1 − e^{−tλ})/λ.
    decay : ndarray of complex, shape (T, N)
        β of e^{−2tλ}.
    error : float
        Largest error over times and spectrum: of the first relative to its maximum, of the second absolute.
    """

    points: AnyArray
    weights: AnyArray
    decay: AnyArray
    error: float


def flow_contour(times: FloatArray, low: float, high: float) -> Contour:
    """Return a contour for several positive times and a spectrum inside [low, high], low ≥ 0.

    Raises
    ------
    ConvergenceError
        If 60 nodes leave an error above 1e-6; times of one call should be within a factor of some 30.
    """
    grid = np.concatenate([[low], np.geomspace(max(low, 1e-6 * high), high, _GRID)])
    wanted = phi(times, grid)
    size = wanted.max(axis=1, keepdims=True)
    fading = np.exp(-2.0 * times[:, None] * grid)
    best: Contour | None = None
    for count in _COUNTS:
        points, steps = _hyperbola(float(times.min()), 2.0 * float(times.max()), count)
        weights = -np.exp(-times[:, None] * points) * steps / points
        decay = np.exp(-2.0 * times[:, None] * points) * steps
        inverse = 1.0 / (grid - points[:, None])
        error = max(
            float((np.abs(np.real(weights @ inverse) - wanted) / size).max()),
            float(np.abs(np.real(decay @ inverse) - fading).max()),
        )
        if best is None or error < best.error:
            best = Contour(points, weights, decay, error)
        if error <= _TOLERANCE:
            break
    if best is None or not best.error <= _ACCEPTED:
        reached = np.inf if best is None else best.error
        raise ConvergenceError(
            f"the contour integral for times from {times.min():.3g} to {times.max():.3g} and a spectrum in "
            f"[{low:.3g}, {high:.3g}] reached an error of {reached:.1e}, 1e-6 is required: take fewer times a call",
            reached,
        )
    return best


def _hyperbola(first: float, last: float, count: int) -> tuple[AnyArray, AnyArray]:
    """Nodes z_k and steps with f(K) = Re Σ_k f(z_k) step_k (K − z_k)^{-1} for f = e^{−tz} × anything slow."""
    ratio = last / first
    angle = np.linspace(0.25 * np.pi, 0.5 * np.pi, 402)[1:-1]
    reach = np.arccosh(((np.pi - 2.0 * angle) * ratio + 4.0 * angle - np.pi) / ((4.0 * angle - np.pi) * np.sin(angle)))
    best = int(np.argmax((np.pi**2 - 2.0 * np.pi * angle) / reach))
    a, width = float(angle[best]), float(reach[best])
    scale = (4.0 * np.pi * a - np.pi**2) / width * count / last
    u = (np.arange(count) + 0.5) * width / count
    points = -scale * (1.0 + np.sin(1j * u - a))
    slope = -1j * scale * np.cos(1j * u - a)
    # f(K) = 1/(2πi) ∮ f (z − K)^-1 dz; the lower half adds the conjugate
    flip = 1.0 if points[-1].imag > 0.0 else -1.0
    points = points if flip > 0.0 else points.conj()
    slope = slope if flip > 0.0 else slope.conj()
    return points, slope * (width / count) / (1j * np.pi)


def phi(times: FloatArray, points: FloatArray) -> FloatArray:
    """(1 − e^{−tλ})/λ at real λ ≥ 0, shape (T, N); t at λ = 0."""
    safe = np.where(points == 0.0, 1.0, points)
    return np.asarray(np.where(points == 0.0, times[:, None], -np.expm1(-times[:, None] * points) / safe))
