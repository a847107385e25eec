r"""What every layer keeps of the data: linear, quadratic and the rest, with error bounds and the sensitivity to τ_0.

For two samples of typical norm a kernel is a power series in their correlation with non-negative coefficients,

.. math:: K_l(\rho) = k_0 + \alpha_1 \tau_0^2 \rho + \alpha_3 \tau_0^4 \rho^2 + \dots, \qquad K_l(1) = \tau_l^2,

(Schoenberg), so that its terms are shares of the features' energy τ_l²: what a constant, the data themselves, their
pairwise products, and everything above carry. Between different samples the last share all but vanishes, as
ρ³ ~ p^{-3/2}: it is noise, c times the identity. For the NTK the same with β1, β3 and κ_l².
"""

from dataclasses import dataclass

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk._validation import check_real
from rmtntk.coefficients import Coefficients, alpha_beta, coefficients, layer_moments
from rmtntk.moments import moment_arrays
from rmtntk.network import LayerScales, Network, layer_scales

__all__ = ["Explanation", "explain"]

_STEP = 1e-3
_DIFFERENCE = {-2: 1.0 / 12.0, -1: -2.0 / 3.0, 1: 2.0 / 3.0, 2: -1.0 / 12.0}
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Layer-by-layer account of a network; ``print`` it for a table. Index 0 is the input.

    Attributes
    ----------
    net : Network
        The network.
    coefficients : Coefficients
        Its numbers.
    shares_ck, shares_ntk : ndarray, shape (L + 1, 4)
        Shares of τ_l² and κ_l²: constant, linear, quadratic, rest; they sum to 1. Where κ_l is infinite all is rest.
    norm_gain : ndarray, shape (L + 1,)
        d log τ_l² / d log ‖x‖²: how a sample's relative deviation from the typical norm comes through; 1 for
        homogeneous activations without centring, below for saturating ones.
    alpha_sensitivity, beta_sensitivity : ndarray, shapes (L + 1, 4) and (L + 1, 3)
        dα/d log τ_0 and dβ/d log τ_0, centres moving along: what 1 % of error in τ_0 changes, times 100. From
        differences of fourth order, to about 1e-9 of the coefficient.
    alpha_error, beta_error : ndarray or None
        Bounds of the coefficients' errors, of first order in those of the moments; None for networks with a constant
        part, where :attr:`Coefficients.error` is what is known.
    """

    net: Network
    coefficients: Coefficients
    shares_ck: FloatArray
    shares_ntk: FloatArray
    norm_gain: FloatArray
    alpha_sensitivity: FloatArray
    beta_sensitivity: FloatArray
    alpha_error: FloatArray | None
    beta_error: FloatArray | None

    def __str__(self) -> str:
        c = self.coefficients
        constant = c.has_offset
        shares = ("const " if constant else "") + "linear   quad   rest"
        lines = [
            f"{'':>3} {'activation':<18} {'tau':>9} |   CK {shares} |  NTK {shares} | norm gain | dlog α1/dlog τ0",
        ]
        names = ["input", *(str(act) for act in self.net.activations)]
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.where(c.alpha[:, 0] != 0.0, self.alpha_sensitivity[:, 0] / c.alpha[:, 0], 0.0)
        for k, name in enumerate(names):
            short = name if len(name) <= 18 else name[:17] + "…"
            columns = []
            for table in (self.shares_ck, self.shares_ntk):
                part = table[k] if constant else table[k, 1:]
                columns.append(" ".join(f"{100.0 * share:5.1f}%" for share in part))
            lines.append(
                f"{k:>3} {short:<18} {c.tau[k]:9.4g} |   {columns[0]:>20} |   {columns[1]:>20} "
                f"| {self.norm_gain[k]:9.3f} | {change[k]:+9.3f}"
            )
        for kind in ("ck", "ntk"):
            c1, c2, c3 = c.linear(kind)
            lines.append(
                f"{kind.upper():>3}: c1 = {c1:.6g}, c2 = {c2:.6g}, c3 = {c3:.6g}, c = {c.shift(kind):.6g}"
                + (f", constant {c.offset(kind)[0]:.6g}" if constant else "")
            )
        error = c.error
        if self.alpha_error is not None:
            known = c.alpha != 0.0
            error = float(np.max(self.alpha_error[known] / np.abs(c.alpha[known])))
        lines.append(f"relative error of the coefficients at most {error:.1e}")
        return "\n".join(lines)


def explain(net: Network, tau0: float) -> Explanation:
    """Account for what a network's kernels keep of data of a given scale.

    Parameters
    ----------
    net : Network
        Any weight and bias scales, centred or not.
    tau0 : float
        Scale of the inputs, in units of K_0.

    Returns
    -------
    Explanation

    Raises
    ------
    TypeError, ValueError, AccuracyError
        As for :func:`rmtntk.coefficients`.

    References
    ----------
    Schoenberg (1942) for the non-negative series; Daniely, Frostig and Singer (2016) for dual activations as such
    series; NTK-LC (Gu et al., NeurIPS 2022) for the coefficients.

    Examples
    --------
    >>> import rmtntk as rn
    >>> shares = rn.explain(rn.Network(["relu"]), tau0=1.0).shares_ck[1]
    >>> [round(float(share), 3) for share in shares]  # constant, linear, quadratic, rest
    [0.0, 0.733, 0.233, 0.033]
    """
    table = coefficients(net, tau0)
    tau0 = check_real(tau0, "tau0", low=0.0, open_low=True)
    moved = {k: coefficients(net, tau0 * float(np.exp(k * _STEP))) for k in _DIFFERENCE}
    alpha_slope = np.asarray(sum(w * moved[k].alpha for k, w in _DIFFERENCE.items()) / _STEP)
    beta_slope = np.asarray(sum(w * moved[k].beta for k, w in _DIFFERENCE.items()) / _STEP)
    errors = None if table.has_offset else _error_bounds(net, layer_scales(net, tau0), table)
    return Explanation(
        net,
        table,
        _shares(table.tau**2, table.offset_ck[:, 0], table.alpha, tau0),
        _shares(table.kappa_sq, table.offset_ntk[:, 0], table.beta, tau0),
        table.alpha[:, 3] * tau0**2 / table.tau**2,
        alpha_slope,
        beta_slope,
        None if errors is None else errors[0],
        None if errors is None else errors[1],
    )


def _shares(total: FloatArray, constant: FloatArray, c: FloatArray, tau0: float) -> FloatArray:
    parts = np.column_stack([constant, c[:, 0] * tau0**2, c[:, 2] * tau0**4]) / total[:, None]
    return np.column_stack([parts, 1.0 - parts.sum(axis=1)])


def _error_bounds(net: Network, scales: LayerScales, table: Coefficients) -> tuple[FloatArray, FloatArray]:
    """First-order bounds: every moment's own error, and what the error of its scale λ makes of it."""
    w2 = net.weight_std**2
    moments = layer_moments(scales)
    errors = [np.zeros(net.depth) for _ in moments]
    at_scale = 0.0  # relative error of λ
    for k, m in enumerate(scales.moments):
        unit, scale = float(np.sqrt(m.second[0])), float(scales.scale[k])
        near = moment_arrays(net.activations[k], scale * np.array([np.exp(-_STEP), np.exp(_STEP)]))
        own = float(m.error[0])
        for error, field, size in zip(
            errors,
            (near.d1, near.d2, near.half_d2_squared),
            (unit / scale, unit / scale**2, unit**2 / scale**2),
            strict=True,
        ):
            error[k] = own * size + at_scale * abs(float(field[1] - field[0])) / (2.0 * _STEP)
        variance = float(m.variance[0])
        growth = abs(float(m.half_d2_squared[0])) * scale**2 / variance
        at_scale = growth * at_scale + 0.5 * own * float(m.second[0]) / variance + _EPS
    alpha_error = 8.0 * net.depth * _EPS * np.abs(table.alpha)
    beta_error = 8.0 * net.depth * _EPS * np.abs(table.beta)
    for which, error in enumerate(errors):
        for k in range(net.depth):
            moved = [field.copy() for field in moments]
            moved[which][k] += error[k]
            alpha, beta = alpha_beta(moved[0], moved[1], moved[2], w2)
            alpha_error += np.abs(alpha - table.alpha)
            beta_error += np.abs(beta - table.beta)
    return alpha_error, beta_error
