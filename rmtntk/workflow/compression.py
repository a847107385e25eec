"""The main job: real data in, a ternary network out, with the proof that both have the same kernels."""

import warnings
from dataclasses import asdict, dataclass
from functools import partial
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
from rmtntk.packing import PACKINGS, measure
from rmtntk.readout import fit_logistic, fit_ridge
from rmtntk.ternary import TernaryNetwork, compress, input_quantiser
from rmtntk.ternary.storage import recipes
from rmtntk.workflow.environment import describe_environment

__all__ = ["STAGES", "CompressionOptions", "CompressionResult", "Spectrum", "run_compression"]

STAGES = 8
_LADDER = (4, 8)  # numbers of levels fitted beside the model, to show what a level is worth


@dataclass(frozen=True)
class CompressionOptions:
    """Options of ``rmtntk compress``; see ``rmtntk compress --help``."""

    data: str = "mnist5k"
    activations: str = "relu,relu,relu"
    widths: tuple[int, ...] = (2000, 2000, 1000)
    sparsity: float = 0.9
    method: Literal["tight", "data", "layerwise", "paper"] = "tight"
    levels: int | None = None
    spacing: Literal["equal", "free"] = "equal"
    input_bits: int | None = None
    readout: Literal["ridge", "logistic"] = "ridge"
    readout_bits: Literal[8, 2] | None = None
    packing: Literal["auto", "2bit", "trit", "bitmap", "entropy", "seed"] = "auto"
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
        check_choice(self.spacing, "spacing", ("equal", "free"))
        check_choice(self.readout, "readout", ("ridge", "logistic"))
        check_choice(self.packing, "packing", ("auto", *PACKINGS))
        if self.levels is not None:
            check_integer(self.levels, "levels", low=2, high=8)
        if self.input_bits is not None:
            check_integer(self.input_bits, "input_bits", low=1, high=8)
        if self.readout_bits not in (None, 8, 2):
            raise ValueError(f"`readout_bits` must be 8, 2 or None, got {self.readout_bits!r}")
        check_real(self.test_fraction, "test_fraction", low=0.0, high=1.0, open_low=True, open_high=True)
        check_integer(self.kernel_samples, "kernel_samples", low=10)
        check_integer(self.seed, "seed", low=0)
        if self.alpha is not None:
            check_real(self.alpha, "alpha", low=0.0)
            if self.readout == "logistic" and self.alpha == 0.0:
                raise ValueError(
                    "`alpha` must be positive for the logistic readout, got 0: its scores grow without bound where "
                    "classes can be told apart; leave it out to choose it on held-out samples, or take ridge"
                )
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
    build = partial(
        compress, net, x, widths=options.widths, sparsity=options.sparsity, rng=options.seed, method=options.method
    )
    bare = build(levels=options.levels, spacing=options.spacing)
    if bare.match is None:  # compress sets it whenever it matches activations
        raise InfeasibleError("no match was made")

    progress.enter("check kernels")
    kernels, spectrum = _check_kernels(net, bare, x, train, options)

    progress.enter("fit dense network")
    fits = _Fits(net, options, scaling, train, test)
    accuracy = [fits.dense(options.widths, "dense")]
    progress.enter("fit ternary weights")
    accuracy.append(fits.ternary(fits.raw(build(activations="dense", method="tight")), "ternary weights"))
    progress.enter("fit ternary network")
    model = fits.raw(bare)
    accuracy.append(fits.ternary(model, "ternary"))
    progress.enter("fit more levels")
    for count in _LADDER if options.method in ("data", "tight") and options.levels is None else ():
        other = build(levels=count, spacing=options.spacing)
        accuracy.append(fits.ternary(fits.raw(other), f"{count} levels"))
    progress.enter("fit dense network of the same bytes")
    accuracy.append(
        fits.dense(_widths_for(accuracy[2]["stored_bytes"], x.shape[1], options.widths), "dense, same bytes")
    )
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
            "method": bare.match.method,
            "objective": bare.match.objective,
            "feasible": bare.match.feasible,
            "residual": bare.match.residual,
            "excess": bare.match.excess,
            "excess_bound": bare.match.excess_bound,
            "message": bare.match.message,
        },
        "layers": _describe_layers(net, model),
        "kernels": kernels,
        "accuracy": accuracy,
        "model": model.report(),
        "seconds": dict(progress.seconds),
    }
    return CompressionResult(model, report, spectrum)


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


