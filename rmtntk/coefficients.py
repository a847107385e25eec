r"""Coefficients of the asymptotic equivalents, layer by layer.

For data x_i ~ N(μ_a/√p, C_a/p) the kernels of every network approach c1 X Xᵀ + V A Vᵀ + c I in operator
norm, and everything the activations contribute are the numbers computed here.

They are derivatives. Off the diagonal a kernel of any depth is one function F(‖x‖², ‖y‖², x·y), of which the limit
sees the Taylor polynomial at (τ_0², τ_0², 0) to second order: α1 = ∂F/∂(x·y), α2 = ∂²F/∂‖x‖²∂‖y‖²,
α3 = ½ ∂²F/∂(x·y)². Centred and without biases F vanishes at x·y = 0 along the norms; otherwise it has a constant
part as well, which has three more numbers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmtntk._jets import SERIES_ERROR, Jet, dual_jets, norm_jet
from rmtntk._typing import FloatArray
from rmtntk._validation import check_real
from rmtntk.network import LayerScales, Network, check_functions, layer_scales

__all__ = ["Coefficients", "alpha_beta", "coefficients", "coefficients_of", "layer_moments"]


@dataclass(frozen=True, eq=False)
class Coefficients:
    r"""Layer-by-layer coefficients; index 0 is the input.

    Attributes
    ----------
    tau : ndarray, shape (L + 1,)
        τ_l: K_l has diagonal τ_l² asymptotically.
    alpha : ndarray, shape (L + 1, 4)
        (α1, α2, α3, α4) of the CK: weight of X Xᵀ, of tr-deviations and norms, of the class covariances,
        and the transmission of norm fluctuations.
    beta : ndarray, shape (L + 1, 3)
        (β1, β2, β3), the same for the NTK.
    kappa_sq : ndarray, shape (L + 1,)
        κ_l²: NTK_l has diagonal κ_l²; inf from the first layer that jumps.
    error : float
        Largest relative error bound of the Gaussian moments used.
    offset_ck, offset_ntk : ndarray, shape (L + 1, 3)
        (F, ∂F/∂‖x‖², ½ ∂²F/∂(‖x‖²)²) at the base point: zero for a centred network without biases, else a
        constant part of order one, in rank one up to the fluctuations of the norms.
    fourth : ndarray, shape (L + 1, 2)
        (α5, β5): what the excess kurtosis of the first layer's weights is multiplied with in CK and NTK; with a
        constant part, where the term is not known, NaN. See the `weight_kurtosis` of :func:`rmtntk.equivalent`.
    """

    tau: FloatArray
    alpha: FloatArray
    beta: FloatArray
    kappa_sq: FloatArray
    error: float
    offset_ck: FloatArray
    offset_ntk: FloatArray
    fourth: FloatArray

    def offset(self, kind: Literal["ck", "ntk"]) -> tuple[float, float, float]:
        """Constant part of the last layer's kernel: value, slope and half the second derivative in one norm."""
        row = self.offset_ck[-1] if kind == "ck" else self.offset_ntk[-1]
        return float(row[0]), float(row[1]), float(row[2])

    @property
    def has_offset(self) -> bool:
        """Whether there is a constant part of order one."""
        return bool(self.offset_ck.any() or self.offset_ntk.any())

    def linear(self, kind: Literal["ck", "ntk"]) -> tuple[float, float, float]:
        """(c1, c2, c3) of the last layer's kernel."""
        row = self.alpha[-1] if kind == "ck" else self.beta[-1]
        return float(row[0]), float(row[1]), float(row[2])

    def shift(self, kind: Literal["ck", "ntk"]) -> float:
        """c, the multiple of the identity: τ_L² − τ_0² α1 (CK) or κ_L² − τ_0² β1 (NTK), less a constant part."""
        total = self.tau[-1] ** 2 if kind == "ck" else self.kappa_sq[-1]
        return float(total - self.tau[0] ** 2 * self.linear(kind)[0] - self.offset(kind)[0])


