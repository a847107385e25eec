"""Gradient flow on the squared loss: errors and accuracy over time, in the limit and on given data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_integer, check_square
from rmtntk.equivalents import Equivalent, Kind
from rmtntk.learning.contour import flow_contour, phi
from rmtntk.learning.decision import accuracy
from rmtntk.learning.engine import Scores, conjugate, respond, score_moments
from rmtntk.learning.problem import Centering, limit_of_test_error, problem_of, spectrum_bound
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network

__all__ = ["GradientFlow", "KernelFlow", "gradient_flow", "kernel_flow"]

_SPAN = 10.0  # times within this factor share a contour


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """Limits over times (T); made by :func:`gradient_flow`. Attributes as in :class:`LearningCurve`, without axes N, R.

    Attributes
    ----------
    times : ndarray, shape (T,)
    train_error, test_error, accuracy : ndarray, shape (T,)
    class_accuracy : ndarray, shape (T, K)
    means, stds : ndarray, shape (T, K, m)
    covariances : ndarray, shape (T, K, m, m)
    targets : ndarray, shape (K, m)
    error : float
        Error of the functions of time, measured on an interval that holds the spectrum: of the dual vector relative
        to its maximum, of train_error relative to its value at time 0.
    """

    times: FloatArray
    train_error: FloatArray
    test_error: FloatArray
    accuracy: FloatArray
    class_accuracy: FloatArray
    means: FloatArray
    stds: FloatArray
    covariances: FloatArray
    targets: FloatArray
    error: float


@dataclass(frozen=True, eq=False)
class KernelFlow:
    """Gradient flow on given data; made by :func:`kernel_flow`.

    Attributes
    ----------
    times : ndarray, shape (T,)
    train_error : ndarray, shape (T,)
        ‖y − f(t)‖²/n, summed over outputs.
    train : ndarray, shape (T, n, m)
        f(t) on the training samples.
    test : ndarray, shape (T, n_test, m) or None
        f(t) on the rows of the cross kernel.
    eigenvalues : ndarray, shape (n,)
        Of the kernel, ascending.
    """

    times: FloatArray
    train_error: FloatArray
    train: FloatArray
    test: FloatArray | None
    eigenvalues: FloatArray


def gradient_flow(
    net: Network,
    mixture: GaussianMixture,
    n: int,
    times: ArrayLike,
    *,
    kind: Kind = "ntk",
    targets: ArrayLike | None = None,
    noise_std: float = 0.0,
    tau0: float | None = None,
    centering: Centering = "none",
) -> GradientFlow:
    r"""Return training error, test error and accuracy of kernel gradient flow over time.

    .. math:: \frac{df}{dt}(x) = -k(x, X) (f(X) - y), \quad f = 0 \text{ at } t = 0,
              \qquad f(x) = k(x, X)\, \frac{1 - e^{-tK}}{K}\, y

    Time is in units of 1/kernel: the flow of the loss ½‖f(X) − y‖² at learning rate 1. For the mean squared loss
    ‖f(X) − y‖²/n divide by 2/n.

    Parameters
    ----------
    net, mixture, kind, targets, noise_std, tau0, centering
        As for :func:`learning_curve`. With "kernel" the flow is that of the centred kernel on centred labels.
    n : int
        Number of training samples.
    times : float or array_like, shape (T,)
        Non-negative times.

    Returns
    -------
    GradientFlow

    Raises
    ------
    ConvergenceError
        If the contour integral or a fixed point does not reach its accuracy.
    TypeError, ValueError, InfiniteDiagonalError
        As for :func:`learning_curve`.

    Notes
    -----
    The functions of time are sums of 10 to 40 resolvents at complex points (times within a factor 10 share them),
    whose error on the spectrum is measured and returned. e^{−∞} is :func:`learning_curve` with ridge 0.

    References
    ----------
    Jacot, Gabriel and Hongler (2018), section 5, for the flow; Liao and Couillet (2018), "The dynamics of learning: a
    random matrix approach", for contour integrals over deterministic equivalents.
    """
    problem = problem_of(net, mixture, kind, targets, noise_std, tau0, centering)
    model = problem.model(check_integer(n, "n", low=1))
    clock = check_array(np.atleast_1d(np.asarray(times)), "times", 1)
    if (clock < 0.0).any():
        raise ValueError(f"`times` must be non-negative, got {clock.min():g}")
    k, m = problem.targets.shape
    low, high = max(model.shift, 0.0), model.shift + spectrum_bound(model)
    train = np.empty(len(clock))
    table: list[Scores | None] = [None] * len(clock)
    base = model.mean_target if centering != "none" else np.zeros(m)
    start = Scores(np.tile(base, (k, 1)), np.zeros((k, m, m)))
    weights = mixture.weights
    untrained = float(weights @ ((problem.targets - base) ** 2).sum(axis=1)) + m * noise_std**2
    error = 0.0
    for group in _groups(clock):
        chosen = clock[group]
        if chosen[0] == 0.0:
            for index in group:
                train[index], table[index] = untrained, start
            continue
        path = flow_contour(chosen, low, high)
        error = max(error, path.error)
        nodes = [respond(model, complex(point)) for point in path.points]
        both = nodes + [conjugate(node) for node in nodes]
        full = 0.5 * np.concatenate([path.weights, path.weights.conj()], axis=1)
        for index, scores in zip(group, score_moments(model, nodes, both, path.weights, full), strict=True):
            table[index] = scores
        product = np.array([node.product.sum() for node in nodes])
        product += m * noise_std**2 * np.array([model.counts @ node.diagonal for node in nodes])
        train[group] = np.real(path.decay @ product) / n
    found = [scores for scores in table if scores is not None]
    right = np.stack([accuracy(s.means, s.covariances, problem.targets) for s in found])
    covariances = np.stack([s.covariances for s in found])
    return GradientFlow(
        clock,
        train,
        np.array([limit_of_test_error(problem, s) for s in found]),
        right @ weights,
        right,
        np.stack([s.means for s in found]),
        np.sqrt(np.maximum(np.diagonal(covariances, axis1=-2, axis2=-1), 0.0)),
        covariances,
        problem.targets,
        error,
    )


def kernel_flow(
    kernel: Equivalent | ArrayLike, targets: ArrayLike, times: ArrayLike, *, cross: ArrayLike | None = None
) -> KernelFlow:
    """Return gradient flow on given data: the same equation as :func:`gradient_flow`, by eigendecomposition.

    Parameters
    ----------
    kernel : Equivalent or array_like, shape (n, n)
        Symmetric kernel of the training samples.
    targets : array_like, shape (n,) or (n, m)
        Labels.
    times : float or array_like, shape (T,)
        Non-negative times, in units of 1/kernel.
    cross : array_like, shape (n_test, n), optional
        Kernel between new and training samples.

    Returns
    -------
    KernelFlow

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit or a time is negative.

    Notes
    -----
    Costs O(n³) once, O(n² m) a time.
    """
    matrix = kernel.to_dense() if isinstance(kernel, Equivalent) else check_square(kernel, "kernel")
    y = check_array(targets, "targets", max(1, min(2, np.ndim(targets))))
    if len(y) != len(matrix):
        raise ValueError(f"`targets` must have one row per training sample, {len(matrix)}, got shape {y.shape}")
    y = y.reshape(len(y), -1)
    clock = check_array(np.atleast_1d(np.asarray(times)), "times", 1)
    if (clock < 0.0).any():
        raise ValueError(f"`times` must be non-negative, got {clock.min():g}")
    rows = None if cross is None else check_array(cross, "cross", 2)
    if rows is not None and rows.shape[1] != len(y):
        raise ValueError(f"`cross` must have {len(y)} columns, one per training sample, got shape {rows.shape}")
    values, vectors = np.linalg.eigh(matrix)
    turned = vectors.T @ y
    left = np.exp(-clock[:, None] * values)[:, :, None] * turned  # y − f in the eigenbasis
    dual = phi(clock, values)[:, :, None] * turned
    return KernelFlow(
        clock,
        (left**2).sum(axis=(1, 2)) / len(y),
        y - vectors @ left,
        None if rows is None else (rows @ vectors) @ dual,
        values,
    )


def _groups(times: FloatArray) -> list[np.ndarray[Any, np.dtype[np.intp]]]:
    """Indices of times that share a contour, zeros apart."""
    order = np.argsort(times, kind="stable")
    out: list[list[int]] = []
    for index in order:
        first = times[out[-1][0]] if out else -1.0
        if out and (times[index] == first or 0.0 < times[index] <= _SPAN * first):
            out[-1].append(int(index))
        else:
            out.append([int(index)])
    return [np.array(group) for group in out]
