r"""Outliers of c1 G + c I + U Ω Uᵀ: where they are, where their eigenvectors point, and how much they fluctuate.

G = Z Zᵀ is the noise, U = [J/√p, Z M, ψ]. With Û = U L⁻¹ of orthonormal columns (in the limit), Ω̂ = L Ω Lᵀ = W D Wᵀ and
R = (G − ζ)⁻¹, ζ = (z − c)/c1, an eigenvalue z outside the bulk makes

.. math:: S(\zeta) = D^{-1} + W^T \hat B(\zeta) W / c_1, \qquad \hat B = \lim \hat U^T R\, \hat U

singular. S is symmetric and increases with ζ between the intervals of the bulk, so its inertia at both ends of a gap
counts the outliers in it, each is the only root of one ordered eigenvalue of S, and multiplicities are exact.

The means enter by an orthonormal basis of Z M, the labels by J/√n_a, so B̂ is block diagonal: q_a on J,
MᵀQ̃(Σ_b loads_b C_b)M on Z M, the average of q_a with weights n_a s_a on ψ, where s_a = 2 tr C_a²/p².
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._typing import FloatArray, IntArray
from rmtntk.errors import ConvergenceError
from rmtntk.mixture import GaussianMixture
from rmtntk.stieltjes import Bulk, Point
from rmtntk.stieltjes.noise import JointSpectrum

__all__ = ["EdgeCount", "Outliers", "Probe", "Spiked", "edge_counts", "find_outliers"]

_RANK = 1e-13  # relative size below which a direction of Z M or an eigenvalue of Ω̂ counts as 0
_ROOT = 1e-13
_MARGIN = 1e-9  # distance kept from the edges, relative to the size of the support
_POLE = 1e-13  # the same at ζ = 0
_POLE_DENSE = 1e-7  # the same for p × p matrices, whose inverses at ζ have a condition of 1/|ζ|
_SAME = 1e-9  # outliers closer than this, relative to the largest |ζ|, are one multiple outlier


class Probe(NamedTuple):
    """What S and its slope are made of at one ζ outside the bulk.

    Attributes
    ----------
    q : ndarray, shape (K,)
        Limits of R_ii.
    means : ndarray, shape (r, r)
        Limit of (Z M)ᵀ R (Z M).
    spread : ndarray, shape (K, r, r)
        ζ² MᵀQ̃ C_b Q̃M.
    products : ndarray, shape (K, K)
        ζ² tr(C_a Q̃ C_b Q̃)/p.
    squares : ndarray, shape (K, K)
        H: the limit of Σ_{j in b} R_ij² for i in a, so that dq/dζ = H 1.
    point : Point or None
        The bulk's solution.
    """

    q: FloatArray
    means: FloatArray
    spread: FloatArray
    products: FloatArray
    squares: FloatArray
    point: Point | None


@dataclass(frozen=True, eq=False)
class Spiked:
    r"""The low-rank part of a kernel on top of its bulk.

    Attributes
    ----------
    bulk : Bulk or None
        None where c1 = 0: G plays no part and R = −I/ζ.
    slope : float
        c1, or 1 where c1 = 0.
    mixture : GaussianMixture
        On the scale of K_0.
    share : ndarray, shape (K,)
        n_a/p.
    square : ndarray, shape (K,)
        s_a = 2 tr C_a²/p², the variance of ψ_i.
    basis : ndarray, shape (p, r)
        M in coordinates in which Z M has orthonormal columns.
    omega : ndarray, shape (K + r + 1, K + r + 1)
        Ω̂.
    strength, frame : ndarray, shapes (k,) and (K + r + 1, k)
        D and W: the eigenvalues of Ω̂ that are not 0, ascending, and their eigenvectors.
    """

    bulk: Bulk | None
    slope: float
    mixture: GaussianMixture
    share: FloatArray
    square: FloatArray
    basis: FloatArray
    omega: FloatArray
    strength: FloatArray
    frame: FloatArray

    @classmethod
    def of(
        cls,
        mixture: GaussianMixture,
        counts: FloatArray,
        bulk: Bulk | None,
        constants: tuple[float, float, float],
        factor: float = 1.0,
    ) -> "Spiked":
        """Build it from (c1, c2, c3), the mixture on the scale of K_0 and the class counts; means times `factor`."""
        c1, c2, c3 = constants
        p = mixture.n_features
        share = np.asarray(counts, dtype=np.float64) / p
        square = 2.0 * np.diag(mixture.trace_products) / p
        t = mixture.trace_deviations
        m = mixture.means.T
        core = c2 * np.outer(t, t) + c3 * mixture.trace_products
        size = np.sqrt(float(p * share @ square))  # ‖ψ‖
        root = np.sqrt(share)
        n_classes = len(share)
        top = core if bulk is None else core + c1 * factor**2 * (m.T @ m)
        top = root[:, None] * top * root
        side = root * c2 * t * size
        if bulk is None:
            basis, middle = np.zeros((p, 0)), np.zeros((n_classes, 0))
        else:
            # MᵀΣM = Y Λ Yᵀ is the Gram matrix of Z M = (Z M Y Λ^{-1/2}) (Λ^{1/2} Yᵀ)
            gram = sum(w * (m.T @ covariance_times(mixture, b, m)) for b, w in enumerate(share))
            values, vectors = np.linalg.eigh(np.asarray(gram))
            kept = values > _RANK * max(values[-1], 0.0)
            basis = m @ (vectors[:, kept] / np.sqrt(values[kept]))
            middle = factor * c1 * root[:, None] * (vectors[:, kept] * np.sqrt(values[kept]))
        r = basis.shape[1]
        omega = np.zeros((n_classes + r + 1, n_classes + r + 1))
        omega[:n_classes, :n_classes] = top
        omega[:n_classes, n_classes:-1] = middle
        omega[n_classes:-1, :n_classes] = middle.T
        omega[:n_classes, -1] = omega[-1, :n_classes] = side
        omega[-1, -1] = c2 * size**2
        strength, frame = np.linalg.eigh(omega)
        kept = np.abs(strength) > _RANK * np.abs(strength).max(initial=0.0)
        slope = 1.0 if bulk is None else c1
        return cls(bulk, slope, mixture, share, square, basis, omega, strength[kept], frame[:, kept])

    def probe(self, zeta: float, start: Probe | None = None) -> Probe:
        """Solve the bulk at a real ζ outside its support, from a solution nearby if one is known."""
        k, r = len(self.share), self.basis.shape[1]
        if self.bulk is None:
            q = np.full(k, -1.0 / zeta)
            return Probe(q, np.zeros((0, 0)), np.zeros((k, 0, 0)), np.zeros((k, k)), np.diag(q * q), None)
        point = self.bulk.solve(zeta, None if start is None else start.point)
        if np.iscomplexobj(point.q):
            raise ConvergenceError(f"ζ = {zeta:.17g} is in the support of the bulk within rounding", 0.0)
        q = point.q
        products = zeta**2 * self.bulk.trace_products(point)
        squares = np.asarray(np.linalg.solve(np.eye(k) - (q**2)[:, None] * products * self.share, np.diag(q**2)))
        means, spread = np.zeros((r, r)), np.zeros((k, r, r))
        if r:
            applied = self.bulk.apply(point, self.basis)
            for b, load in enumerate(point.loads):
                means += load * (applied.T @ covariance_times(self.mixture, b, self.basis))
                spread[b] = zeta**2 * (applied.T @ covariance_times(self.mixture, b, applied))
        return Probe(q, 0.5 * (means + means.T), spread, products, squares, point)

    def _blocks(self, labels: FloatArray, means: FloatArray) -> FloatArray:
        k, r = len(self.share), self.basis.shape[1]
        out = np.zeros((k + r + 1, k + r + 1))
        out[np.arange(k), np.arange(k)] = labels
        out[k:-1, k:-1] = means
        weight = self.share * self.square
        out[-1, -1] = float(weight @ labels) / float(weight.sum())
        return out

    def gram(self, probe: Probe) -> FloatArray:
        """B̂, shape (K + r + 1, K + r + 1)."""
        return self._blocks(probe.q, probe.means)

    def gram_slope(self, probe: Probe) -> FloatArray:
        """dB̂/dζ, the limit of Ûᵀ R² Û."""
        weight = self.share @ probe.squares
        return self._blocks(probe.squares.sum(axis=1), np.tensordot(weight, probe.spread, axes=1))

    def system(self, gram: FloatArray) -> FloatArray:
        """S for a given B̂, shape (k, k)."""
        return np.asarray(np.diag(1.0 / self.strength) + self.frame.T @ gram @ self.frame / self.slope)

    def negative(self, gram: FloatArray) -> int:
        r"""Count the negative eigenvalues of S for a given B̂: neg(D) + pos(B̂⁻¹ + Ω̂/c1) − pos(B̂).

        That is Haynsworth's formula for [[Ω̂⁻¹ c1, I], [I, −B̂⁻¹]]. B̂⁻¹ is finite where B̂ has the pole of an atom, next
        to which S loses the roots near 0 (X Xᵀ has as many zeros as Z Zᵀ, which is a root of S at ζ = 0 itself).
        """
        inverse = np.linalg.inv(gram)
        size = 1.0 / np.sqrt(np.abs(self.omega).max(axis=1) / self.slope + np.abs(np.diag(inverse)))
        matrix = (inverse + self.omega / self.slope) * np.outer(size, size)
        positive = int((np.linalg.eigvalsh(matrix) > 0.0).sum())
        return int((self.strength < 0.0).sum()) + positive - int((np.linalg.eigvalsh(gram) > 0.0).sum())

    @property
    def reach(self) -> float:
        """No outlier is further from the bulk than this."""
        return 1.01 * float(np.abs(self.strength).max(initial=0.0)) / self.slope

    def gaps(self) -> list[tuple[float | None, float | None]]:
        """Gaps of the bulk, ascending, from edge to edge; None where they are unbounded."""
        if self.bulk is None:
            return [(None, 0.0), (0.0, None)]
        edges = np.asarray(self.bulk.edges)
        cuts = [(float(a), float(b)) for a, b in edges]
        if self.bulk.atom > 0.0 and (not cuts or edges[0, 0] > 0.0):
            cuts.insert(0, (0.0, 0.0))
        return list(zip([None, *(b for _, b in cuts)], [*(a for a, _ in cuts), None], strict=True))

    def variance(self, probe: Probe, vectors: FloatArray, *, stratified: bool) -> float:
        r"""Mean square deviation of the eigenvalues of one (multiple) outlier over draws of the data.

        Parameters
        ----------
        probe : Probe
            At the outlier.
        vectors : ndarray, shape (K + r + 1, m)
            y_j = W n_j, n_j null vectors of S with Nᵀ S' N = I: the eigenvalues move by those of −y_jᵀ (Δ B̂) y_k.
        stratified : bool
            Whether the class counts are fixed.

        Returns
        -------
        float
            Σ_jk Var(y_jᵀ Δ y_k)/m, the variance of the outlier if m = 1; exact to leading order, 1/n.

        Notes
        -----
        The law of Z does not change when rows change signs. Given everything else, yᵀÛᵀRÛy is a quadratic polynomial
        in the signs: its variance over them (first two terms) and that of what they leave, ψ_i² and ψ_i (third term)
        and mᵀZᵀRZm (fourth, by martingale differences over the rows), add up.
        """
        k, p = len(self.share), self.mixture.n_features
        counts = self.share * p
        labels = vectors[:k] / np.sqrt(counts)[:, None]
        means = vectors[k:-1]
        norm = vectors[-1] / np.sqrt(float(counts @ self.square))
        q, squares, share = probe.q, probe.squares, self.share
        pairs = counts[:, None] * (squares - np.diag(q**2))  # Σ R_ij² over i ≠ j, class by class
        inner = np.einsum("bij,im,jl->bml", probe.spread, means, means)
        rest = np.einsum("b,ba,bml->aml", share, squares, inner)  # Σ_{i in a} (R Z m)_i (R Z m')_i
        size = np.einsum("am,al->aml", labels, labels) + np.einsum("m,l,a->aml", norm, norm, self.square)
        diagonal = np.einsum("amm->am", size)
        rest_diagonal = np.einsum("amm->am", rest)
        total = np.einsum("am,ab,bl->ml", diagonal, pairs, diagonal) + np.einsum("aml,ab,bml->ml", size, pairs, size)
        total += 2.0 * np.einsum("aml,aml->ml", size, rest)
        total += np.einsum("am,al->ml", diagonal, rest_diagonal) + np.einsum("al,am->ml", diagonal, rest_diagonal)
        cross = labels[:, :, None] * norm + labels[:, None, :] * norm[:, None]
        total += np.einsum("a,aml->ml", counts * q**2 * self.square, cross**2)
        total += 2.0 * float(counts @ (q * self.square) ** 2) * np.outer(norm, norm) ** 2
        if means.size:
            weight = np.sqrt(share) * np.abs(q)  # Y of mᵀQm's variance, in the scale of ζ Q
            kernel = weight[:, None] * np.linalg.solve(
                np.eye(k) - weight[:, None] * probe.products * weight, np.diag(weight)
            )
            inner_diagonal = np.einsum("amm->am", inner)
            total += np.einsum("am,ab,bl->ml", inner_diagonal, kernel, inner_diagonal) / p
            total += np.einsum("aml,ab,bml->ml", inner, kernel, inner) / p
        if not stratified:
            shift = np.einsum("aml,a->aml", np.einsum("am,al->aml", labels, labels), q)
            shift += np.einsum("m,l,a->aml", norm, norm, self.square * q)
            move = squares @ probe.products * q  # dq_b / dshare_a
            own = np.einsum("aml,a,ac->cml", size, share, move)
            shift = shift + own
            if means.size:
                shift = shift + (np.einsum("bml,b,ba->aml", inner, share, move) + np.einsum("a,aml->aml", q, inner)) / p
            w = counts / counts.sum()
            centred = shift - np.tensordot(w, shift, axes=1)  # the multinomial variance as squares: never below 0
            total += np.einsum("a,aml->ml", counts, centred**2)
        return float(total.sum() / vectors.shape[1])


def covariance_times(mixture: GaussianMixture, a: int, m: FloatArray) -> FloatArray:
    """C_a m."""
    cov = mixture.covariances[a]
    if mixture.covariances.ndim == 3:
        return np.asarray(cov @ m)
    return np.asarray(cov * m if mixture.covariances.ndim == 1 else cov[:, None] * m)


class Outliers(NamedTuple):
    """Outliers in units of ζ, descending.

    Attributes
    ----------
    zeta : ndarray, shape (m,)
    alignments : ndarray, shape (m, K + 1)
        Squared cosines with j_a/√n_a and ψ/‖ψ‖.
    variance : ndarray, shape (m,)
        Of the eigenvalues, not of ζ.
    multiplicity : ndarray of int, shape (m,)
    """

    zeta: FloatArray
    alignments: FloatArray
    variance: FloatArray
    multiplicity: IntArray


def find_outliers(spiked: Spiked, *, stratified: bool) -> Outliers:
    """Find all of them."""
    zeta = np.sort(spiked.strength if spiked.bulk is None else np.array(_roots(spiked)))[::-1]
    k = len(spiked.share)
    alignments = np.zeros((len(zeta), k + 1))
    variance = np.zeros(len(zeta))
    multiplicity = np.zeros(len(zeta), dtype=np.int64)
    for group in _groups(zeta):
        here = float(zeta[group].mean())
        zeta[group] = here
        probe = spiked.probe(here)
        gram = spiked.gram(probe)
        values, vectors = np.linalg.eigh(spiked.system(gram))
        null = vectors[:, np.argsort(np.abs(values))[: len(group)]]
        slope = null.T @ (spiked.frame.T @ spiked.gram_slope(probe) @ spiked.frame) @ null / spiked.slope
        y = spiked.frame @ np.linalg.solve(np.linalg.cholesky(slope), null.T).T
        seen = (gram @ y) ** 2 / spiked.slope
        alignments[group] = seen.sum(axis=1)[[*range(k), -1]]
        variance[group] = spiked.variance(probe, y, stratified=stratified)
        multiplicity[group] = len(group)
    return Outliers(zeta, alignments, variance, multiplicity)


def _step(spiked: Spiked, edge: float) -> float:
    """Distance from an edge at which the bulk is still solved with certainty; an atom or hard edge at 0 is a pole."""
    if spiked.bulk is None:
        return 0.0
    pole = _POLE if isinstance(spiked.bulk._spectrum, JointSpectrum) else _POLE_DENSE
    return (pole if edge == 0.0 else _MARGIN) * float(np.asarray(spiked.bulk.edges)[-1, 1])


def _roots(spiked: Spiked) -> list[float]:
    roots: list[float] = []
    far = int((spiked.strength < 0.0).sum())
    for left, right in spiked.gaps():
        low = (right or 0.0) - spiked.reach if left is None else left + _step(spiked, left)
        high = (left or 0.0) + spiked.reach if right is None else right - _step(spiked, right)
        if low >= high:
            continue
        start = far if left is None else spiked.negative(spiked.gram(spiked.probe(low)))
        stop = far if right is None else spiked.negative(spiked.gram(spiked.probe(high)))
        roots.extend(_root(spiked, low, high, branch) for branch in range(stop, start))
    return roots


def _root(spiked: Spiked, low: float, high: float, branch: int) -> float:
    last: Probe | None = None

    def gram(zeta: float) -> FloatArray:
        nonlocal last
        last = spiked.probe(zeta, last)
        return spiked.gram(last)

    def height(zeta: float) -> float:
        return float(np.linalg.eigvalsh(spiked.system(gram(zeta)))[branch])

    # next to a pole S has no sign to go by: halve the bracket by its inertia until it has
    for _ in range(200):
        if height(low) < 0.0 < height(high) and (low < 0.0 or high <= 4.0 * low):
            break
        middle = float(np.sqrt(low * high)) if 0.0 < 4.0 * low < high else 0.5 * (low + high)
        if not low < middle < high:
            return middle
        if spiked.negative(gram(middle)) > branch:
            low = middle
        else:
            high = middle
    scale = max(abs(low), abs(high))
    found, report = scipy.optimize.brentq(
        height, low, high, xtol=_ROOT * scale, rtol=1e-15, full_output=True, disp=False
    )
    if not report.converged:
        raise ConvergenceError(
            f"the outlier between ζ = {low:.6g} and {high:.6g} was not located in {report.iterations} steps",
            abs(height(found)),
        )
    return float(found)


def _groups(zeta: FloatArray) -> list[IntArray]:
    if not len(zeta):
        return []
    cuts = np.flatnonzero(np.abs(np.diff(zeta)) > _SAME * np.abs(zeta).max()) + 1
    return np.split(np.arange(len(zeta)), cuts)


class EdgeCount(NamedTuple):
    """Number of outliers next to one end of a gap: roots between the end and infinity or the middle of the gap."""

    edge: float
    side: Literal["above", "below"]
    negative: int


def edge_counts(spiked: Spiked, probes: dict[tuple[float, float], FloatArray]) -> tuple[int, list[EdgeCount]]:
    r"""Count the outliers from the inertia of S at the edges alone.

    B̂ behaves as B̂(e) + C √|ζ − e| at an edge e, so 2 B̂(e ± h) − B̂(e ± 4h) is B̂(e) to O(h).

    Parameters
    ----------
    spiked : Spiked
        What.
    probes : dict
        B̂ by edge and side; filled where an entry is missing, so that one dict serves all spikes over one bulk.

    Returns
    -------
    total : int
        Number of outliers.
    ends : list of EdgeCount
        Negative eigenvalues of S at every end of a gap that is an edge.
    """
    far = int((spiked.strength < 0.0).sum())
    if spiked.bulk is None:
        return len(spiked.strength), []
    total: int = 0
    ends: list[EdgeCount] = []
    for left, right in spiked.gaps():
        here = [far, far]
        if (
            left is not None
            and right is not None
            and right - left <= 8.0 * (_step(spiked, left) + _step(spiked, right))
        ):
            continue
        for which, (edge, sign) in enumerate(((left, 1.0), (right, -1.0))):
            if edge is None:
                continue
            step = sign * _step(spiked, edge)
            if (edge, sign) not in probes:
                near = spiked.gram(spiked.probe(edge + step))
                # at an eigenvalue 0 of G (an atom, or a hard edge) B̂ has a pole, not a root
                probes[edge, sign] = near if edge == 0.0 else 2.0 * near - spiked.gram(spiked.probe(edge + 4.0 * step))
            here[which] = spiked.negative(probes[edge, sign])
            ends.append(EdgeCount(edge, "above" if sign > 0.0 else "below", here[which]))
        total += here[0] - here[1]
    return total, ends