def coefficients(net: Network, tau0: float) -> Coefficients:
    r"""Return the coefficients of the asymptotic equivalents of CK and NTK.

    .. math::
        \alpha_{l,1} = h_1^2 \bar\alpha_1,\quad
        \alpha_{l,2} = h_1^2 \bar\alpha_2 + \tfrac14 h_2^2 \bar\alpha_4^2,\quad
        \alpha_{l,3} = h_1^2 \bar\alpha_3 + \tfrac12 h_2^2 \bar\alpha_1^2,\quad
        \alpha_{l,4} = g \bar\alpha_4

    with ᾱ = w² α of the layer below and h1, h2, g = E[σ'], E[σ''], ½E[((σ−m)²)''] at λ_l = w τ_{l−1}; and
    β_1 = w²(α1 + h1² β̃1), β_2 likewise, β_3 = w²(α3 + h1² β̃3 + h2² ᾱ1 β̃1), κ_l² = w²(τ_l² + κ_{l−1}² E[σ'²]) + b².

    With biases or without centring the same derivatives are taken at the correlation ρ0 > 0 that any two samples
    then have after a layer: the chain rule to second order, layer by layer, on Mehler's series.

    Parameters
    ----------
    net : Network
        Any weight and bias scales, centred or not.
    tau0 : float
        Scale of the inputs, in units of K_0.

    Returns
    -------
    Coefficients

    Raises
    ------
    ValueError
        If an activation is no function (``exp_normalized``), or `tau0` is not positive.
    AccuracyError
        If a base correlation is too near 1 (large biases, or many uncentred layers).

    Notes
    -----
    Accuracy is that of the moments (:func:`rmtntk.moments`); the recursion adds a few eps per layer. With a constant
    part, about 1e-9. :func:`rmtntk.explain` propagates the bounds and gives the sensitivity to `tau0`.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), Theorems 1 and 2, corrected (docs/errata.md); w ≠ 1 by rescaling; biases and
    uncentred activations: docs/theory.md.
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    check_functions(net, "the theorem's numbers do not follow from it")
    return coefficients_of(net, tau0)


def coefficients_of(net: Network, tau0: float) -> Coefficients:
    """Return :func:`coefficients` of a network that may have activations without a function."""
    tau0 = check_real(tau0, "tau0", low=0.0, open_low=True)
    scales = layer_scales(net, tau0)
    w2, b2 = net.weight_std**2, net.bias_std**2
    kappa_sq = np.zeros(net.depth + 1)
    kappa_sq[0] = w2 * tau0**2 + b2
    for layer, m in enumerate(scales.moments, start=1):
        kappa_sq[layer] = w2 * (scales.tau[layer] ** 2 + kappa_sq[layer - 1] * float(m.d1_squared[0])) + b2
    error = max(float(m.error[0]) for m in scales.moments)
    if net.centered and b2 == 0.0:
        h1, h2, g = layer_moments(scales)
        alpha, beta = alpha_beta(h1, h2, g, w2)
        none = np.zeros((net.depth + 1, 3))
        return Coefficients(scales.tau, alpha, beta, kappa_sq, error, none, none, _fourth(h1, h2, w2))
    unknown = np.full((net.depth + 1, 2), np.nan)
    return Coefficients(scales.tau, *_with_offsets(net, scales, kappa_sq, error), unknown)


def _fourth(h1: FloatArray, h2: FloatArray, w2: float) -> FloatArray:
    """α5 = ¼ w⁴ h2² after the first layer, then like α3 by h1²; β5 = w² (α5 + h1² β5)."""
    table = np.zeros((len(h1) + 1, 2))
    for layer in range(1, len(h1) + 1):
        h1_sq = h1[layer - 1] ** 2
        table[layer, 0] = 0.25 * w2**2 * h2[0] ** 2 if layer == 1 else w2 * h1_sq * table[layer - 1, 0]
        table[layer, 1] = w2 * (table[layer, 0] + h1_sq * table[layer - 1, 1])
    return table


def layer_moments(scales: LayerScales) -> tuple[FloatArray, FloatArray, FloatArray]:
    """h1, h2 and g of every layer, each of shape (L,)."""
    h1 = np.array([float(m.d1[0]) for m in scales.moments])
    h2 = np.array([float(m.d2[0]) for m in scales.moments])
    g = np.array([float(m.half_d2_squared[0]) for m in scales.moments])
    return h1, h2, g


def _with_offsets(
    net: Network, scales: LayerScales, kappa_sq: FloatArray, error: float
) -> tuple[FloatArray, FloatArray, FloatArray, float, FloatArray, FloatArray]:
    """α, β, κ², error and both offsets by the chain rule on jets, for any biases and centring."""
    w2, b2 = net.weight_std**2, net.bias_std**2
    axes = np.eye(3)
    kernel = Jet(0.0, axes[2], np.zeros((3, 3)))
    norm = Jet(float(scales.tau[0] ** 2), axes[0], np.zeros((3, 3)))
    tangent = kernel.affine(w2, b2)
    alpha, beta = np.zeros((net.depth + 1, 4)), np.zeros((net.depth + 1, 3))
    offset_ck, offset_ntk = np.zeros((net.depth + 1, 3)), np.zeros((net.depth + 1, 3))

    def store(layer: int) -> None:
        for row, jet in ((alpha[layer], kernel), (beta[layer], tangent)):
            row[:3] = jet.gradient[2], jet.hessian[0, 1], 0.5 * jet.hessian[2, 2]
        alpha[layer, 3] = norm.gradient[0]
        for row, jet in ((offset_ck[layer], kernel), (offset_ntk[layer], tangent)):
            row[:] = jet.value, jet.gradient[0], 0.5 * jet.hessian[0, 0]

    store(0)
    for k, act in enumerate(net.activations):
        scale, centre = float(scales.scale[k]), float(scales.centre[k])
        variance = norm.affine(w2, b2)
        below = (variance, variance.mirrored(), kernel.affine(w2, b2))
        kernel, slope = dual_jets(act, scale, centre, below)
        norm = norm_jet(act, scale, centre, variance)
        tangent = kernel.affine(w2, b2).plus(tangent.times(slope).affine(w2, 0.0))
        store(k + 1)
    return alpha, beta, kappa_sq, max(error, SERIES_ERROR), offset_ck, offset_ntk


def alpha_beta(h1: FloatArray, h2: FloatArray, g: FloatArray, w2: float) -> tuple[FloatArray, FloatArray]:
    """Run the recursion on given moments, each of shape (L,); returns α (L + 1, 4) and β (L + 1, 3)."""
    depth = len(h1)
    alpha = np.zeros((depth + 1, 4))
    beta = np.zeros((depth + 1, 3))
    alpha[0] = (1.0, 0.0, 0.0, 1.0)
    beta[0] = (w2, 0.0, 0.0)
    for layer in range(1, depth + 1):
        h1_sq, h2_sq = h1[layer - 1] ** 2, h2[layer - 1] ** 2
        a1, a2, a3, a4 = w2 * alpha[layer - 1]
        b1, b2, b3 = beta[layer - 1]
        alpha[layer] = (
            h1_sq * a1,
            h1_sq * a2 + 0.25 * h2_sq * a4**2,
            h1_sq * a3 + 0.5 * h2_sq * a1**2,
            g[layer - 1] * a4,
        )
        beta[layer] = w2 * np.array(
            [
                alpha[layer, 0] + h1_sq * b1,
                alpha[layer, 1] + h1_sq * b2,
                alpha[layer, 2] + h1_sq * b3 + h2_sq * a1 * b1,
            ]
        )
    return alpha, beta
