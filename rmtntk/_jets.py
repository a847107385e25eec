r"""Second-order jets of a deep kernel in two norms and an inner product, for networks with biases or without centring.

Off the diagonal every kernel is one function F(‖x‖², ‖y‖², x·y). Its value, gradient and Hessian at (τ0², τ0², 0)
pass through the layers by the chain rule; a layer contributes the derivatives of its dual kernel at the base
correlation ρ0. With a_k = E[σ^{(k)}(λξ)] and the covariance c = ρ0 λ²,

.. math:: E[\sigma(u)\sigma(v)] = \sum_k a_k(\lambda_u^2) a_k(\lambda_v^2) c^k / k!, \qquad
          d a_k / d\lambda^2 = \tfrac12 a_{k+2},

so that every derivative is a sum S(j, m) = Σ_k a_{k+j} a_{k+m} c^k/k!.
"""

from typing import NamedTuple

import numpy as np

from rmtntk._typing import FloatArray, IntArray
from rmtntk.activations import Activation
from rmtntk.errors import AccuracyError
from rmtntk.hermite import MAX_TERMS, hermite_coefficients, step_coefficients
from rmtntk.moments import moment_arrays

__all__ = ["SERIES_ERROR", "Jet", "dual_jets", "norm_jet"]

SERIES_ERROR = 1e-9  # what sums over Hermite coefficients may leave out, relative to their largest term
_STEP = 2e-3  # of the derivative in log λ²
_LARGEST = 1e48  # of λ, whose sixth power and its inverse float64 must hold


class Jet(NamedTuple):
    """f + gᵀd + ½ dᵀHd with d = (δ_x, δ_y, x·y): value, gradient (3,), Hessian (3, 3)."""

    value: float
    gradient: FloatArray
    hessian: FloatArray

    def times(self, other: "Jet") -> "Jet":
        """Product, to second order."""
        cross = np.outer(self.gradient, other.gradient)
        return Jet(
            self.value * other.value,
            self.value * other.gradient + other.value * self.gradient,
            self.value * other.hessian + other.value * self.hessian + cross + cross.T,
        )

    def affine(self, scale: float, offset: float) -> "Jet":
        """Return scale · f + offset."""
        return Jet(scale * self.value + offset, scale * self.gradient, scale * self.hessian)

    def plus(self, other: "Jet") -> "Jet":
        """Return the sum."""
        return Jet(self.value + other.value, self.gradient + other.gradient, self.hessian + other.hessian)

    def mirrored(self) -> "Jet":
        """Exchange δ_x and δ_y."""
        order = [1, 0, 2]
        return Jet(self.value, self.gradient[order], self.hessian[np.ix_(order, order)])


def _compose(outer: Jet, arguments: tuple[Jet, Jet, Jet]) -> Jet:
    """Jet of outer(u, v, c): chain rule to second order."""
    slopes = np.stack([jet.gradient for jet in arguments])
    hessian = slopes.T @ outer.hessian @ slopes
    for weight, jet in zip(outer.gradient, arguments, strict=True):
        hessian = hessian + weight * jet.hessian
    return Jet(outer.value, outer.gradient @ slopes, hessian)


def norm_jet(act: Activation, scale: float, centre: float, below: Jet) -> Jet:
    """Jet of E[(σ − centre)²] at λ² = `below`, a function of δ_x alone; d/dλ² = ½E[((σ − centre)²)'']."""
    # the second derivative by a difference of fourth order of the first: its error is about 1e-10
    steps = np.array([0.0, -2.0, -1.0, 1.0, 2.0]) * _STEP
    field = moment_arrays(act, scale * np.sqrt(1.0 + steps))
    value = float(field.variance[0] + (field.mean[0] - centre) ** 2)
    slope = field.half_d2_squared + (field.mean - centre) * field.d2
    second = float(slope[1:] @ np.array([1.0, -8.0, 8.0, -1.0])) / (12.0 * _STEP * scale**2)
    zero, hessian = np.zeros(3), np.zeros((3, 3))
    hessian[0, 0] = second
    outer = Jet(value, np.array([float(slope[0]), 0.0, 0.0]), hessian)
    nothing = Jet(0.0, zero, np.zeros((3, 3)))
    return _compose(outer, (below, nothing, nothing))


