"""What a learning curve is asked about: the checked arguments, and the kernel's limit for a sample size."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_choice, check_real
from rmtntk.equivalents import Kind
from rmtntk.learning.engine import Model, Scores, model_of
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network

__all__ = ["Centering", "Problem", "limit_of_test_error", "problem_of", "spectrum_bound"]

Centering = Literal["none", "targets", "kernel"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Checked arguments of a learning curve or a flow."""

    net: Network
    mixture: GaussianMixture
    kind: Kind
    targets: FloatArray
    noise_std: float
    tau0: float | None
    centering: Centering

    def model(self, n: float) -> Model:
        """Return the limit of the kernel on n samples."""
        return model_of(self.net, self.mixture, n, self.kind, self.targets, self.noise_std, self.tau0, self.centering)


def problem_of(net: Any, mixture: Any, kind: Any, targets: Any, noise_std: Any, tau0: Any, centering: Any) -> Problem:
    """Check the arguments; targets default to ∓1 for two classes, else one-hot."""
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    if not isinstance(mixture, GaussianMixture):
        raise TypeError(f"`mixture` must be a GaussianMixture, got {mixture!r}")
    check_choice(kind, "kind", ("ck", "ntk"))
    check_choice(centering, "centering", ("none", "targets", "kernel"))
    std = check_real(noise_std, "noise_std", low=0.0)
    k = mixture.n_classes
    if targets is None:
        y = np.array([[-1.0], [1.0]]) if k == 2 else np.eye(k)
    else:
        y = check_array(targets, "targets", max(1, min(2, np.ndim(targets))))
        if len(y) != k:
            raise ValueError(f"`targets` must have one row per class, {k}, got shape {y.shape}")
        y = y.reshape(k, -1)
    return Problem(net, mixture, kind, y, std, tau0, centering)


def limit_of_test_error(problem: Problem, scores: Scores) -> float:
    """Mean squared distance of a new sample's score to its class's target, summed over outputs."""
    square = ((scores.means - problem.targets) ** 2).sum(axis=1) + np.trace(scores.covariances, axis1=1, axis2=2)
    return float(problem.mixture.weights @ square)


def spectrum_bound(model: Model) -> float:
    """Bound of the largest eigenvalue of K̃ − c in the limit, from above, with room for fluctuations."""
    noise = model.noise
    if noise.diagonal:
        largest = float(noise.covariances.max())
        means = noise.overlaps.sum(axis=0)
    else:
        largest = max(float(np.linalg.norm(c, 2)) for c in noise.covariances)
        means = noise.overlaps.T @ noise.overlaps
    load = np.sqrt(noise.ratios)
    bulk = largest * (1.0 + np.sqrt(noise.ratios.sum())) ** 2
    spikes = float(np.linalg.norm(load[:, None] * means * load, 2))
    k = len(load)
    scale = np.append(load, np.sqrt(model.counts @ model.psi))
    index = np.append(np.arange(k), 2 * k)
    extra = model.omega[np.ix_(index, index)].copy()
    extra[:k, :k] -= model.slope * means
    norm = float(np.linalg.norm(scale[:, None] * extra * scale, 2))
    return 1.5 * (model.slope * (np.sqrt(bulk) + np.sqrt(spikes)) ** 2 + norm)
