"""Kernel ridge regression: training error, test error and accuracy over sample sizes and ridges."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads scipy.optimize when it is first used
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_integer
from rmtntk.equivalents import Kind
from rmtntk.learning.decision import accuracy
from rmtntk.learning.engine import Model, Node, Scores, respond, score_moments, squared_dual
from rmtntk.learning.problem import Centering, Problem, limit_of_test_error, problem_of, spectrum_bound
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network

__all__ = ["BestRidge", "LearningCurve", "learning_curve"]

_SEARCH = 25


class BestRidge(NamedTuple):
    """The ridge of least test error.

    Attributes
    ----------
    ridge : float
        0 if no positive ridge is better.
    test_error : float
    at_boundary : bool
        Whether the minimum is at an end of the range searched.
    """

    ridge: float
    test_error: float
    at_boundary: bool


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Limits of errors and accuracy over sample sizes (N) and ridges (R); made by :func:`learning_curve`.

    Attributes
    ----------
    n : ndarray of int, shape (N,)
    ridge : ndarray, shape (R,)
    train_error : ndarray, shape (N, R)
        Mean over training samples of ‖y_i − f(x_i)‖², label noise included.
    test_error : ndarray, shape (N, R)
        Mean over new samples of ‖target of the class − f(x)‖²; noisy new labels add m noise_std².
    accuracy : ndarray, shape (N, R)
        Probability that the target nearest to f(x) is the right one, classes in proportion.
    class_accuracy : ndarray, shape (N, R, K)
    means : ndarray, shape (N, R, K, m)
        Mean of f(x) in every class.
    stds : ndarray, shape (N, R, K, m)
        Standard deviation of f(x) in every class, for given training data.
    covariances : ndarray, shape (N, R, K, m, m)
    targets : ndarray, shape (K, m)
    """

    n: FloatArray
    ridge: FloatArray
    train_error: FloatArray
    test_error: FloatArray
    accuracy: FloatArray
    class_accuracy: FloatArray
    means: FloatArray
    stds: FloatArray
    covariances: FloatArray
    targets: FloatArray
    problem: "Problem"

    def optimal_ridge(self, n: int) -> BestRidge:
        """Return the ridge of least test error at one sample size.

        Parameters
        ----------
        n : int
            Number of training samples; any, not only those of the curve.

        Notes
        -----
        A grid in log(c + ridge), c the kernel's own multiple of the identity, from 0 to 1e6 times the kernel's scale,
        and bounded minimisation around its best point, to 1e-6 in the logarithm.
        """
        model = self.problem.model(check_integer(n, "n", low=1))
        top = 1e6 * (spectrum_bound(model) + model.shift)
        floor = model.shift if model.shift > 1e-9 * top / 1e6 else 1e-9 * top / 1e6
        grid = np.linspace(np.log(floor), np.log(top), _SEARCH)

        def error(u: float) -> float:
            ridge = max(float(np.exp(u)) - model.shift, 0.0)
            return limit_of_test_error(self.problem, krr_scores(model, respond(model, -ridge)))

        values = [error(float(u)) for u in grid]
        best = int(np.argmin(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _SEARCH - 1)]
        found = scipy.optimize.minimize_scalar(error, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
        u, value = (float(found.x), float(found.fun)) if found.fun < values[best] else (float(grid[best]), values[best])
        at_boundary = bool(min(u - grid[0], grid[-1] - u) < 1e-5)
        return BestRidge(max(float(np.exp(u)) - model.shift, 0.0), value, at_boundary)


def learning_curve(
    net: Network,
    mixture: GaussianMixture,
    n: int | Sequence[int],
    *,
    kind: Kind = "ntk",
    ridge: float | Sequence[float] | FloatArray = 0.0,
    targets: ArrayLike | None = None,
    noise_std: float = 0.0,
    tau0: float | None = None,
    centering: Centering = "none",
) -> LearningCurve:
    r"""Return training error, test error and accuracy of kernel ridge regression, as n, p → ∞ in proportion.

    .. math:: f(x) = k(x, X) (K + \gamma I)^{-1} y, \qquad y_i = \text{target of the class of } x_i + \text{noise}

    The score of a new sample is Gaussian in each class. Its mean follows from bilinear forms of the resolvent, its
    variance from two resolvents with a class covariance between them.

    Parameters
    ----------
    net : Network
        Any weight and bias scales, centred or not.
    mixture : GaussianMixture
        Population, on the scale of x under "unit" input scaling. Classes have n · weight samples, not rounded.
    n : int or sequence of int
        Numbers of training samples.
    kind : {"ntk", "ck"}
        Which kernel.
    ridge : float or sequence of float
        γ ≥ 0, added to the kernel as it is (not times n).
    targets : array_like, shape (K,) or (K, m), optional
        Target of each class; −1 and 1 for two classes, one-hot rows for more, 1 for a single one.
    noise_std : float
        Standard deviation of independent noise on every training label.
    tau0 : float, optional
        τ_0; the network's, or if that is None the mixture's.
    centering : {"none", "targets", "kernel"}
        "targets": the mean label is taken off the labels and put back onto the scores. "kernel": K and k(x, X) are
        centred in feature space as well, the same as an intercept without penalty.

    Returns
    -------
    LearningCurve

    Raises
    ------
    InfiniteDiagonalError
        If `kind` is "ntk" and an activation jumps.
    ConvergenceError
        If a fixed point is not reached.
    TypeError, ValueError
        If an argument is outside its domain, or the kernel has no inverse (γ + c = 0).

    Notes
    -----
    The theorem's form of the kernel is behind it, whose difference from the exact one falls like n^{-1/2}:
    ``validation/learning_curves.py`` measures both. A fixed point takes O(K² p) for scalar, diagonal or commuting
    covariances, O(K p³) otherwise. Accuracies for three or more classes are integrals exact to about 3e-5.

    References
    ----------
    Liao and Couillet (2019), "A large dimensional analysis of least squares support vector machines"; Couillet and
    Liao (2022), "Random Matrix Methods for Machine Learning", section 4.2; NTK-LC (2022), Theorems 1 and 2.
    """
    problem = problem_of(net, mixture, kind, targets, noise_std, tau0, centering)
    given: list[Any] = [n] if isinstance(n, int) or np.ndim(n) == 0 else list(n)
    sizes = [check_integer(value, "n", low=1) for value in given]
    if not sizes:
        raise ValueError("`n` must hold at least one sample size, got none")
    ridges = np.atleast_1d(np.asarray(ridge, dtype=np.float64)) if np.ndim(ridge) else np.array([ridge])
    ridges = check_array(ridges, "ridge", 1)
    if (ridges < 0.0).any():
        raise ValueError(f"`ridge` must be non-negative, got {ridges.min():g}")
    k, m = problem.targets.shape
    shape = (len(sizes), len(ridges))
    train, test = np.empty(shape), np.empty(shape)
    right = np.empty((*shape, k))
    means, covariances = np.empty((*shape, k, m)), np.empty((*shape, k, m, m))
    for i, size in enumerate(sizes):
        model = problem.model(size)
        if not (model.shift + ridges > 1e-12 * spectrum_bound(model)).all():
            raise ValueError(
                f"`ridge` must make the kernel invertible: its multiple of the identity is c = {model.shift:.3g}, "
                f"got {ridges.min():g}"
            )
        for j, gamma in enumerate(ridges):
            node = respond(model, -float(gamma))
            scores = krr_scores(model, node)
            train[i, j] = gamma**2 * squared_dual(model, node) / size
            test[i, j] = limit_of_test_error(problem, scores)
            right[i, j] = accuracy(scores.means, scores.covariances, problem.targets)
            means[i, j], covariances[i, j] = scores.means, scores.covariances
    return LearningCurve(
        np.array(sizes),
        ridges,
        train,
        test,
        right @ mixture.weights,
        right,
        means,
        np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1)),
        covariances,
        problem.targets,
        problem,
    )


def krr_scores(model: Model, node: Node) -> Scores:
    one = np.ones((1, 1))
    return score_moments(model, [node], [node], one, one)[0]
