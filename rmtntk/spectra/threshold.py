"""Phase transitions: the size of class means or covariance differences from which a kernel shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk._validation import check_choice
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network
from rmtntk.spectra.limit import Kind, check_arguments, kernel_numbers, over, size_of
from rmtntk.spectra.spikes import EdgeCount, Spiked, edge_counts
from rmtntk.stieltjes import Bulk

__all__ = ["Threshold", "visibility_threshold"]


@dataclass(frozen=True)
class Threshold:
    """When a class structure becomes visible; made by :func:`visibility_threshold`.

    Attributes
    ----------
    visible : bool
        Whether there is such a scale.
    scale : float or None
        Smallest factor of the means, or of the deviations of the covariances, at which there is one more outlier than
        without them; at 1 the mixture is as given, so below 1 means visible in it.
    location : float or None
        Edge of the bulk (or atom) that the outlier leaves, in units of the kernel.
    side : {"above", "below"} or None
        On which side of the edge.
    outliers : int
        Number of outliers without the structure.
    largest : float
        Largest factor looked at.
    message : str
        What was found.
    """

    visible: bool
    scale: float | None
    location: float | None
    side: str | None
    outliers: int
    largest: float
    message: str


_LARGEST = 1e4  # times the scale at which the means are as large as the noise
_STEPS = 240
_STEPS_BULK = 24
_SCALE = 1e-9  # relative accuracy of s; of the covariances' 1e-7, whose edges move


def visibility_threshold(
    net: Network,
    mixture: GaussianMixture,
    n: int,
    *,
    kind: Kind = "ck",
    what: Literal["means", "covariances"] = "means",
) -> Threshold:
    r"""Return the phase transition at which means or covariance differences add an outlier to the spectrum.

    With all means replaced by s μ_a, or all covariances by C° + s (C_a − C°), the number of outliers is that of the
    sign changes of S (``spectra/spikes.py``) between the ends of the gaps; the smallest s at which it exceeds its value
    at s → 0 is bracketed on a grid and bisected.

    Parameters
    ----------
    net, mixture, n, kind
        As in :func:`limiting_spectrum`.
    what : {"means", "covariances"}
        What is scaled. With "covariances" τ_0 stays, and s goes to 0.999 of the largest value at which all
        C° + s (C_a − C°) are positive semi-definite.

    Returns
    -------
    Threshold
        Without a transition `visible` is False, `scale` None, and `message` says why.

    Raises
    ------
    InfiniteDiagonalError, ValueError
        As :func:`limiting_spectrum`.

    Notes
    -----
    The equations at the edges are extrapolated from 1e-9 and 4e-9 of the support's size; that and the bisection leave
    a relative error of about 1e-8 (1e-6 for "covariances"). A window of s narrower than the grid, 8 % for "means" and
    35 % for "covariances", in which an outlier comes and goes is not seen.

    References
    ----------
    Baik, Ben Arous and Péché (2005), Annals of Probability 33, for the phenomenon; Benaych-Georges and Nadakuditi
    (2012), Journal of Multivariate Analysis 111, section 3.1, for identity covariances.
    """
    n = check_arguments(net, mixture, n, kind)
    check_choice(what, "what", ("means", "covariances"))
    seen, table, constants, shift = kernel_numbers(net, mixture, kind)
    scaled = over(constants, size_of(table, constants, shift))
    counts = mixture.weights * n
    count, grid, reason = (_means if what == "means" else _covariances)(seen, counts, scaled)
    if reason:
        return Threshold(False, None, None, None, count(0.0)[0], 0.0, reason)
    low = float(grid[0])
    base, before = count(low)
    for high in grid[1:]:
        total, after = count(float(high))
        if total > base:
            break
        low, before = float(high), after
    else:
        text = f"no additional outlier up to {grid[-1]:.4g} times the {what}"
        return Threshold(False, None, None, None, base, float(grid[-1]), text)
    high = float(high)
    while high - low > (_SCALE if what == "means" else 1e-7) * high:
        middle = 0.5 * (low + high)
        total, ends = count(middle)
        if total > base:
            high, after = middle, ends
        else:
            low, before = middle, ends
    end = _born(before, after)
    where = shift + constants[0] * end.edge
    text = f"an outlier leaves the edge {where:.6g} when the {what} are multiplied by {high:.6g}"
    return Threshold(True, high, where, end.side, base, float(grid[-1]), text)


Count = Callable[[float], tuple[int, list[EdgeCount]]]
Trial = tuple[Count, FloatArray, str]


def _born(before: list[EdgeCount], after: list[EdgeCount]) -> EdgeCount:
    """Edge whose number of negative eigenvalues of S has changed the most."""
    if [end.side for end in before] == [end.side for end in after]:
        change = [
            (b.negative - a.negative) * (1 if a.side == "above" else -1) for a, b in zip(before, after, strict=True)
        ]
        return after[int(np.argmax(change))]
    # an interval of the bulk has split or merged within the last step: the outermost edge stands for it
    return after[-1]


def _means(mixture: GaussianMixture, counts: FloatArray, constants: tuple[float, float, float]) -> Trial:
    bulk = _bulk(mixture, counts, constants)
    probes: dict[tuple[float, float], FloatArray] = {}

    def count(s: float) -> tuple[int, list[EdgeCount]]:
        return edge_counts(Spiked.of(mixture, counts, bulk, constants, s), probes)

    size = float(np.linalg.norm(mixture.means, axis=1).max())
    if bulk is None or size == 0.0:
        reason = "all means are zero" if size == 0.0 else "c1 = 0: the kernel of an even network does not see the means"
        return count, np.zeros(0), reason
    unit = mixture.tau0 / size
    return count, np.geomspace(unit / _LARGEST, unit * _LARGEST, _STEPS), ""


def _covariances(mixture: GaussianMixture, counts: FloatArray, constants: tuple[float, float, float]) -> Trial:
    k = mixture.n_classes
    mean = np.tensordot(mixture.weights, mixture.covariances, axes=1)
    deviations = mixture.covariances - mean

    def count(s: float) -> tuple[int, list[EdgeCount]]:
        mix = s * np.eye(k) + (1.0 - s) * mixture.weights[None, :]
        products = mix @ mixture.trace_products @ mix.T
        scaled = GaussianMixture(
            mixture.means, mean + s * deviations, mixture.weights, trace_products=0.5 * (products + products.T)
        )
        return edge_counts(Spiked.of(scaled, counts, _bulk(scaled, counts, constants), constants), {})

    if float(np.abs(deviations).max()) <= 1e-14 * float(np.abs(mean).max()):
        return count, np.zeros(0), "all covariances are equal: there is no difference to scale"
    largest = 0.999 * _largest_factor(mean, deviations)
    return count, np.geomspace(1e-3 * largest, largest, _STEPS_BULK), ""


def _largest_factor(mean: FloatArray, deviations: FloatArray) -> float:
    """Largest s with mean + s deviations positive semi-definite."""
    if deviations.ndim < 3:
        positive = mean > 0.0
        return float(-1.0 / (deviations[:, positive] / mean[positive]).min()) if mean.ndim else float(
            -1.0 / (deviations / mean).min()
        )  # fmt: skip
    values, vectors = np.linalg.eigh(mean)
    kept = values > 1e-12 * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept])
    return float(-1.0 / min(np.linalg.eigvalsh(root.T @ d @ root)[0] for d in deviations))


def _bulk(mixture: GaussianMixture, counts: FloatArray, constants: tuple[float, float, float]) -> Bulk | None:
    return None if constants[0] == 0.0 else Bulk(mixture.covariances, counts, mixture.n_features)
