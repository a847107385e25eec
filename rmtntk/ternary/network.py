"""The compressed network as a model: features, fit, predict, sizes."""

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._activation import Activation
from rmtntk._memory import check_memory
from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_choice, check_real, label_list
from rmtntk.integer import OutOfRange
from rmtntk.matching import Match
from rmtntk.network import Network
from rmtntk.packing import PackedTernary, WeightKey
from rmtntk.readout import Readout, softmax
from rmtntk.readout.targets import Targets, decode_labels
from rmtntk.ternary.export_c import export_c
from rmtntk.ternary.fitting import Samples, add_samples, check_bits, fit_readout, solve
from rmtntk.ternary.forward import Forward
from rmtntk.ternary.integer_readout import fold_fitted
from rmtntk.ternary.parts import InputQuantiser, Preprocessing
from rmtntk.ternary.rows import Rows, check_rows
from rmtntk.ternary.sizes import report, sizes
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
    preprocessing : Preprocessing or None
        Applied to every input first, so that a saved model takes raw data.
    quantiser : InputQuantiser or None
        Inputs become integers first, and the first layer is integer arithmetic too.
    key : WeightKey or None
        What the weights are made from, if they can be made again.
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
        readout: Readout | None = None,
        preprocessing: Preprocessing | None = None,
        quantiser: InputQuantiser | None = None,
        key: WeightKey | None = None,
        summary: dict[str, float] | None = None,
    ) -> None:
        self.dense = dense
        self.net = net
        self.packed = tuple(packed)
        self.sparsity = sparsity
        self.match = match
        self.preprocessing = preprocessing
        self.quantiser = quantiser
        self.key = key
        self.summary = dict(summary or {})
        self._classes: list[Hashable] = list(classes)
        self._readout = readout
        self._samples: Samples | None = None
        self._is_pending = False  # samples came after the readout was solved
        self._forward = Forward(net, self.packed, sparsity, quantiser=quantiser, preprocessing=preprocessing)

    @property
    def classes(self) -> list[Hashable]:
        """Labels of the readout's columns, empty before a fit."""
        self._solve_pending()
        return self._classes

    @property
    def readout(self) -> Readout | None:
        """The fitted readout."""
        self._solve_pending()
        return self._readout

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
        """Bytes of the packed weights, thresholds, levels, readout and preprocessing in memory."""
        return sum(sizes(self).values())

    def with_preprocessing(
        self, mean: ArrayLike, scale: float, *, quantiser: InputQuantiser | None = None
    ) -> "TernaryNetwork":
        """Return the same model for raw inputs x, of which it uses (x − mean)/scale.

        Parameters
        ----------
        mean : array_like, shape (p,)
        scale : float
        quantiser : InputQuantiser, optional
            Rounds the raw inputs first. A model with a quantiser, which was for its own inputs, needs a new one.

        Raises
        ------
        TypeError, ValueError
            If an argument is outside its domain, or the model has a quantiser and none is given for raw inputs.

        Notes
        -----
        What :meth:`partial_fit` has gathered stays with the model it was called on.
        """
        if self.quantiser is not None and quantiser is None:
            raise ValueError("the model quantises its inputs: pass `quantiser` for the raw ones")
        vector = check_array(mean, "mean", 1)
        if len(vector) != self.n_features:
            raise ValueError(f"`mean` must have {self.n_features} entries, got {len(vector)}")
        step = Preprocessing(vector, check_real(scale, "scale", low=0.0, open_low=True))
        return TernaryNetwork(
            self.dense, self.net, self.packed, self.sparsity, match=self.match, classes=self.classes,
            readout=self.readout, preprocessing=step, quantiser=quantiser, key=self.key, summary=self.summary,
        )  # fmt: skip

    def features(self, x: ArrayLike, *, out_of_range: OutOfRange = "error") -> FloatArray:
        """Return the features of the last layer, shape (n, widths[-1]); their Gram matrix approaches the CK.

        Costs O(n Σ d_l d_{l−1}).

        Parameters
        ----------
        x : array_like, shape (n, p)
            Samples; bytes are taken as they are where inputs are quantised.
        out_of_range : {"error", "clip"}
            For quantised inputs outside the range of the quantiser: raise, or cut them and warn with their number.

        Raises
        ------
        ValueError
            If `x` is not a finite matrix of the model's columns, or has entries out of range.
        MemoryLimitError
            If the features would not fit into memory.
        """
        check_choice(out_of_range, "out_of_range", ("error", "clip"))
        data = check_rows(self._forward, x, "x")
        advice = "take rows in parts; predict does, and fit holds no features of a large x"
        check_memory(8 * len(data) * self.widths[-1], f"features of {len(data)} samples", advice)
        return self._forward(data, out_of_range=out_of_range)

    def fit(
        self,
        x: ArrayLike,
        labels: Any = None,
        alpha: float | None = None,
        *,
        teacher: Any = None,
        classes: Sequence[Hashable] | None = None,
        readout: Literal["ridge", "logistic"] = "ridge",
        bits: Literal[8, 2] | None = None,
        out_of_range: OutOfRange = "error",
    ) -> "TernaryNetwork":
        """Fit a readout to labels, or to the outputs of a teacher.

        Parameters
        ----------
        x : array_like, shape (n, p)
            Training samples. Arrays on disk (numpy.memmap, Zarr, HDF5) are read 4096 rows at a time.
        labels : sequence of hashable, shape (n,)
            Their classes, at least two different ones.
        alpha : float, optional
            Penalty in units of the features' centred Gram matrix; if not given, chosen by generalised cross-validation
            (ridge) or on a fifth of the samples held out (logistic).
        teacher : array_like, shape (n, C), or callable, optional
            Instead of labels: real scores for a ridge, rows of probabilities for a logistic readout, or a function that
            returns them for rows of x, up to 4096 at a time.
        classes : sequence of hashable, optional
            What the columns stand for. Of a teacher, 0, …, C − 1 if not given; of labels, the sorted ones.
        readout : {"ridge", "logistic"}
            Least squares or cross-entropy.
        bits : {8, 2}, optional
            Round the readout to integers of 8 bits, or to −1, 0, 1 (:func:`rmtntk.readout.quantise`).
        out_of_range : {"error", "clip"}
            As in :meth:`features`.

        Returns
        -------
        TernaryNetwork
            The model itself.

        Raises
        ------
        TypeError, ValueError
            If an argument is outside its domain; the model is then as it was.
        ConvergenceError
            If the logistic fit does not reach its tolerance.
        MemoryLimitError
            If the statistics, O(d²) for d features, or for a logistic readout the features do not fit into memory.

        Notes
        -----
        A ridge whose features take more than 256 MiB, n > d + 1, is fitted by statistics of batches, in memory O(d²)
        whatever n is, equal but for rounding. A logistic readout holds features and a copy of them.
        """
        check_choice(readout, "readout", ("ridge", "logistic"))
        check_bits(bits)
        rows = Rows(self._forward, x, out_of_range)
        if alpha is not None:
            alpha = check_real(alpha, "alpha", low=0.0)
        targets = Targets(len(rows), labels, teacher, classes)
        fitted = fit_readout(rows, targets, alpha, readout, bits)
        rows.warn()
        self._readout, self._classes = fitted, list(targets.classes or ())
        self._samples, self._is_pending = None, False
        return self

    def partial_fit(
        self,
        x: ArrayLike,
        labels: Any = None,
        classes: Sequence[Hashable] | None = None,
        *,
        teacher: Any = None,
        out_of_range: OutOfRange = "error",
    ) -> "TernaryNetwork":
        """Add samples to those a ridge readout is fitted on; it is solved at its first use, or by :meth:`finish`.

        Parameters
        ----------
        x, labels, teacher, out_of_range
            As in :meth:`fit`; labels or a teacher, the same in every call. One call may hold a single class.
        classes : sequence of hashable, optional
            Fixes the columns at the first call. If it is not given, new labels make new columns, which is exact.

        Returns
        -------
        TernaryNetwork
            The model itself. :meth:`fit` starts anew. A readout solved by :meth:`finish` is solved again, in float64
            and with a penalty of its own, when samples are added after it.

        Raises
        ------
        TypeError, ValueError
            If an argument is outside its domain, or the model was fitted by :meth:`fit` or loaded; it is then as it
            was.
        """
        rows = Rows(self._forward, x, out_of_range)
        if self._samples is None and self._readout is not None:
            raise ValueError(
                "`partial_fit` cannot go on from a readout that was fitted or loaded: its samples are not kept. Gather "
                "all of them with partial_fit on a model without a readout"
            )
        samples = add_samples(self._samples, rows, labels, teacher, classes)
        rows.warn()
        self._samples, self._is_pending = samples, True
        return self

    def finish(self, alpha: float | None = None, *, bits: Literal[8, 2] | None = None) -> "TernaryNetwork":
        """Solve the readout of all samples given to :meth:`partial_fit`; more may be added afterwards.

        Parameters
        ----------
        alpha, bits
            As in :meth:`fit`.

        Raises
        ------
        ValueError
            If there are no samples, or labels of one class only.
        """
        check_bits(bits)
        if self._samples is None:
            raise ValueError("there is nothing to finish: call partial_fit(x, labels) first")
        self._readout, self._classes = solve(self._samples, alpha, bits)
        self._is_pending = False
        return self

    def _solve_pending(self) -> None:
        if self._is_pending:
            self.finish()

    def decision_function(self, x: ArrayLike, *, out_of_range: OutOfRange = "error") -> FloatArray:
        """Return the readout's scores, shape (n, number of classes); 4096 rows are in work at a time."""
        readout = self.readout
        if readout is None:
            raise ValueError("the model has no readout yet: call fit(x, labels) first")
        rows = Rows(self._forward, x, out_of_range)
        out = np.empty((len(rows), len(readout.intercept)))
        for place, block in rows:
            out[place] = readout.scores(rows.features(block))
        rows.warn()
        return out

    def predict_proba(self, x: ArrayLike, *, out_of_range: OutOfRange = "error") -> FloatArray:
        """Return the probabilities of the classes, shape (n, number of classes), of a logistic readout.

        Raises
        ------
        ValueError
            If the readout is not a logistic one: least-squares scores are no probabilities.
        """
        scores = self.decision_function(x, out_of_range=out_of_range)
        if self.readout is None or self.readout.kind != "logistic":
            raise ValueError('probabilities need a logistic readout: call fit(x, labels, readout="logistic")')
        return softmax(scores)

    def predict(self, x: ArrayLike, *, out_of_range: OutOfRange = "error") -> NDArray[Any]:
        """Return the label of every row, of the type that `fit` received."""
        best = self.decision_function(x, out_of_range=out_of_range).argmax(axis=1)
        return decode_labels(self.classes, best)

    def score(self, x: ArrayLike, labels: Any, *, out_of_range: OutOfRange = "error") -> float:
        """Return the share of rows whose predicted label is right."""
        predicted = self.predict(x, out_of_range=out_of_range)
        truth = label_list(labels)
        if len(truth) != len(predicted):
            raise ValueError(f"`labels` must have one entry per sample, {len(predicted)}, got {len(truth)}")
        return float(np.mean([a == b for a, b in zip(predicted.tolist(), truth, strict=True)]))

    def report(self) -> dict[str, Any]:
        """Return sizes and quality: bytes in every packing by encoding, the match's residual and excess.

        ``total_bytes`` is the sum of weights, thresholds (with levels), readout and preprocessing; ``runtime_bytes`` is
        what the forward pass holds (weights, folded thresholds, tables) and ``batch_bytes`` an estimate of what a batch
        of 4096 rows takes on top at its peak, good to a factor of two.
        """
        return report(self, self._forward)

    def save(
        self,
        path: str | os.PathLike[str],
        packing: Literal["auto", "2bit", "trit", "bitmap", "entropy", "seed"] = "auto",
    ) -> int:
        """Write the model to a file, whole or not at all; return the file's size in bytes.

        Parameters
        ----------
        path : path-like
            Where to.
        packing : {"auto", "2bit", "trit", "bitmap", "entropy", "seed"}
            How weights are coded; "auto" takes the smallest for every layer, "seed" keeps the key alone.

        Raises
        ------
        ValueError
            If the activations are custom functions, the labels are not numbers, strings or booleans, or the packing is
            "seed" and the weights have no key.
        """
        return write(self, path, packing)

    def export_c(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "net",
        bits: Literal[8, 16] = 8,
        layout: Literal["auto", "planes", "bitmap", "list"] = "auto",
        word_bits: Literal[32, 64] = 32,
        self_test: int = 0,
    ) -> list[Path]:
        """Write the fitted model as C99 without floating point; see :func:`rmtntk.ternary.export_c.export_c`.

        A quantised readout keeps its integers; another one is rounded to `bits` bits.

        Raises
        ------
        ValueError
            If there is no readout, the inputs are not quantised, or an activation is not a step.
        """
        readout = self.readout
        if readout is None:
            raise ValueError("the model has no readout yet: call fit(x, labels) first")
        network = self._forward.network
        return export_c(
            network, fold_fitted(readout, network, bits).readout, path,
            name=name, labels=self.classes, layout=layout, word_bits=word_bits, self_test=self_test,
        )  # fmt: skip

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
