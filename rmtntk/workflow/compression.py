"""The main job: real data in, a ternary network out, with the proof that both have the same kernels."""

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from rmtntk import activations as activation_module
from rmtntk._progress import Stages
from rmtntk._typing import FloatArray, IntArray
from rmtntk._validation import check_choice, check_integer, check_labels, check_real, check_widths
from rmtntk.coefficients import coefficients
from rmtntk.data import Dataset, Scaling, load, train_test_split
from rmtntk.equivalents import Equivalent, equivalent, operator_norm, spectral_error
from rmtntk.errors import AssumptionWarning, InfeasibleError
from rmtntk.finite import FiniteNetwork
from rmtntk.kernels import ck
from rmtntk.matching import METHODS
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network
from rmtntk.readout import fit_ridge
from rmtntk.ternary import TernaryNetwork, compress
from rmtntk.workflow.environment import describe_environment

__all__ = ["STAGES", "CompressionOptions", "CompressionResult", "Spectrum", "run_compression"]

STAGES = 6


@dataclass(frozen=True)
class CompressionOptions:
    """Options of ``rmtntk compress``; see ``rmtntk compress --help``."""

    data: str = "mnist5k"
    activations: str = "relu,relu,relu"
    widths: tuple[int, ...] = (2000, 2000, 1000)
    sparsity: float = 0.9
    method: Literal["tight", "layerwise", "paper"] = "tight"
    test_fraction: float = 0.2
    kernel_samples: int = 1000
    alpha: float | None = None
    seed: int = 0
    label_column: str | None = None

    def validate(self) -> tuple[activation_module.Activation, ...]:
        """Check everything that can be checked before data is read; return the activations."""
        layers = activation_module.parse(self.activations)
        check_widths(self.widths, len(layers))
        check_real(self.sparsity, "sparsity", low=0.0, high=1.0, open_high=True)
        check_choice(self.method, "method", METHODS)
        check_real(self.test_fraction, "test_fraction", low=0.0, high=1.0, open_low=True, open_high=True)
        check_integer(self.kernel_samples, "kernel_samples", low=10)
        check_integer(self.seed, "seed", low=0)
        if self.alpha is not None:
            check_real(self.alpha, "alpha", low=0.0)
        return layers


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Spectra of the exact kernels and of the equivalent, for the figure.

    Attributes
    ----------
    classes : ndarray of int, shape (n,)
        Class index of every sample, increasing.
    eigenvalues, eigenvectors : dict of ndarray, shapes (n,) and (n, 2)
        All eigenvalues, descending, and the two leading eigenvectors, for "dense" (exact CK of the dense
        network), "ternary" (of the matched network), "equivalent" (the theorem) and "second_order".
    """

    classes: IntArray
    eigenvalues: dict[str, FloatArray]
    eigenvectors: dict[str, FloatArray]


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """The fitted model, everything measured (JSON-ready), and what the figures need."""

    model: TernaryNetwork
    report: dict[str, Any]
    spectrum: Spectrum


def run_compression(options: CompressionOptions, progress: Stages) -> CompressionResult:
    """Run the job; raises ValueError, InfeasibleError or MissingExtraError before heavy work where it can."""
    layers = options.validate()
    progress.enter("read data")
    dataset = load(options.data, label_column=options.label_column)
    if dataset.labels is None:
        raise ValueError(f"`data` must have labels to fit and score a readout, {options.data!r} has none")
    train, test = train_test_split(dataset, options.test_fraction, options.seed)
    scaling = Scaling.fit(train.x)
    x, x_test = scaling.transform(train.x), scaling.transform(test.x)
    net = Network(layers).with_tau0(float(np.sqrt((x**2).sum() / len(x))))

    progress.enter("match")
    model = compress(net, x, widths=options.widths, sparsity=options.sparsity, rng=options.seed, method=options.method)
    if model.match is None:  # compress sets it whenever it matches activations
        raise InfeasibleError("no match was made")

    progress.enter("check kernels")
    kernels, spectrum = _check_kernels(net, model, x, train, options)

    accuracy = []
    progress.enter("fit dense network")
    accuracy.append(_fit_dense(net, options, x, train, x_test, test))
    progress.enter("fit ternary weights")
    weights_only = compress(
        net, x, widths=options.widths, sparsity=options.sparsity, rng=options.seed, activations="dense"
    )
    accuracy.append(_fit(weights_only, "ternary weights", options, x, train, x_test, test))
    progress.enter("fit ternary network")
    accuracy.append(_fit(model, "ternary", options, x, train, x_test, test))
    progress.leave()

    report = {
        "rmtntk": describe_environment()["rmtntk"],
        "options": asdict(options),
        "environment": describe_environment(),
        "data": {
            "name": dataset.name,
            "n_train": len(x),
            "n_test": len(x_test),
            "n_features": x.shape[1],
            "n_classes": len(model.classes),
            "tau0": net.tau0,
        },
        "match": {
            "method": model.match.method,
            "objective": model.match.objective,
            "feasible": model.match.feasible,
            "residual": model.match.residual,
            "excess": model.match.excess,
            "excess_bound": model.match.excess_bound,
            "message": model.match.message,
        },
        "layers": _describe_layers(net, model),
        "kernels": kernels,
        "accuracy": accuracy,
        "model": model.report(),
        "seconds": dict(progress.seconds),
    }
    return CompressionResult(model.with_preprocessing(scaling.mean, scaling.scale), report, spectrum)


def _describe_layers(net: Network, model: TernaryNetwork) -> list[dict[str, Any]]:
    if net.tau0 is None:
        raise ValueError("`net` must have its tau0 set")
    dense, ternary = coefficients(net, net.tau0), coefficients(model.net, net.tau0)
    rows = []
    for k in range(net.depth + 1):
        row: dict[str, Any] = {"layer": k}
        for name, table in (("dense", dense), ("ternary", ternary)):
            row[name] = {
                "tau": float(table.tau[k]),
                "alpha": [float(value) for value in table.alpha[k]],
            }
        if k:
            row["dense"]["activation"] = str(net.activations[k - 1])
            step = model.activations[k - 1]
            row["ternary"]["activation"] = str(step)
            row["ternary"]["thresholds"] = step.thresholds.tolist()
            row["ternary"]["levels"] = step.levels.tolist()
        rows.append(row)
    return rows


def _check_kernels(
    net: Network, model: TernaryNetwork, x: FloatArray, train: Dataset, options: CompressionOptions
) -> tuple[dict[str, Any], Spectrum]:
    """Compare the exact kernels of both networks, and the dense one with its equivalents."""
    index = check_labels(train.labels, len(x))[1]
    count = min(options.kernel_samples, len(x))
    chosen = np.random.default_rng(options.seed).permutation(len(x))[:count]
    chosen = chosen[np.argsort(index[chosen], kind="stable")]
    rows, classes = x[chosen], index[chosen]
    mixture = GaussianMixture.from_data(x, index, covariance="traces")
    dense, ternary = ck(net, rows), ck(model.net, rows)
    with warnings.catch_warnings():  # real data break the theorem's assumptions, and the report says by how much
        warnings.simplefilter("ignore", AssumptionWarning)
        forms: dict[str, Equivalent] = {
            "none": equivalent(net, rows, classes, mixture=mixture),
            "diagonal": equivalent(net, rows, classes, mixture=mixture, correction="diagonal"),
            "second_order": equivalent(net, rows, correction="second_order"),
        }
    difference = ternary - dense
    diagonal = np.diagonal(difference).copy()
    np.fill_diagonal(difference, 0.0)
    off = dense - np.diag(np.diagonal(dense))
    kernels = {
        "n_samples": count,
        "norm": operator_norm(dense),
        "ternary_vs_dense": {
            "off_diagonal": operator_norm(difference) / operator_norm(off),
            "off_diagonal_of_whole": operator_norm(difference) / operator_norm(dense),
            "mean_diagonal_excess": None if model.match is None else float(diagonal.mean() / model.match.unit),
        },
        "dense_vs_equivalent": {name: spectral_error(dense, form) for name, form in forms.items()},
        "finite_ternary_vs_infinite": _finite_error(model, rows, ternary),
    }
    matrices = {
        "dense": dense,
        "ternary": ternary,
        "equivalent": forms["none"].to_dense(),
        "second_order": forms["second_order"].to_dense(),
    }
    values, vectors = {}, {}
    for name, matrix in matrices.items():
        spectrum, basis = np.linalg.eigh(matrix)
        values[name] = spectrum[::-1].copy()
        leading = basis[:, ::-1][:, :2]
        vectors[name] = leading * np.where(leading.sum(axis=0) < 0.0, -1.0, 1.0)
    for name in ("ternary", "equivalent", "second_order"):  # eigenvectors have no sign: take the dense one's
        agreement = (vectors[name] * vectors["dense"]).sum(axis=0)
        vectors[name] *= np.where(agreement < 0.0, -1.0, 1.0)
    kernels["leading_eigenvalues"] = {name: [float(v) for v in value[:5]] for name, value in values.items()}
    kernels["eigenvector_alignment"] = {
        name: [float(abs(v)) for v in (vectors[name] * vectors["dense"]).sum(axis=0)]
        for name in ("ternary", "equivalent", "second_order")
    }
    return kernels, Spectrum(classes, values, vectors)


def _finite_error(model: TernaryNetwork, rows: FloatArray, infinite: FloatArray) -> float:
    features = model.features(rows)
    return spectral_error(infinite, features @ features.T)


def _fit_dense(
    net: Network,
    options: CompressionOptions,
    x: FloatArray,
    train: Dataset,
    x_test: FloatArray,
    test: Dataset,
) -> dict[str, Any]:
    """Gaussian weights and the network's own activations, at equal width, with the same readout."""
    names, index = check_labels(train.labels, len(x))
    network = FiniteNetwork.sample(net, options.widths, x.shape[1], options.seed)
    features = network.features(x)
    ridge = fit_ridge(features, np.eye(len(names))[index], options.alpha)

    def accuracy(values: FloatArray, labels: Any) -> float:
        best = (values @ ridge.coefficients + ridge.intercept).argmax(axis=1)
        return float(np.mean([names[k] == label for k, label in zip(best, labels.tolist(), strict=True)]))

    n_weights = sum(layer.size for layer in network.weights)
    return {
        "network": "dense",
        "train": accuracy(features, train.labels),
        "test": accuracy(network.features(x_test), test.labels),
        "alpha": ridge.alpha,
        "weight_bytes": 4 * n_weights,
        "note": "float32 Gaussian weights, dense activations",
    }


def _fit(
    model: TernaryNetwork,
    name: str,
    options: CompressionOptions,
    x: FloatArray,
    train: Dataset,
    x_test: FloatArray,
    test: Dataset,
) -> dict[str, Any]:
    model.fit(x, train.labels, options.alpha)
    if model.readout is None:
        raise RuntimeError("fit left no readout")
    return {
        "network": name,
        "train": model.score(x, train.labels),
        "test": model.score(x_test, test.labels),
        "alpha": model.readout.alpha,
        "weight_bytes": sum(layer.nbytes for layer in model.packed),
        "note": f"2-bit ternary weights, {'step' if model.is_ternary else 'dense'} activations",
    }
