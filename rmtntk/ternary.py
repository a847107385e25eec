r"""Networks with ternary weights and, if wanted, ternary activations: sampled, packed, fitted, saved.

Hidden arithmetic is exact. A three-level activation is level = A z + B with small integers z, so that the
next pre-activation is s·(A T z + (B − m) rowsum(T)) with T ternary: T z is an integer, computed without
rounding, and the comparison with the thresholds does not depend on summation order or threads.
"""

import json
import os
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk import activations as activation_module
from rmtntk._typing import FloatArray, Seed
from rmtntk._validation import (
    as_generator,
    check_array,
    check_choice,
    check_data,
    check_labels,
    check_real,
    check_widths,
)
from rmtntk.activations import Activation
from rmtntk.errors import InfeasibleError, ModelFileError
from rmtntk.matching import Match, match
from rmtntk.modelfile import read_model, write_model
from rmtntk.network import LayerScales, Network, check_functions, input_rows, layer_scales, resolve_tau0
from rmtntk.packing import PackedTernary, bits_per_weight, pack, sample_ternary
from rmtntk.readout import Ridge, fit_ridge

__all__ = ["Preprocessing", "TernaryNetwork", "compress"]

_BATCH = 4096
_ROWS_AT_ONCE = 2048


class Preprocessing(NamedTuple):
    """Raw inputs become (x − mean)/scale."""

    mean: FloatArray
    scale: float


class _Integers(NamedTuple):
    """levels = amplitude · codes + offset with small integer codes."""

    codes: NDArray[np.float32]
    amplitude: float
    offset: float