def dual_jets(act: Activation, scale: float, centre: float, arguments: tuple[Jet, Jet, Jet]) -> tuple[Jet, Jet]:
    """Jets of E[σσ] (σ less the centre) and E[σ'σ'] of jets (λ_x², λ_y², covariance).

    Raises
    ------
    AccuracyError
        If the base correlation is so near ±1 that 320 Hermite coefficients do not give the derivatives to 1e-9, or the
        scale is outside [1e-48, 1e48].
    """
    if not 1.0 / _LARGEST <= scale <= _LARGEST:
        raise AccuracyError(
            f"the activation {act} meets the scale {scale:.3g}, whose sixth power float64 cannot hold: rescale the "
            "data or `weight_std`",
            float("inf"),
        )
    rho = arguments[2].value / scale**2
    c = _series(act, scale)
    c[0] -= centre
    sums = {
        (j, m): _sum(act, c, j, m, rho) / scale ** (j + m)
        for j, m in ((0, 0), (0, 2), (0, 4), (1, 1), (1, 3), (1, 5), (2, 2), (2, 4), (3, 3))
    }
    return (
        _compose(_outer(sums, 0), arguments),
        _compose(_outer(sums, 1), arguments),
    )


def _outer(sums: dict[tuple[int, int], float], k: int) -> Jet:
    """Derivatives of Σ a_{i+k} a_{i+k} c^i/i! in (λ_u², λ_v², c)."""
    u, uu, uv = 0.5 * sums[k, k + 2], 0.25 * sums[k, k + 4], 0.25 * sums[k + 2, k + 2]
    uc, cc = 0.5 * sums[k + 1, k + 3], sums[k + 2, k + 2]
    return Jet(
        sums[k, k],
        np.array([u, u, sums[k + 1, k + 1]]),
        np.array([[uu, uv, uc], [uv, uu, uc], [uc, uc, cc]]),
    )


def _series(act: Activation, scale: float) -> FloatArray:
    at = np.array([scale])
    if not act.is_step:
        return hermite_coefficients(act, at)[0].copy()
    mean = moment_arrays(act, at).mean
    return np.concatenate([mean, step_coefficients(act, at, MAX_TERMS - 1)[:, 0]])


def _sum(act: Activation, c: FloatArray, j: int, m: int, rho: float) -> float:
    """Σ_k c_{k+j} c_{k+m} ρ^k √((k+j)! (k+m)!)/k!, which is S(j, m) λ^{j+m}."""
    if rho == 0.0:
        return float(c[j] * c[m] * np.sqrt(_falling(j, np.array([j])) * _falling(m, np.array([m])))[0])
    k = np.arange(MAX_TERMS - max(j, m))
    weight = np.sqrt(_falling(j, k + j) * _falling(m, k + m))
    terms = c[k + j] * c[k + m] * weight * rho**k
    total = float(terms.sum())
    size = float(np.abs(terms).max(initial=0.0))
    # the terms fall at least like ρ^k, whatever their signs: the last ones bound what is left out
    gap = 1.0 - abs(rho)  # 0 or rounding below where data are far smaller than the biases
    left_out = float(np.abs(terms[-8:]).max()) / gap if gap > 0.0 else np.inf
    if size > 0.0 and left_out > SERIES_ERROR * size:
        raise AccuracyError(
            f"the activation {act} meets a base correlation of {rho:.4f} between any two samples, too near 1 for the "
            f"equivalent's coefficients (relative error {left_out / size:.1e}): take a smaller `bias_std`, "
            'centered=True, or correction="second_order"',
            left_out / size,
        )
    return total


def _falling(j: int, top: IntArray) -> FloatArray:
    """Return top · (top − 1) ⋯, j factors."""
    out = np.ones(len(top))
    for i in range(j):
        out *= top - i
    return out
