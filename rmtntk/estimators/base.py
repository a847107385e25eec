"""What classifier and regressor share: inputs' scale, network, kernel, spectrum, penalty, predictions in blocks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from rmtntk._typing import FloatArray
from rmtntk._validation import check_choice, to_host
from rmtntk.estimators.networks import build_network, check_fit_memory, evaluate, row_blocks
from rmtntk.estimators.penalty import Choice, check_alpha, choose
from rmtntk.estimators.scaling import InputMap, Standardize, fit_map
from rmtntk.estimators.spectral import Problem, Spectrum, decompose
from rmtntk.network import Network

__all__ = ["Fit", "KernelRidgeBase", "check_standardize"]

_TRIAL_ROWS = 1000
_FIT_ARRAYS = 3  # kernel and LAPACK's workspace, n × n


@dataclass(frozen=True, eq=False)
class Fit:
    """Everything a fit found."""

    net: Network
    rows: FloatArray
    map: InputMap
    standardize: Standardize | None
    spectrum: Spectrum
    problem: Problem
    choice: Choice


def check_standardize(value: Any, choices: tuple[str, ...]) -> Any:
    """Return one of the choices or None."""
    if value is None:
        return None
    if isinstance(value, bool):
        named = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`standardize` must be one of {named} or None, got {value!r}")
    return check_choice(value, "standardize", choices)


class KernelRidgeBase(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Kernel ridge regression with the kernel of a wide network."""

    activations: Any
    depth: int
    kernel: Any
    alpha: Any
    criterion: Any
    weight_std: float
    bias_std: float
    centered: bool
    standardize: Any
    fit_intercept: bool

    def _fit(self, x: FloatArray, targets: FloatArray, weights: FloatArray, repetitions: FloatArray) -> Fit:
        """Fit rows (n, p) with positive weights (n,) to targets (n, C); `repetitions` are weights without classes'."""
        net = build_network(self, self.kernel)
        alpha = check_alpha(self.alpha, self.criterion)
        standardize = check_standardize(self.standardize, ("auto", "common", "features"))
        check_fit_memory(len(x), _FIT_ARRAYS)
        if standardize == "auto":
            standardize = self._better_scaling(net, x, targets, weights, repetitions)
        mapping, spectrum, problem, rows, scaled = self._decompose(net, x, targets, weights, repetitions, standardize)
        return Fit(scaled, rows, mapping, standardize, spectrum, problem, choose(problem, alpha, self.criterion))

    def _decompose(
        self,
        net: Network,
        x: FloatArray,
        targets: FloatArray,
        weights: FloatArray,
        repetitions: FloatArray,
        kind: Standardize | None,
    ) -> tuple[InputMap, Spectrum, Problem, FloatArray, Network]:
        mapping = fit_map(x, weights, kind)
        rows = np.ascontiguousarray(mapping(x))
        scaled = net.with_tau0(mapping.tau0)
        kernel = evaluate(scaled, self.kernel, rows)
        spectrum = decompose(kernel, weights, repetitions, intercept=bool(self.fit_intercept))
        return mapping, spectrum, Problem(spectrum, targets), rows, scaled

    def _better_scaling(
        self, net: Network, x: FloatArray, targets: FloatArray, weights: FloatArray, repetitions: FloatArray
    ) -> Standardize:
        """Compare both scalings by cross-validation (GCV at its best penalty) on at most 1000 rows, evenly spaced."""
        if x.shape[1] == 1:
            return "common"
        n = len(x)
        index = np.arange(n) if n <= _TRIAL_ROWS else np.linspace(0, n - 1, _TRIAL_ROWS).astype(np.int64)
        part = x[index], targets[index], weights[index], repetitions[index]
        kinds: tuple[Standardize, Standardize] = ("common", "features")
        best = [
            float(choose(self._decompose(net, *part, kind)[2], "gcv", "gcv").values.min()) for kind in kinds
        ]  # fmt: skip
        return kinds[1] if best[1] < best[0] else kinds[0]

    def _store(self, found: Fit) -> None:
        coefficients, intercepts = found.problem.solve(found.choice.alpha)
        self.network_ = found.net
        self.X_fit_ = found.rows
        self.standardize_ = found.standardize
        self.mean_ = found.map.mean
        self.scale_ = found.map.scale
        self.alpha_ = found.choice.alpha
        self.alphas_ = found.choice.alphas
        self.criterion_values_ = found.choice.values
        self.degrees_of_freedom_ = found.problem.freedom(found.choice.alpha)
        self.dual_coef_ = coefficients
        self.intercept_ = intercepts

    def _rows(self, x: Any) -> FloatArray:
        """Check rows and map them as in the fit."""
        check_is_fitted(self)
        data = validate_data(self, to_host(x, "X"), dtype=np.float64, reset=False)
        return np.ascontiguousarray(InputMap(self.mean_, self.scale_, 1.0)(data))

    def _scores(self, x: Any) -> FloatArray:
        """Return k(x) @ coefficients + intercepts, (m, C), in blocks of rows."""
        rows = self._rows(x)
        out = np.empty((len(rows), self.dual_coef_.shape[1]))
        for part in row_blocks(len(rows), len(self.X_fit_)):
            out[part] = evaluate(self.network_, self.kernel, rows[part], self.X_fit_) @ self.dual_coef_
        out += self.intercept_
        return out
