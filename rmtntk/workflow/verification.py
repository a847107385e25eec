"""Checks anyone can run: that the theory holds as n and p grow, and that a model file is whole."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rmtntk import activations as activation_module
from rmtntk._progress import Stages
from rmtntk._typing import FloatArray
from rmtntk._validation import check_data, check_integer
from rmtntk.coefficients import coefficients
from rmtntk.equivalents import equivalent, operator_norm
from rmtntk.kernels import ck, ntk
from rmtntk.matching import match
from rmtntk.mixture import GaussianMixture
from rmtntk.moments import has_jump
from rmtntk.network import Network
from rmtntk.ternary import TernaryNetwork

__all__ = ["SLOPE_BOUND", "VerificationOptions", "example_mixture", "run_model_check", "run_verification"]

Kind = Literal["ck", "ntk"]
SLOPE_BOUND = -0.35  # the theory's rate is -1/2; a statement that does not converge has slope 0


@dataclass(frozen=True)
class VerificationOptions:
    """Options of ``rmtntk verify`` without a model."""

    activations: str = "relu,relu,relu"
    sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    draws: int = 2
    seed: int = 0

    def validate(self) -> tuple[activation_module.Activation, ...]:
        """Check the options; return the activations."""
        layers = activation_module.parse(self.activations)
        for k, size in enumerate(self.sizes):
            check_integer(size, f"sizes[{k}]", low=32)
        if len(set(self.sizes)) < 3:
            raise ValueError(f"`sizes` must hold at least three different sizes to fit a slope, got {self.sizes}")
        check_integer(self.draws, "draws", low=1)
        check_integer(self.seed, "seed", low=0)
        return layers


def example_mixture(n_features: int) -> GaussianMixture:
    """Two classes that differ in mean, in the trace of the covariance (by O(√p)) and in its shape."""
    p = n_features
    means = np.zeros((2, p))
    means[0, 0], means[1, 1] = 2.0, -2.0
    spread = np.ones((2, p))
    spread[1, : p // 2] += 0.5
    spread[1, p // 2 : 2 * (p // 2)] -= 0.5
    spread[1] += 2.0 / np.sqrt(p)
    return GaussianMixture(means, spread)


def run_verification(options: VerificationOptions, progress: Stages) -> dict[str, Any]:
    """Measure ‖K − K̃‖ and the distance of the matched ternary network's kernel over growing n = p."""
    layers = options.validate()
    net = Network(layers)
    kinds: list[Kind] = ["ck"] if any(has_jump(act) for act in layers) else ["ck", "ntk"]
    rows: list[dict[str, Any]] = []
    for size in sorted(set(options.sizes)):
        progress.enter(f"n = p = {size}")
        rows.append(_measure(net, kinds, size, options))
    progress.leave()
    columns = [name for name in rows[0] if name != "n"]
    slopes = {name: _slope([row["n"] for row in rows], [row[name] for row in rows]) for name in columns}
    checks = {name: slope <= SLOPE_BOUND for name, slope in slopes.items()}
    return {
        "activations": str(net),
        "rows": rows,
        "slopes": slopes,
        "slope_bound": SLOPE_BOUND,
        "passed": all(checks.values()),
        "failed": [name for name, passed in checks.items() if not passed],
    }


def _measure(net: Network, kinds: list[Kind], size: int, options: VerificationOptions) -> dict[str, Any]:
    mixture = example_mixture(size)
    at_scale = net.with_tau0(mixture.tau0)
    found = match(at_scale, method="tight")
    total: dict[str, float] = {}
    for draw in range(options.draws):
        x, labels = mixture.sample(size, options.seed + 1000 * draw, stratified=True)
        kernels = {kind: (ck if kind == "ck" else ntk)(at_scale, x) for kind in kinds}
        for kind, kernel in kernels.items():
            form = equivalent(at_scale, x, labels, kind=kind, mixture=mixture)
            _add(total, f"{kind} − equivalent", operator_norm(kernel - form.to_dense()) / operator_norm(kernel))
        if found.feasible:
            other = ck(at_scale.with_activations(found.activations), x)
            _add(total, "ternary ck − ck", _off_diagonal(kernels["ck"], other))
    return {"n": size, **{name: value / options.draws for name, value in total.items()}}


def _add(total: dict[str, float], name: str, value: float) -> None:
    total[name] = total.get(name, 0.0) + value


def _off_diagonal(kernel: FloatArray, other: FloatArray) -> float:
    difference = other - kernel
    off = kernel.copy()
    np.fill_diagonal(difference, 0.0)
    np.fill_diagonal(off, 0.0)
    return operator_norm(difference) / operator_norm(off)


def _slope(sizes: list[int], errors: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def run_model_check(model: TernaryNetwork, x: FloatArray | None = None, *, n_samples: int = 1000) -> dict[str, Any]:
    """Recompute a model's match from its stored thresholds and, given raw data, compare the kernels on it."""
    tau0 = float(model.net.tau0 or 0.0)
    stored, dense = coefficients(model.net, tau0), coefficients(model.dense, tau0)
    reference = dense.alpha[-1, :3]
    unit = float(np.abs(reference).max())
    residual = float(np.abs(stored.alpha[-1, :3] - reference).max() / unit)
    result: dict[str, Any] = {
        "activations": [str(act) for act in model.activations],
        "alpha_dense": reference.tolist(),
        "alpha_stored": stored.alpha[-1, :3].tolist(),
        "residual": residual,
        "passed": residual <= 1e-8,
    }
    if x is not None:
        data = check_data(x)[:n_samples]
        if data.shape[1] != model.n_features:
            raise ValueError(f"`x` must have the model's {model.n_features} features, got {data.shape[1]}")
        if model.preprocessing is not None:
            data = (data - model.preprocessing.mean) / model.preprocessing.scale
        result["n_samples"] = len(data)
        result["off_diagonal"] = _off_diagonal(ck(model.dense, data), ck(model.net, data))
    return result