class TernaryNetwork:
    """A random network with weights in {−1, 0, 1}; made by :func:`compress` or :meth:`load`.

    Attributes
    ----------
    dense : Network
        The network it stands for, with its τ_0.
    net : Network
        The infinite-width network it is a sample of: `dense` with the matched activations.
    packed : tuple of PackedTernary
        Weights of every layer, two bits each.
    sparsity : float
        Nominal share of zero weights; weights are scaled by (1 − sparsity)^{-1/2}.
    match : Match or None
        How the activations were found (None for dense activations and after :meth:`load`).
    classes : list
        Labels seen by :meth:`fit`, empty before.
    readout : Ridge or None
        The fitted readout.
    preprocessing : Preprocessing or None
        Applied to every input first, so that a saved model takes raw data.
    """

    def __init__(
        self,
        dense: Network,
        net: Network,
        packed: Sequence[PackedTernary],
        sparsity: float,
        *,
        match: Match | None = None,
        classes: Sequence[Hashable] = (),
        readout: Ridge | None = None,
        preprocessing: Preprocessing | None = None,
        summary: dict[str, float] | None = None,
    ) -> None:
        if net.tau0 is None:
            raise ValueError("`net` must have its tau0 set")
        self.dense = dense
        self.net = net
        self.packed = tuple(packed)
        self.sparsity = sparsity
        self.match = match
        self.classes: list[Hashable] = list(classes)
        self.readout = readout
        self.preprocessing = preprocessing
        self.summary = dict(summary or {})
        self._scales: LayerScales = layer_scales(net, net.tau0)
        self._rowsums = [_row_sums(layer) for layer in self.packed]

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of every layer."""
        return tuple(layer.shape[0] for layer in self.packed)

    @property
    def n_features(self) -> int:
        """Input dimension p."""
        return self.packed[0].shape[1]

    @property
    def weights(self) -> tuple[NDArray[np.int8], ...]:
        """Weights of every layer as int8 in {−1, 0, 1}, unpacked on access."""
        return tuple(layer.unpack() for layer in self.packed)

    @property
    def activations(self) -> tuple[Activation, ...]:
        """Activation of every layer."""
        return self.net.activations

    @property
    def is_ternary(self) -> bool:
        """Whether the activations too take few values."""
        return all(act.is_step for act in self.net.activations)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights, thresholds, levels and readout in memory."""
        total = sum(layer.nbytes for layer in self.packed)
        for act in self.activations:
            total += 8 * len(act.breakpoints) + (8 * (len(act.breakpoints) + 1) if act.is_step else 0)
        if self.readout is not None:
            total += self.readout.coefficients.nbytes + self.readout.intercept.nbytes
        if self.preprocessing is not None:
            total += self.preprocessing.mean.nbytes + 8
        return total

    def with_preprocessing(self, mean: ArrayLike, scale: float) -> "TernaryNetwork":
        """Return the same model for raw inputs x, of which it uses (x − mean)/scale."""
        vector = check_array(mean, "mean", 1)
        if len(vector) != self.n_features:
            raise ValueError(f"`mean` must have {self.n_features} entries, got {len(vector)}")
        step = Preprocessing(vector, check_real(scale, "scale", low=0.0, open_low=True))
        return TernaryNetwork(
            self.dense, self.net, self.packed, self.sparsity, match=self.match, classes=self.classes,
            readout=self.readout, preprocessing=step, summary=self.summary,
        )  # fmt: skip

    def features(self, x: ArrayLike) -> FloatArray:
        """Return the features of the last layer, shape (n, widths[-1]); their Gram matrix approaches the CK.

        Costs O(n Σ d_l d_{l−1}); at most 4096 rows are in work at a time.
        """
        data = check_data(x)
        if data.shape[1] != self.n_features:
            raise ValueError(f"`x` must have the model's {self.n_features} features, got {data.shape[1]}")
        out = np.empty((len(data), self.widths[-1]))
        for start in range(0, len(data), _BATCH):
            part = slice(start, start + _BATCH)
            out[part] = self._forward(data[part])
        return out

    def _forward(self, data: FloatArray) -> FloatArray:
        if self.preprocessing is not None:
            data = (data - self.preprocessing.mean) / self.preprocessing.scale
        gain = self.net.weight_std / np.sqrt(1.0 - self.sparsity)
        u = _product(input_rows(self.net, data), self.packed[0]) * gain
        for k, act in enumerate(self.activations):
            root = np.sqrt(self.widths[k])
            centre = float(self._scales.centre[k])
            last = k == len(self.packed) - 1
            integers = _integers(act) if act.is_step else None
            if last or integers is None:
                f = (act(u) - centre) / root
                if last:
                    return f
                u = _product(f, self.packed[k + 1]) * gain
            else:
                codes = integers.codes[np.searchsorted(act.thresholds, u, side="right")]
                sums = _product(codes, self.packed[k + 1]).astype(np.float64)
                sums *= integers.amplitude
                sums += (integers.offset - centre) * self._rowsums[k + 1]
                u = sums * (gain / root)
        raise AssertionError("unreachable: a network has at least one layer")

    def fit(self, x: ArrayLike, labels: Any, alpha: float | None = None) -> "TernaryNetwork":
        """Fit a ridge readout to one-hot labels.

        Parameters
        ----------
        x : array_like, shape (n, p)
            Training samples.
        labels : sequence of hashable, shape (n,)
            Their classes, at least two different ones.
        alpha : float, optional
            Ridge penalty in units of the features' Gram matrix; chosen by generalised cross-validation if
            not given.

        Returns
        -------
        TernaryNetwork
            The model itself.
        """
        data = check_data(x)
        classes, index = check_labels(labels, len(data))
        if len(classes) < 2:
            raise ValueError(f"`labels` must hold at least two classes, got only {classes[0]!r}")
        if alpha is not None:
            alpha = check_real(alpha, "alpha", low=0.0)
        self.readout = fit_ridge(self.features(data), np.eye(len(classes))[index], alpha)
        self.classes = classes
        return self

    def decision_function(self, x: ArrayLike) -> FloatArray:
        """Return the readout's scores, shape (n, number of classes)."""
        if self.readout is None:
            raise ValueError("the model has no readout yet: call fit(x, labels) first")
        return np.asarray(self.features(x) @ self.readout.coefficients + self.readout.intercept)

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the label of every row, of the type that `fit` received."""
        best = self.decision_function(x).argmax(axis=1)
        table = np.empty(len(self.classes), dtype=object)
        table[:] = self.classes
        labels = table[best]
        kinds = {type(value) for value in self.classes}
        return np.array(labels.tolist()) if len(kinds) == 1 and kinds <= {int, float, str, bool} else labels

    def score(self, x: ArrayLike, labels: Any) -> float:
        """Return the share of rows whose predicted label is right."""
        predicted = self.predict(x)
        truth = list(labels.tolist() if isinstance(labels, np.ndarray) else labels)
        if len(truth) != len(predicted):
            raise ValueError(f"`labels` must have one entry per sample, {len(predicted)}, got {len(truth)}")
        return float(np.mean([a == b for a, b in zip(predicted.tolist(), truth, strict=True)]))

    def report(self) -> dict[str, Any]:
        """Return sizes and quality: real bytes, bytes in other packings, the match's residual and excess."""
        n_weights = sum(layer.size for layer in self.packed)
        zeros = 1.0 - sum(layer.n_nonzero for layer in self.packed) / n_weights
        packings = {name: int(np.ceil(n_weights * bits / 8.0)) for name, bits in bits_per_weight(zeros).items()}
        return {
            "activations": [str(act) for act in self.activations],
            "widths": list(self.widths),
            "n_weights": n_weights,
            "share_of_zeros": zeros,
            "weight_bytes": sum(layer.nbytes for layer in self.packed),
            "weight_bytes_by_packing": packings,
            "readout_bytes": 0
            if self.readout is None
            else int(self.readout.coefficients.nbytes + self.readout.intercept.nbytes),
            "total_bytes": self.nbytes,
            "alpha": None if self.readout is None else self.readout.alpha,
            **self.summary,
        }

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the model to a file, whole or not at all; return the file's size in bytes.

        Raises
        ------
        ValueError
            If the activations are custom functions, or the labels are not numbers, strings or booleans.
        """
        header = {
            "dense": _describe(self.dense),
            "net": _describe(self.net),
            "columns": [layer.columns for layer in self.packed],
            "sparsity": self.sparsity,
            "classes": _storable(self.classes),
            "alpha": None if self.readout is None else self.readout.alpha,
            "gcv": None if self.readout is None else self.readout.gcv,
            "scale": None if self.preprocessing is None else self.preprocessing.scale,
            "summary": self.summary,
        }
        arrays: dict[str, NDArray[Any]] = {}
        for k, layer in enumerate(self.packed):
            arrays[f"nonzero{k}"], arrays[f"negative{k}"] = layer.nonzero, layer.negative
        if self.readout is not None:
            arrays["coefficients"], arrays["intercept"] = self.readout.coefficients, self.readout.intercept
        if self.preprocessing is not None:
            arrays["mean"] = self.preprocessing.mean
        return write_model(path, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TernaryNetwork":
        """Read a model written by :meth:`save`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ModelFileError
            If the file is foreign, truncated, altered or of another version.
        """
        header, arrays = read_model(path)
        try:
            packed = [
                PackedTernary(arrays[f"nonzero{k}"], arrays[f"negative{k}"], int(columns))
                for k, columns in enumerate(header["columns"])
            ]
            readout = None
            if "coefficients" in arrays:
                gcv = float("inf") if header["gcv"] is None else float(header["gcv"])
                readout = Ridge(arrays["coefficients"], arrays["intercept"], float(header["alpha"]), gcv)
            preprocessing = Preprocessing(arrays["mean"], float(header["scale"])) if "mean" in arrays else None
            return cls(
                _network(header["dense"]), _network(header["net"]), packed, float(header["sparsity"]),
                classes=header["classes"], readout=readout, preprocessing=preprocessing, summary=header["summary"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path} has a header this rmtntk does not understand: {error!r}") from error


def compress(
    net: Network,
    x: ArrayLike,
    *,
    widths: Sequence[int],
    sparsity: float = 0.0,
    rng: Seed,
    method: Literal["tight", "layerwise", "paper"] = "tight",
    activations: Literal["ternary", "dense"] = "ternary",
) -> TernaryNetwork:
    """Replace a network by a random one with ternary weights and the same asymptotic kernels.

    Parameters
    ----------
    net : Network
        Centred, without biases.
    x : array_like, shape (n, p)
        Training samples; they set τ_0 if the network has none.
    widths : sequence of int
        Width of every layer.
    sparsity : float
        Probability in [0, 1) that a weight is 0.
    rng : Generator or int
        Source of the weights.
    method : {"tight", "layerwise", "paper"}
        How step activations are matched (:func:`rmtntk.match`).
    activations : {"ternary", "dense"}
        "dense" keeps the network's own activations: ternary weights alone cost nothing asymptotically.

    Raises
    ------
    InfeasibleError
        If no step activations match; the message says why.
    TypeError, ValueError
        If an argument is outside its domain.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), section 4.
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    data = check_data(x)
    sizes = check_widths(widths, net.depth)
    sparsity = check_real(sparsity, "sparsity", low=0.0, high=1.0, open_high=True)
    check_choice(activations, "activations", ("ternary", "dense"))
    if net.bias_std != 0.0 or not net.centered:
        raise ValueError("`net` must have centered=True and bias_std=0 to be compressed")
    check_functions(net, "there is nothing to apply to the neurons")
    dense = net.with_tau0(resolve_tau0(net, input_rows(net, data)))
    found: Match | None = None
    matched = dense
    summary: dict[str, float] = {}
    if activations == "ternary":
        found = match(dense, method=method)
        if not found.activations or (not found.feasible and method != "paper"):
            raise InfeasibleError(found.message)
        matched = dense.with_activations(found.activations)
        summary = {"residual": found.residual, "excess": found.excess}
    generator = as_generator(rng)
    layers = [
        pack(sample_ternary(rows, columns, sparsity, generator))
        for rows, columns in zip(sizes, (data.shape[1], *sizes[:-1]), strict=True)
    ]
    return TernaryNetwork(dense, matched, layers, sparsity, match=found, summary=summary)


