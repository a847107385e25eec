r"""Deep kernels as polynomials in the correlations of given data, with every sample's own norm.

A kernel of any depth is one function of two norms and a correlation, K_ij = F(s_i, s_j, ρ_ij). On given data the
correlations fill a small part of [−1, 1], and there

.. math:: F(s, t, \rho) \approx \sum_{k \le d} B_k(s, t)\, \rho^k

by least squares over the data's own distribution of ρ, for every s and t. B_k is interpolated in the logarithm of
the norms, so that its matrix over all samples has a rank of a few. The powers above d are not dropped: what of them
looks like a lower power on this data is in the coefficients of that power. Compared with Hermite coefficients
(ρ → 0), that is the difference between E[ρ³ρ]/E[ρ²] and 0.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rmtntk._typing import FloatArray, IntArray
from rmtntk.errors import AccuracyError
from rmtntk.kernels import ck, ntk
from rmtntk.network import Network

__all__ = ["Expansion", "NormBasis", "Pairs", "gauss_rule", "pairs"]

Kind = Literal["ck", "ntk"]

_PAIRS = 1 << 15  # sampled pairs: the coefficients' error falls with their root
_RULE = 24  # nodes of the rule that stands for the distribution of correlations
_SIZES = (6, 9, 13, 19, 28, 41, 60, 88, 128)
_TOLERANCE = 1e-10
_WORST = 1e-6
_SHARE = 0.01  # of the polynomial's own misfit: what interpolation may add where that is more than _WORST
_CUT = 1e-9


@dataclass(frozen=True, eq=False)
class NormBasis:
    """Interpolation in log s at Chebyshev nodes over a range of norms, and apart from it the norm 0."""

    low: float
    high: float
    size: int
    zero: bool

    @classmethod
    def over(cls, norms: FloatArray, size: int) -> "NormBasis":
        """Return a basis over the range of `norms`, with one node if they are all alike."""
        positive = norms[norms > 0.0]
        low, high = (np.log(positive.min()), np.log(positive.max())) if positive.size else (0.0, 0.0)
        alike = high - low <= 1e-13
        return cls(float(low), float(high), 1 if alike else size, bool((norms == 0.0).any()))

    def _angles(self) -> FloatArray:
        return np.pi * (np.arange(self.size) + 0.5) / self.size

    @property
    def nodes(self) -> FloatArray:
        """Norms at which the kernel is evaluated; the last is 0 if there are samples of norm 0."""
        positive = np.exp(0.5 * (self.low + self.high) + 0.5 * (self.high - self.low) * np.cos(self._angles()))
        return np.append(positive, 0.0) if self.zero else positive

    def to_chebyshev(self) -> FloatArray:
        """Matrix that turns values at the nodes into Chebyshev coefficients (and the value at 0)."""
        table = np.cos(np.outer(np.arange(self.size), self._angles())) * 2.0 / self.size
        table[0] *= 0.5
        if not self.zero:
            return table
        out = np.zeros((self.size + 1, self.size + 1))
        out[:-1, :-1], out[-1, -1] = table, 1.0
        return out

    def polynomials(self, norms: FloatArray) -> FloatArray:
        """Chebyshev polynomials at the logarithms of norms, shape (n, nodes)."""
        out = np.zeros((len(norms), self.size + self.zero))
        positive = norms > 0.0
        if self.size > 1:
            t = (np.log(norms[positive]) - 0.5 * (self.low + self.high)) / (0.5 * (self.high - self.low))
            out[positive, : self.size] = np.cos(np.outer(np.arccos(np.clip(t, -1.0, 1.0)), np.arange(self.size)))
        else:
            out[positive, 0] = 1.0
        if self.zero:
            out[~positive, -1] = 1.0
        return out


@dataclass(frozen=True, eq=False)
class Expansion:
    """The polynomial of one kernel on one data set.

    Attributes
    ----------
    net : Network
        With τ_0 set and K_0 = X Xᵀ ("unit" scaling).
    kind : {"ck", "ntk"}
        Which kernel.
    degree : int
        Highest power of ρ; less than asked for where there are fewer different correlations.
    nodes, weights : ndarray, shape (q,)
        Gauss rule of the distribution of correlations.
    """

    net: Network
    kind: Kind
    degree: int
    nodes: FloatArray
    weights: FloatArray

    @classmethod
    def fit(cls, net: Network, kind: Kind, rho: FloatArray, degree: int) -> "Expansion":
        """Prepare the expansion of a kernel for correlations distributed as the sample `rho`."""
        nodes, weights = gauss_rule(rho, _RULE)
        return cls(net, kind, min(degree, max(0, len(nodes) - 1)), nodes, weights)

    def factors(
        self, left: FloatArray, right: FloatArray, *, closure: float = 0.0
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Return L_k (n, r_k) and R_k (m, r_k) with B_k(s_i, t_j) = (L_k R_kᵀ)_ij, for k = 0 … degree.

        For ``right is left``, R_k is L_k up to the signs of its columns. With a closure s, B_1 has s B_2 added.

        Raises
        ------
        AccuracyError
            If no basis of up to 128 norms resolves the kernel over the range of norms to 1e-6, or to 1 % of what the
            polynomial leaves out if that is more: parallel rows have a kink where their norms are equal.
        """
        for size in _SIZES:
            first = NormBasis.over(left, size)
            second = first if right is left else NormBasis.over(right, size)
            tables, gap, misfit = self._tables(first, second)
            if gap <= _TOLERANCE:
                break
        if gap > max(_WORST, _SHARE * misfit):
            raise AccuracyError(
                f"the kernel changes too much over norms from {np.exp(min(first.low, second.low)):.3g} to "
                f"{np.exp(max(first.high, second.high)):.3g} to be interpolated (relative error {gap:.1e}): "
                "split the data by norm, or leave out the extreme rows and those parallel to others",
                gap,
            )
        if closure != 0.0:
            tables[1] += closure * tables[2]
        phi = first.polynomials(left)
        psi = phi if right is left else second.polynomials(right)
        return _factors(phi, tables, psi, self._spread())

    def _spread(self) -> FloatArray:
        """Root mean square of ρ^k, k = 0 … degree: how large entries a power's coefficient makes."""
        return np.asarray(np.sqrt(self.weights @ self.nodes[:, None] ** (2 * np.arange(self.degree + 1))))

    def _tables(self, first: NormBasis, second: NormBasis) -> tuple[FloatArray, float, float]:
        """Coefficients of B_k in products of Chebyshev polynomials, their relative size at the end, and the misfit.

        The misfit is the root mean square over ρ of what the polynomial leaves out, largest over the norms.
        """
        s, t = first.nodes, second.nodes
        sine = np.sqrt((1.0 - self.nodes) * (1.0 + self.nodes))
        x = np.column_stack([s, np.zeros_like(s)])
        y = np.column_stack([np.outer(t, self.nodes).ravel(), np.outer(t, sine).ravel()])
        kernel = ck(self.net, x, y) if self.kind == "ck" else ntk(self.net, x, y)
        values = kernel.reshape(len(s), len(t), len(self.nodes))
        fitted = values @ self._projection().T
        left_out = values - fitted @ np.vander(self.nodes, self.degree + 1, increasing=True).T
        misfit = float(np.sqrt((left_out**2 @ self.weights).max()))
        tables = np.einsum("ai,ijk,bj->kab", first.to_chebyshev(), fitted, second.to_chebyshev())
        spread = self._spread()[:, None, None]  # a coefficient of no consequence needs no resolution
        top = float((np.abs(tables) * spread).max())
        tail = 0.0
        for axis, basis in ((1, first), (2, second)):
            if basis.size > 1:
                ends = np.take(tables, (basis.size - 2, basis.size - 1), axis=axis)
                tail = max(tail, float((np.abs(ends) * spread).max()))
        return (tables, 0.0, 0.0) if top == 0.0 else (tables, tail / top, misfit / top)

    def _projection(self) -> FloatArray:
        """Matrix (degree + 1, q) from values at the nodes to the least-squares coefficients of 1, ρ, …, ρ^d."""
        scale = float(np.abs(self.nodes).max(initial=0.0)) or 1.0
        root = np.sqrt(self.weights)
        table = np.vander(self.nodes / scale, self.degree + 1, increasing=True)
        found = np.linalg.pinv(root[:, None] * table, rcond=1e-13) * root
        return np.asarray(found / scale ** np.arange(self.degree + 1)[:, None])


