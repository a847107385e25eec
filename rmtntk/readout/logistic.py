r"""Multinomial logistic readout.

Minimises J(W, b) = Σ_i [log Σ_c exp z_ic − Σ_c y_ic z_ic] + α/2 ‖W‖², z = F W + b, for targets y that are one-hot or
probabilities; the intercept is not penalised. α has the units of the centred Gram matrix, as in the ridge readout.

The penalty is the same in every orthonormal basis, so the problem is solved in that of the principal components
(n × min(n, d) numbers), where one diagonal scaling (κ λ_j + α)^{-1/2} makes the Hessian well conditioned for
every α: λ_j are the eigenvalues of the Gram matrix and κ the mean of p(1 − p) (Böhning 1992 bounds the
Hessian by ½(I − 11ᵀ/C) ⊗ FᵀF). L-BFGS then takes tens of iterations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import scipy  # loads scipy.optimize when it is first used
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray, IntArray, Seed
from rmtntk._validation import as_generator, check_integer, check_real
from rmtntk.errors import ConvergenceError
from rmtntk.readout._checks import EPS, check_fit, check_probabilities, refuse_constant

__all__ = ["Logistic", "fit_logistic", "softmax"]

_STEP = 10.0**0.5  # between penalties tried
_TRIED = 13  # from the top eigenvalue down to 1e-6 of it
_PATIENCE = 2
_LOOSE = 1e-3  # tolerance while penalties are compared


@dataclass(frozen=True, eq=False)
class Logistic:
    """Linear readout fitted by cross-entropy: softmax(features @ coefficients + intercept) are probabilities.

    Attributes
    ----------
    coefficients : ndarray, shape (d, C)
        Its rows sum to 0.
    intercept : ndarray, shape (C,)
        Sums to 0.
    alpha : float
        Penalty, in units of squared singular values of the centred features.
    loss : float
        Mean cross-entropy of the training samples, in nats.
    validation_loss : float or None
        That of the samples held out when `alpha` was chosen, at `alpha`.
    iterations : int
        Of the last solve.
    gradient_norm : float
        Norm of the gradient of J/n in (W, b) at the solution, for centred features.
    """

    coefficients: FloatArray
    intercept: FloatArray
    alpha: float
    loss: float
    validation_loss: float | None
    iterations: int
    gradient_norm: float

    kind: ClassVar[Literal["logistic"]] = "logistic"
    bits: ClassVar[Literal[64]] = 64

    @property
    def nbytes(self) -> int:
        """Bytes of coefficients and intercept."""
        return self.coefficients.nbytes + self.intercept.nbytes

    def scores(self, features: FloatArray) -> FloatArray:
        """Return the scores (n, C) of features (n, d); their softmax are probabilities."""
        return np.asarray(features @ self.coefficients + self.intercept)

    def describe(self) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """Return a JSON-ready header and arrays from which :func:`rmtntk.readout.restore` makes it again."""
        names = ("kind", "bits", "alpha", "loss", "validation_loss", "iterations", "gradient_norm")
        return {name: getattr(self, name) for name in names}, {
            "coefficients": self.coefficients,
            "intercept": self.intercept,
        }


def softmax(scores: FloatArray) -> FloatArray:
    """Return exp(scores) over its sum, row by row."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def fit_logistic(
    features: ArrayLike,
    targets: ArrayLike,
    alpha: float | None = None,
    *,
    validation: float | int = 0.2,
    rng: Seed = 0,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
) -> Logistic:
    """Fit class probabilities (n, C), one-hot for labels, on features (n, d), both in memory.

    Parameters
    ----------
    features : array_like, shape (n, d)
    targets : array_like, shape (n, C)
        Rows of probabilities; their sums may miss 1 by 1e-5, as those of float32 do.
    alpha : float, optional
        Penalty on the coefficients, positive: without one separable classes have no minimum. If not given, the one of
        least cross-entropy on samples held out, of 13 half a decade apart, from the largest eigenvalue λ of the
        centred Gram matrix down to 1e-6 λ. The search goes down, stops after two rises, and the fit is then repeated on
        all samples.
    validation : float or int
        Share of samples held out, or (int, at least 2) number of folds.
    rng : Generator or int
        Chooses what is held out, within classes of largest probability.
    tolerance : float
        The solve ends when the gradient of J is below `tolerance` times its part αW, both in the scaled coordinates
        (at the minimum αW and the gradient of the cross-entropy cancel), or when J is at its minimum to rounding,
        which may come first below 1e-7.
    max_iterations : int
        Of each solve.

    Returns
    -------
    Logistic

    Raises
    ------
    ValueError
        If an array is not a finite matrix, rows are not probabilities, a class has none in any row, or all samples have
        the same features.
    ConvergenceError
        If a solve does not meet `tolerance` in `max_iterations`.

    References
    ----------
    Böhning (1992), "Multinomial logistic regression algorithm", sec. 2; Liu and Nocedal (1989) for L-BFGS.
    """
    f, y = check_fit(features, targets)
    y = check_probabilities(y)
    if alpha is not None:
        alpha = check_real(alpha, "alpha", low=0.0, open_low=True)
    tolerance = check_real(tolerance, "tolerance", low=0.0, high=1.0, open_low=True)
    max_iterations = check_integer(max_iterations, "max_iterations", low=1)
    n, d = f.shape
    mean = f.mean(axis=0)
    squares = float(np.einsum("ij,ij->", f, f))
    centred = f - mean
    basis, components, values = _components(centred, squares)
    problem = _Problem(components, values, y)
    settings = _Settings(tolerance, max_iterations)
    validation_loss = None
    start = np.zeros((len(values) + 1, y.shape[1]))
    if alpha is None:
        alpha, validation_loss, start = _choose(problem, _folds(y, validation, as_generator(rng)), settings)
    solved = _solve(problem, alpha, start, settings)
    if d <= n:
        coefficients = basis @ solved.theta[:-1]
    else:  # basis are the left singular vectors
        coefficients = centred.T @ (basis @ (solved.theta[:-1] / np.sqrt(values)[:, None]))
    coefficients -= coefficients.mean(axis=1, keepdims=True)
    intercept = solved.theta[-1] - mean @ coefficients
    return Logistic(
        coefficients,
        intercept - intercept.mean(),
        alpha,
        problem.loss(solved.theta),
        validation_loss,
        solved.iterations,
        solved.gradient_norm,
    )


