r"""How well a finite step network predicts what its dense network would: the criterion of ``match(method="data")``.

Targets are drawn from the Gaussian process whose covariance is the dense network's conjugate kernel K over the data.
Half of a sample of rows (A, m of them) trains a ridge regression on the features of the step network, the other half
(B) tests it. With K' the step network's kernel, the risk averaged over all such targets has the closed form

    R = E‖f_B − W f_A‖² / E‖f_B‖²,   W = K'_BA (K'_AA + λ I)^{-1},
    E‖f_B − W f_A‖² = tr K_BB − 2 tr W K_AB + tr W K_AA Wᵀ.

*Finite width.* The features of a layer of d_l neurons estimate the kernel with fluctuations that act as a ridge: of
the layer's variance the part that is not linear in the inputs, c'_l = τ_l² − α1_l τ_0², spreads like white noise over
d_l directions, and the layers above pass it on with the gain of the linear part. Hence

    λ = m Σ_l (α1_L/α1_l) c'_l / d_l,

which does not depend on the number of samples: a kernel matrix of n rows has eigenvalues ∝ n, and so has this ridge.
This is a model, not a theorem; docs/matching.md compares it with accuracies measured.

*Multiples of the identity* in K and K' do not generalise and fade against the data's eigenvalues as n grows; the small
sample would exaggerate them. Nearly all of the smallest eigenvalue is taken off both diagonals.
"""

from collections.abc import Sequence

import numpy as np
import scipy  # loads scipy.linalg when it is first used

from rmtntk._activation import Activation
from rmtntk._typing import FloatArray
from rmtntk.coefficients import coefficients
from rmtntk.kernels import ck
from rmtntk.network import Network

__all__ = ["PredictionRisk"]

_KEPT = 0.05  # share of the smallest eigenvalue that stays, so that matrices remain positive definite


class PredictionRisk:
    """Risk of step activations in the place of a network's own, over rows of data.

    Parameters
    ----------
    net : Network
        The dense network, with its τ_0.
    rows : ndarray, shape (2 m, p)
        Data in the units of the network; the first half trains.
    widths : sequence of float
        Width of every layer; ``math.inf`` leaves out its noise.
    """

    def __init__(self, net: Network, rows: FloatArray, widths: Sequence[float]) -> None:
        if net.tau0 is None:
            raise ValueError("`net` must have its tau0 set")
        self.net = net
        self.tau0 = net.tau0
        self.rows = rows
        self.half = len(rows) // 2
        self.widths = np.asarray(widths, dtype=np.float64)
        self.truth = _without_floor(ck(net, rows))
        self.energy = float(np.trace(self.truth[self.half :, self.half :]))

    def ridge(self, net: Network) -> float:
        """λ of the module's page for a network of these widths."""
        table = coefficients(net, self.tau0)
        linear = table.alpha[1:, 0]
        noise = table.tau[1:] ** 2 / np.maximum(linear, 1e-300) - self.tau0**2
        return float(self.half * linear[-1] * (noise / self.widths).sum())

    def of_kernel(self, kernel: FloatArray, ridge: float) -> float:
        """R for a kernel (2 m, 2 m) over the rows and a ridge λ > 0."""
        m = self.half
        smooth = _without_floor(kernel)
        inner = smooth[:m, :m] + ridge * np.eye(m)
        weights = scipy.linalg.solve(inner, smooth[:m, m:], assume_a="pos", check_finite=False)
        cross = float((weights * self.truth[:m, m:]).sum())
        spread = float((weights * (self.truth[:m, :m] @ weights)).sum())
        return (self.energy - 2.0 * cross + spread) / self.energy

    def __call__(self, activations: Sequence[Activation]) -> float:
        """R for step activations; 1 is what predicting nothing gives."""
        net = self.net.with_activations(tuple(activations))
        return self.of_kernel(ck(net, self.rows), self.ridge(net))


def _without_floor(kernel: FloatArray) -> FloatArray:
    out = kernel.copy()
    smallest = float(scipy.linalg.eigvalsh(kernel, subset_by_index=[0, 0], check_finite=False)[0])
    out[np.diag_indices(len(out))] -= (1.0 - _KEPT) * max(smallest, 0.0)
    return out