def _factors(
    phi: FloatArray, tables: FloatArray, psi: FloatArray, spread: FloatArray
) -> list[tuple[FloatArray, FloatArray]]:
    """L_k, R_k with L_k R_kᵀ = Φ T_k Ψᵀ, without columns that make less than 1e-9 of the largest."""
    q, r = np.linalg.qr(phi)
    symmetric = phi is psi
    other, s = (q, r) if symmetric else np.linalg.qr(psi)
    found = []
    for table in tables:
        if symmetric:
            size, left = np.linalg.eigh(r @ (0.5 * (table + table.T)) @ r.T)
            found.append((left, size, left))
        else:
            left, size, right = np.linalg.svd(r @ table @ s.T, full_matrices=False)
            found.append((left, size, right.T))
    top = max(float(np.abs(size).max(initial=0.0)) * share for (_, size, _), share in zip(found, spread, strict=True))
    factors = []
    for (left, size, right), share in zip(found, spread, strict=True):
        keep = np.abs(size) * share > _CUT * top
        root = np.sqrt(np.abs(size[keep]))
        first = (q @ left[:, keep]) * root
        signs = np.sign(size[keep])
        factors.append((first, first * signs if symmetric else (other @ right[:, keep]) * root * signs))
    return factors


class Pairs(NamedTuple):
    """Pairs of different samples of positive norm: correlations and indices, each of shape (q,)."""

    rho: FloatArray
    first: IntArray
    second: IntArray