class _Settings(NamedTuple):
    tolerance: float
    max_iterations: int


class _Problem(NamedTuple):
    """Samples in principal components (n, r), the eigenvalues (r,), and their targets (n, C)."""

    components: FloatArray
    values: FloatArray
    targets: FloatArray

    def subset(self, rows: IntArray) -> "_Problem":
        return _Problem(self.components[rows], self.values * (len(rows) / len(self.targets)), self.targets[rows])

    def scores(self, theta: FloatArray) -> FloatArray:
        return np.asarray(self.components @ theta[:-1] + theta[-1])

    def loss(self, theta: FloatArray) -> float:
        """Mean cross-entropy."""
        return float((self.targets * _surprise(self.scores(theta))).sum()) / len(self.targets)

    def objective(self, theta: FloatArray, alpha: float) -> tuple[float, FloatArray]:
        """J and its gradient in theta = (coefficients, intercept)."""
        surprise = _surprise(self.scores(theta))
        value = float((self.targets * surprise).sum()) + 0.5 * alpha * float((theta[:-1] ** 2).sum())
        residual = self.targets.sum(axis=1, keepdims=True) * np.exp(-surprise) - self.targets
        gradient = np.empty_like(theta)
        gradient[:-1] = self.components.T @ residual + alpha * theta[:-1]
        gradient[-1] = residual.sum(axis=0)
        return value, gradient


class _Solved(NamedTuple):
    theta: FloatArray
    iterations: int
    gradient_norm: float


def _surprise(z: FloatArray) -> FloatArray:
    """Return −log softmax(z), also where it is next to nothing."""
    shifted = z - z.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    odds[np.arange(len(z)), shifted.argmax(axis=1)] = 0.0
    return np.asarray(np.log1p(odds.sum(axis=1, keepdims=True)) - shifted)