def _integers(act: Activation) -> _Integers | None:
    """Write three levels as A z + B with z in {−1, 0, 1}, if they are equally spaced or two coincide."""
    levels = act.levels
    distinct = np.unique(levels)
    if len(distinct) == 1 or len(distinct) > 3:
        return None
    middle = distinct[len(distinct) // 2]
    amplitude = float(np.abs(distinct - middle).max())
    codes = (levels - middle) / amplitude
    if not np.isin(codes, (-1.0, 0.0, 1.0)).all():
        return None
    return _Integers(codes.astype(np.float32), amplitude, float(middle))


def _row_sums(layer: PackedTernary) -> FloatArray:
    return np.concatenate(
        [
            layer.unpack(slice(start, start + _ROWS_AT_ONCE)).sum(axis=1, dtype=np.int64)
            for start in range(0, layer.shape[0], _ROWS_AT_ONCE)
        ]
    ).astype(np.float64)


def _product(left: NDArray[Any], layer: PackedTernary) -> NDArray[Any]:
    """Left @ Tᵀ in left's type, unpacking a block of rows of T at a time; exact for small integers."""
    out = np.empty((len(left), layer.shape[0]), dtype=left.dtype)
    for start in range(0, layer.shape[0], _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        np.matmul(left, layer.unpack(part).astype(left.dtype).T, out=out[:, part])
    return out


def _describe(net: Network) -> dict[str, Any]:
    for act in net.activations:
        if act.name == "custom":
            raise ValueError("a custom activation cannot be written to a file: use a named one, or pickle the model")
    return {
        "activations": [[act.name, dict(act.parameters)] for act in net.activations],
        "weight_std": net.weight_std,
        "bias_std": net.bias_std,
        "centered": net.centered,
        "input_scaling": net.input_scaling,
        "tau0": net.tau0,
    }


def _network(fields: dict[str, Any]) -> Network:
    layers = [activation_module.get(name, **parameters) for name, parameters in fields["activations"]]
    options = {key: value for key, value in fields.items() if key != "activations"}
    return Network(layers, **options)


def _storable(classes: list[Hashable]) -> list[Hashable]:
    for value in classes:
        if not isinstance(value, int | float | str | bool):
            raise ValueError(f"labels must be numbers, strings or booleans to be written to a file, got {value!r}")
    return json.loads(json.dumps(classes))