def _widths_for(stored: int, n_features: int, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Widths in the same proportion whose float32 weights take about so many bytes."""

    def size(factor: float) -> int:
        scaled = [max(round(factor * width), 1) for width in widths]
        return 4 * sum(a * b for a, b in zip(scaled, (n_features, *scaled[:-1]), strict=True))

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if size(middle) <= stored else (low, middle)
    return tuple(max(round(low * width), 1) for width in widths)


def _kind(model: TernaryNetwork) -> str:
    if not model.is_ternary:
        return "the network's own activations"
    return f"activations of {max(len(set(act.levels.tolist())) for act in model.activations)} levels"


def _readout(bits: int) -> str:
    return "readout in float64" if bits == 64 else f"readout in {bits} bits"


@dataclass(frozen=True, eq=False)
class _Fits:
    """Fit and score networks on one split; ternary ones take raw data."""

    net: Network
    options: CompressionOptions
    scaling: Scaling
    train: Dataset
    test: Dataset

    def raw(self, model: TernaryNetwork) -> TernaryNetwork:
        """Let the model take data as read."""
        bits = self.options.input_bits
        quantiser = None if bits is None else input_quantiser(self.train.x, bits)
        return model.with_preprocessing(self.scaling.mean, self.scaling.scale, quantiser=quantiser)

    def dense(self, widths: tuple[int, ...], name: str) -> dict[str, Any]:
        """Gaussian weights and the network's own activations, with a readout of the same kind, never rounded."""
        x, x_test = self.scaling.transform(self.train.x), self.scaling.transform(self.test.x)
        names, index = check_labels(self.train.labels, len(x))
        network = FiniteNetwork.sample(self.net, widths, x.shape[1], self.options.seed)
        features, targets = network.features(x), np.eye(len(names))[index]
        fit = fit_ridge if self.options.readout == "ridge" else fit_logistic
        readout = fit(features, targets, self.options.alpha)

        def accuracy(values: FloatArray, labels: Any) -> float:
            best = readout.scores(values).argmax(axis=1)
            return float(np.mean([names[k] == label for k, label in zip(best, labels.tolist(), strict=True)]))

        size = 4 * sum(layer.size for layer in network.weights)
        return {
            "network": name,
            "train": accuracy(features, self.train.labels),
            "test": accuracy(network.features(x_test), self.test.labels),
            "alpha": readout.alpha,
            "weight_bytes": size,
            "stored_bytes": size,
            "readout_bits": readout.bits,
            "note": f"float32 Gaussian weights, dense activations, widths {', '.join(map(str, widths))}, "
            f"{_readout(readout.bits)}",
        }

    def ternary(self, model: TernaryNetwork, name: str) -> dict[str, Any]:
        """Fit a model on raw data, whatever its activations."""
        options = self.options
        model.fit(self.train.x, self.train.labels, options.alpha, readout=options.readout, bits=options.readout_bits)
        if model.readout is None:
            raise RuntimeError("fit left no readout")
        sizes = measure(model.packed, recipes(model))
        return {
            "network": name,
            "train": model.score(self.train.x, self.train.labels),
            # Test inputs may leave the range that quantised ones were seen in: cut, with a warning that counts them.
            "test": float((model.predict(self.test.x, out_of_range="clip") == self.test.labels).mean()),
            "alpha": model.readout.alpha,
            "weight_bytes": sum(layer.nbytes for layer in model.packed),
            "stored_bytes": int(sizes[options.packing]),
            "readout_bits": model.readout.bits,
            "note": f"ternary weights, {_kind(model)}, {_readout(model.readout.bits)}",
        }
