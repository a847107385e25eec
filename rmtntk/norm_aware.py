r"""Second-order expansion of deep kernels that keeps every sample's own norm.

Off the diagonal each K_l is a sum Σ_k (D_k D_kᵀ) ∘ G^{∘k} with G = K_0 and D_k tall matrices of per-sample
factors. Sums, Hadamard products and diagonal scalings stay in that form; products beyond G∘G are dropped,
which is the expansion in the correlations R to second order,

    K_l ≈ Σ_{k≤2} c_k(q_i) c_k(q_j) R_ij^k  (c_0 less the centre),   K'_l likewise with σ'.
"""

from typing import NamedTuple

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk.moments import moment_arrays
from rmtntk.network import LayerScales, Network

__all__ = ["PowerSum", "expand"]

ORDER = 2
_DROP = 1e-14


class PowerSum(NamedTuple):
    """Matrix Σ_k (D_k D_kᵀ) ∘ G^{∘k}: the factors D_0, D_1, D_2, each of shape (n, any)."""

    d0: FloatArray
    d1: FloatArray
    d2: FloatArray

    def __add__(self, other: "PowerSum") -> "PowerSum":  # type: ignore[override]  # not a tuple's
        return _slim(*(np.concatenate(pair, axis=1) for pair in zip(self, other, strict=True)))

    def hadamard(self, other: "PowerSum") -> "PowerSum":
        """Entrywise product, to second order in G."""
        parts: list[list[FloatArray]] = [[], [], []]
        for k, left in enumerate(self):
            for m, right in enumerate(other):
                if k + m <= ORDER:
                    parts[k + m].append((left[:, :, None] * right[:, None, :]).reshape(len(left), -1))
        return _slim(*(np.concatenate(part, axis=1) for part in parts))

    def scaled(self, factor: FloatArray) -> "PowerSum":
        """Rows and columns multiplied by `factor`, shape (n,)."""
        return PowerSum(*(factor[:, None] * d for d in self))


def _slim(*factors: FloatArray) -> PowerSum:
    """Replace each D by one with fewer columns and the same D Dᵀ: columns are smooth functions of the norm."""
    slim = []
    for d in factors:
        if d.shape[1] > 4:
            left, size, _ = np.linalg.svd(d, full_matrices=False)
            keep = size > _DROP * max(size[0], 1e-300)
            slim.append(np.ascontiguousarray(left[:, keep] * size[keep]))
        else:
            slim.append(d)
    return PowerSum(*slim)


def expand(net: Network, scales: LayerScales, squared_norm: FloatArray) -> tuple[PowerSum, PowerSum]:
    """Return the expansions of CK and NTK off the diagonal; `squared_norm` (n,) is the diagonal of K_0."""
    n = len(squared_norm)
    w2 = net.weight_std**2
    none = np.zeros((n, 0))
    ck = PowerSum(none, np.ones((n, 1)), none)
    variance = w2 * squared_norm
    ntk = ck.scaled(np.full(n, net.weight_std))
    for k, act in enumerate(net.activations):
        field = moment_arrays(act, np.sqrt(variance))
        below = ck.scaled(np.full(n, net.weight_std))  # Λ
        shift = field.mean - scales.centre[k]
        ck = (
            PowerSum(shift[:, None], none, none)
            + below.scaled(field.d1)
            + below.hadamard(below).scaled(field.d2 / np.sqrt(2.0))
        )
        slope = (
            PowerSum(field.d1[:, None], none, none)
            + below.scaled(field.d2)
            + below.hadamard(below).scaled(field.d3 / np.sqrt(2.0))
        )
        ntk = ck.scaled(np.full(n, net.weight_std)) + ntk.hadamard(slope).scaled(np.full(n, net.weight_std))
        variance = w2 * (field.variance + shift**2)
    return ck, ntk
