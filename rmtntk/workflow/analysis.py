"""Kernels, equivalents and spectra of given data: what the commands of these names compute."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rmtntk import activations as activation_module
from rmtntk._progress import Stages
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_choice, check_integer, check_labels
from rmtntk.data import Scaling, load
from rmtntk.equivalents import equivalent, operator_norm
from rmtntk.errors import AssumptionWarning, ConvergenceError
from rmtntk.explain import explain
from rmtntk.kernels import ck, ntk
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network, input_rows, resolve_tau0
from rmtntk.spectra import LimitingSpectrum, limiting_spectrum
from rmtntk.workflow.verification import example_mixture

__all__ = [
    "FORMS",
    "EquivalentOptions",
    "KernelOptions",
    "SpectrumOptions",
    "forms",
    "run_equivalent",
    "run_kernel",
    "run_spectrum",
]

Kind = Literal["ck", "ntk"]
_LEADING = 10


def forms(degrees: Iterable[int] = (2, 4)) -> dict[str, dict[str, Any]]:
    """Return the forms of an equivalent by name, as options of :func:`rmtntk.equivalent`."""
    return {
        "theorem": {"correction": "none"},
        "exact diagonal": {"correction": "diagonal"},
        "class means": {"correction": "second_order", "quadratic": "class_means"},
        **{f"degree {degree}": {"correction": "second_order", "degree": degree} for degree in degrees},
    }


FORMS = forms()


@dataclass(frozen=True)
class KernelOptions:
    """A network, and the rows of a data set: what all three commands share."""

    data: str | None = None
    activations: str = "relu,relu,relu"
    kind: Kind = "ck"
    weight_std: float = 1.0
    bias_std: float = 0.0
    centered: bool = True
    input_scaling: Literal["unit", "fan_in"] = "unit"
    samples: int | None = None
    raw: bool = False
    seed: int = 0
    label_column: str | None = None
    dtype: Literal["float64", "float32"] = "float64"
    tau0: float | None = None

    def validate(self) -> Network:
        """Check everything that can be checked before data is read; return the network."""
        check_choice(self.kind, "kind", ("ck", "ntk"))
        check_choice(self.dtype, "dtype", ("float64", "float32"))
        check_integer(self.seed, "seed", low=0)
        if self.samples is not None:
            check_integer(self.samples, "samples", low=8)
        return Network(
            activation_module.parse(self.activations),
            weight_std=self.weight_std,
            bias_std=self.bias_std,
            centered=self.centered,
            input_scaling=self.input_scaling,
            tau0=self.tau0,
        )

    def read(self) -> tuple[str, FloatArray, Any]:
        """Return the data's name, rows (centred and scaled to mean squared norm 1 unless raw) and labels, if any."""
        if self.data is None:
            raise ValueError("`data` must name a data set: mnist5k, or a .npz, .csv, IDX or CIFAR-10 file")
        found = load(self.data, label_column=self.label_column)
        x = np.asarray(found.x, dtype=np.float64) if self.raw else Scaling.fit(found.x).transform(found.x)
        labels = found.labels
        if self.samples is not None and self.samples < len(x):
            rows = np.sort(np.random.default_rng(self.seed).permutation(len(x))[: self.samples])
            x, labels = x[rows], None if labels is None else labels[rows]
        return found.name, x, labels


@dataclass(frozen=True)
class EquivalentOptions(KernelOptions):
    """Options of ``rmtntk equivalent``."""

    samples: int | None = 1000


@dataclass(frozen=True)
class SpectrumOptions(KernelOptions):
    """Options of ``rmtntk spectrum``; without data, a mixture of two classes in `features` dimensions is drawn."""

    samples: int | None = 1000
    features: int = 1000
    covariance: Literal["scalar", "diagonal", "full"] = "scalar"

    def validate(self) -> Network:
        """Check everything that can be checked before data is read; return the network."""
        check_integer(self.features, "features", low=16)
        check_choice(self.covariance, "covariance", ("scalar", "diagonal", "full"))
        if self.data is None and self.samples is None:
            raise ValueError("`samples` must be given without data: how many rows are to be drawn")
        return super().validate()


def _about(options: KernelOptions, name: str, net: Network, x: FloatArray, labels: Any) -> dict[str, Any]:
    return {
        "data": name,
        "n_samples": len(x),
        "n_features": x.shape[1],
        "n_classes": None if labels is None else len(check_labels(labels, len(x))[0]),
        "network": str(net),
        "kind": options.kind,
        "weight_std": net.weight_std,
        "bias_std": net.bias_std,
        "centered": net.centered,
        "input_scaling": net.input_scaling,
        "tau0": resolve_tau0(net, input_rows(net, x)),
    }


def run_kernel(options: KernelOptions, progress: Stages) -> tuple[AnyArray, dict[str, Any]]:
    """Compute a kernel of a data set; return it and what is known about it."""
    net = options.validate()
    progress.enter("read data")
    name, x, labels = options.read()
    progress.enter(f"{options.kind.upper()} of {len(x):,} samples")
    kernel, error = (ck if options.kind == "ck" else ntk)(net, x, dtype=np.dtype(options.dtype), return_error=True)
    progress.leave()
    return kernel, {
        **_about(options, name, net, x, labels),
        "dtype": options.dtype,
        "truncation_error": error,
        "trace": float(np.trace(kernel, dtype=np.float64)),
        "seconds": dict(progress.seconds),
    }