def _components(centred: FloatArray, squares: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return singular vectors of the smaller side, samples along the principal axes, squared singular values."""
    n, d = centred.shape
    values, vectors = np.linalg.eigh(centred.T @ centred if d <= n else centred @ centred.T)
    refuse_constant(float(values[-1]), n, squares)
    kept = values > max(n, d) * EPS * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return vectors, centred @ vectors if d <= n else vectors * np.sqrt(values), values


def _solve(problem: _Problem, alpha: float, start: FloatArray, settings: _Settings) -> _Solved:
    """Minimise J by L-BFGS in scaled coordinates."""
    n = len(problem.targets)
    share = problem.targets.mean(axis=0)
    origin = np.zeros_like(start)
    origin[-1] = np.log(share) - np.log(share).mean()
    theta = start if start.any() else origin
    p = softmax(problem.scores(theta))
    kappa = max(float((p * (1.0 - p)).mean()), 1e-3)
    scale = 1.0 / np.sqrt(np.append(kappa * problem.values + alpha, kappa * n))[:, None]
    last = [math.inf, 0.0, math.inf]  # J, and the norms of αW and of the gradient, scaled, at the latest point

    def function(flat: FloatArray) -> tuple[float, FloatArray]:
        point = flat.reshape(start.shape) * scale
        value, gradient = problem.objective(point, alpha)
        gradient *= scale
        last[:] = value, alpha * float(np.linalg.norm(point[:-1] * scale[:-1])), float(np.linalg.norm(gradient))
        return value, gradient.ravel()

    def stop(_: FloatArray) -> None:
        if last[2] <= settings.tolerance * last[1]:
            raise StopIteration

    found = scipy.optimize.minimize(
        function,
        (theta / scale).ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={"maxiter": settings.max_iterations, "maxfun": 2 * settings.max_iterations, "maxcor": 20,
                 "ftol": 0.0, "gtol": 0.0},
    )  # fmt: skip
    function(found.x)
    theta = np.asarray(found.x).reshape(start.shape) * scale
    # where steps no longer lower J, what it could still fall by, half the squared gradient, must be its rounding
    if not (last[2] <= settings.tolerance * last[1] or 0.5 * last[2] ** 2 <= 16.0 * EPS * last[0]):
        residual = last[2] / last[1] if last[1] > 0.0 else math.inf
        raise ConvergenceError(
            f"the logistic readout did not converge at alpha={alpha:.3g} in {found.nit} iterations: relative gradient "
            f"{residual:.2g}, wanted {settings.tolerance:.2g}; take a larger `alpha` or `max_iterations`",
            residual,
        )
    gradient = problem.objective(theta, alpha)[1]
    return _Solved(theta, int(found.nit), float(np.linalg.norm(gradient)) / n)


def _choose(
    problem: _Problem, folds: Sequence[tuple[IntArray, IntArray]], settings: _Settings
) -> tuple[float, float, FloatArray]:
    """Return the penalty of least held-out cross-entropy, that cross-entropy, and coefficients to start from."""
    parts = [(problem.subset(inside), problem.subset(outside)) for inside, outside in folds]
    thetas = [np.zeros((len(problem.values) + 1, problem.targets.shape[1])) for _ in parts]
    loose = settings._replace(tolerance=max(settings.tolerance, _LOOSE))
    best = (math.nan, math.inf, thetas[0])
    rises = 0
    for k in range(_TRIED):
        alpha = float(problem.values[-1]) / _STEP**k
        thetas = [_solve(part, alpha, theta, loose).theta for (part, _), theta in zip(parts, thetas, strict=True)]
        losses = [held.loss(theta) for (_, held), theta in zip(parts, thetas, strict=True)]
        sizes = [len(held.targets) for _, held in parts]
        loss = float(np.average(losses, weights=sizes))
        if loss < best[1]:
            best, rises = (alpha, loss, thetas[0]), 0
        else:
            rises += 1
            if rises == _PATIENCE:
                break
    return best


def _folds(targets: FloatArray, validation: float | int, rng: np.random.Generator) -> list[tuple[IntArray, IntArray]]:
    """Return (rows to fit, rows held out) of every fold, each class of largest probability spread over all."""
    if isinstance(validation, int) and not isinstance(validation, bool):
        count = check_integer(validation, "validation", low=2)
        used = count
    else:
        share = check_real(validation, "validation", low=0.0, high=0.5, open_low=True)
        count, used = max(2, round(1.0 / share)), 1
    n = len(targets)
    order = rng.permutation(n)
    order = order[np.argsort(targets[order].argmax(axis=1), kind="stable")]
    number = np.empty(n, dtype=np.int64)
    number[order] = np.arange(n) % count
    folds = []
    for k in range(used):
        outside = number == k
        missing = targets[~outside].sum(axis=0) == 0.0
        outside &= ~(targets[:, missing] > 0.0).any(axis=1)  # a class must not be held out whole
        if not outside.any():
            raise ValueError(
                f"`alpha` must be given: {n} samples are too few to hold some out and keep every class in the fit"
            )
        folds.append((np.flatnonzero(~outside), np.flatnonzero(outside)))
    return folds