def pairs(rows: FloatArray, norms: FloatArray) -> Pairs:
    """All pairs, or 32,768 drawn with a fixed seed where there are more than twice as many."""
    index = np.flatnonzero(norms > 0.0)
    n = len(index)
    if n * (n - 1) // 2 <= 2 * _PAIRS:
        unit = rows[index] / norms[index, None]
        first, second = np.triu_indices(n, 1)
        rho = (unit @ unit.T)[first, second]
    else:
        rng = np.random.default_rng(0)
        first = rng.integers(n, size=_PAIRS)
        second = (first + rng.integers(1, n, size=_PAIRS)) % n
        rho = np.empty(_PAIRS)
        for start in range(0, _PAIRS, 2048):
            a, b = index[first[start : start + 2048]], index[second[start : start + 2048]]
            rho[start : start + 2048] = np.einsum("ij,ij->i", rows[a], rows[b]) / (norms[a] * norms[b])
    return Pairs(np.clip(rho, -1.0, 1.0), index[first], index[second])  # clipped for rounding only


def gauss_rule(sample: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights that integrate polynomials up to degree 2·size − 1 over a sample exactly.

    From the three-term recurrence of the sample's orthonormal polynomials (Gautschi 2004, *Orthogonal Polynomials*,
    2.2), built with full reorthogonalisation; fewer nodes where the sample has fewer different values.
    """
    if not len(sample):
        return np.zeros(1), np.ones(1)
    centre = float(sample.mean())
    spread = float(np.abs(sample - centre).max())
    if spread <= 1e-14:
        return np.array([centre]), np.ones(1)
    z = (sample - centre) / spread
    basis = [np.full(len(z), 1.0 / np.sqrt(len(z)))]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(size):
        new = z * basis[-1]
        diagonal.append(float(basis[-1] @ new))
        for _ in range(2):
            for vector in basis:
                new = new - (vector @ new) * vector
        norm = float(np.linalg.norm(new))
        if len(diagonal) == size or norm <= 1e-10:
            break
        beside.append(norm)
        basis.append(new / norm)
    matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    nodes, vectors = np.linalg.eigh(matrix)
    return np.clip(centre + spread * nodes, -1.0, 1.0), vectors[0] ** 2