def run_equivalent(options: EquivalentOptions, progress: Stages) -> dict[str, Any]:
    """Measure every form of the equivalent against the exact kernel of a data set.

    A form, or the account of the layers, that has no answer for this network and data says why in ``failures``, under
    its name or "explanation"; the others are not concerned.
    """
    net = options.validate()
    progress.enter("read data")
    name, x, labels = options.read()
    about = _about(options, name, net, x, labels)
    net = net.with_tau0(about["tau0"])
    failures: dict[str, str] = {}
    account = None
    try:
        account = explain(net, about["tau0"])
    except (ValueError, ConvergenceError) as error:
        failures["explanation"] = str(error)
    progress.enter("exact kernel")
    kernel = np.asarray((ck if options.kind == "ck" else ntk)(net, x))
    size = operator_norm(kernel)
    errors, values = {}, {"exact": _leading(kernel)}
    for form, more in FORMS.items():
        progress.enter(form)
        try:
            dense = equivalent(net, x, labels, kind=options.kind, **more).to_dense()
        except (ValueError, ConvergenceError) as error:
            failures[form] = str(error)
            continue
        errors[form] = operator_norm(kernel - dense) / size
        values[form] = _leading(dense)
    progress.leave()
    numbers = None
    if account is not None:
        c1, c2, c3 = account.coefficients.linear(options.kind)
        numbers = {"c1": c1, "c2": c2, "c3": c3, "c": account.coefficients.shift(options.kind)}
    return {
        **about,
        "coefficients": numbers,
        "explanation": None if account is None else str(account),
        "norm": size,
        "errors": errors,
        "failures": failures,
        "leading_eigenvalues": values,
    }


def _leading(matrix: FloatArray) -> list[float]:
    return [float(value) for value in np.linalg.eigvalsh(matrix)[::-1][:_LEADING]]


def run_spectrum(options: SpectrumOptions, progress: Stages) -> tuple[dict[str, Any], LimitingSpectrum, FloatArray]:
    """Predict a spectrum from the population, and compare it with the exact kernel's; return both as well."""
    net = options.validate()
    progress.enter("data")
    if options.data is None:
        count = options.samples or 0
        mixture = example_mixture(options.features)
        name = "two-class mixture"
        x, labels = mixture.sample(count, options.seed, stratified=True)
        if net.tau0 is None:
            net = net.with_tau0(mixture.tau0 * float(np.sqrt(net.input_factor(options.features))))
    else:
        name, x, labels = options.read()
        given = np.zeros(len(x), dtype=np.int64) if labels is None else labels
        mixture = GaussianMixture.from_data(x, given, covariance=options.covariance)
    about = _about(options, name, net, x, labels)
    net = net.with_tau0(about["tau0"])
    progress.enter("limiting spectrum")
    with warnings.catch_warnings(record=True) as noted:  # they are part of the answer
        warnings.simplefilter("always", AssumptionWarning)
        limit = limiting_spectrum(net, mixture, len(x), kind=options.kind)
    progress.enter("exact kernel")
    kernel = np.asarray((ck if options.kind == "ck" else ntk)(net, x))
    values, vectors = np.linalg.eigh(kernel)
    progress.enter("comparison")
    onehot = np.eye(mixture.n_classes)[_indices(labels, mixture, len(x))]
    onehot /= np.maximum(1.0, np.sqrt(onehot.sum(axis=0)))
    above = [z for z in limit.outliers if z > (limit.edges.max() if limit.edges.size else limit.shift)]
    leading = vectors[:, ::-1][:, : max(1, len(above))]
    commuting = mixture.covariances.ndim < 3  # what the law at finite n asks for
    distance = _distance(values, limit.cdf(values, finite_size=commuting))
    progress.leave()
    return (
        {
            **about,
            "covariance": "population" if options.data is None else options.covariance,
            "warnings": [str(note.message) for note in noted],
            "edges": limit.edges,
            "atoms": [list(atom) for atom in limit.atoms],
            "outliers": limit.outliers,
            "spread": limit.spread,
            "alignments": limit.alignments,
            "classes": [str(label) for label in mixture.classes],
            "exact_leading": values[::-1][: leading.shape[1]],
            "exact_alignments": ((onehot.T @ leading) ** 2).T,
            "exact_range": [float(values[0]), float(values[-1])],
            "kolmogorov_distance": distance,
            "law": "finite n" if commuting else "limit",
        },
        limit,
        values,
    )


def _distance(values: FloatArray, law: FloatArray) -> float:
    """Kolmogorov distance of ascending eigenvalues to a law with these values there."""
    steps = np.arange(1, len(values) + 1) / len(values)
    return float(max(np.abs(steps - law).max(), np.abs(steps - 1.0 / len(values) - law).max()))


def _indices(labels: Any, mixture: GaussianMixture, n: int) -> Any:
    if labels is None or mixture.n_classes == 1:
        return np.zeros(n, dtype=np.int64)
    return check_labels(labels, n)[1]
