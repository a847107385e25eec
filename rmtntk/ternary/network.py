"""The compressed network as a model: features, fit, predict, sizes."""

import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._activation import Activation
from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_data, check_labels, check_real
from rmtntk.matching import Match
from rmtntk.network import Network
from rmtntk.packing import PackedTernary, bits_per_weight
from rmtntk.readout import Ridge, fit_ridge
from rmtntk.ternary.forward import Forward
from rmtntk.ternary.parts import Preprocessing
from rmtntk.ternary.storage import read, write

__all__ = ["TernaryNetwork"]


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
        self.dense = dense
        self.net = net
        self.packed = tuple(packed)
        self.sparsity = sparsity
        self.match = match
        self.classes: list[Hashable] = list(classes)
        self.readout = readout
        self.preprocessing = preprocessing
        self.summary = dict(summary or {})
        self._forward = Forward(net, self.packed, sparsity)

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
        if self.preprocessing is not None:
            data = (data - self.preprocessing.mean) / self.preprocessing.scale
        return self._forward(data)

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
        return write(self, path)

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
        return cls(**read(path))
