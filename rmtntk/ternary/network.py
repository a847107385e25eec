"""The compressed network as a model: features, fit, predict, sizes."""

import os
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._activation import Activation
from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_choice, check_data, check_real
from rmtntk.integer import OutOfRange
from rmtntk.matching import Match
from rmtntk.network import Network
from rmtntk.packing import PackedTernary, WeightKey, measure
from rmtntk.readout import Quantised, Readout, StreamingRidge, fit_logistic, fit_ridge, quantise, softmax
from rmtntk.readout.targets import Targets, check_classes, encode_labels, in_order, one_hot
from rmtntk.ternary.export_c import export_c, fold_readout
from rmtntk.ternary.forward import Forward
from rmtntk.ternary.parts import InputQuantiser, Preprocessing
from rmtntk.ternary.storage import read, recipes, write

__all__ = ["TernaryNetwork"]

_BATCH = 4096
_HELD = 1 << 28  # bytes of features a fit holds; more are streamed


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
        self._stream: _Stream | None = None
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
        return sum(self._sizes().values())

    def _sizes(self) -> dict[str, int]:
        steps = sum(8 * (2 * len(a.breakpoints) + 1 if a.is_step else len(a.breakpoints)) for a in self.activations)
        inputs = 0 if self.preprocessing is None else self.preprocessing.mean.nbytes + 8
        return {
            "weight_bytes": sum(layer.nbytes for layer in self.packed),
            "threshold_bytes": steps,
            "readout_bytes": 0 if self.readout is None else self.readout.nbytes,
            "preprocessing_bytes": inputs + (0 if self.quantiser is None else 24),
        }

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
        data = self._check(x, "x")
        advice = "take rows in parts; predict does, and fit holds no features of a large x"
        check_memory(8 * len(data) * self.widths[-1], f"features of {len(data)} samples", advice)
        return self._forward(data, out_of_range=out_of_range)

    def _check(self, x: ArrayLike, name: str) -> AnyArray:
        raw = self.quantiser is not None and isinstance(x, np.ndarray) and x.dtype == np.uint8
        data = x if raw and isinstance(x, np.ndarray) and x.ndim == 2 and x.size else check_data(x, name)
        if data.shape[1] != self.n_features:
            raise ValueError(f"`{name}` must have the model's {self.n_features} features, got {data.shape[1]}")
        return data

    def _open(self, x: Any) -> Any:
        """Return `x` as something with rows to slice: arrays as they are, on disk or not, checked part by part."""
        sliceable = isinstance(x, np.ndarray) or all(hasattr(x, name) for name in ("shape", "dtype", "__getitem__"))
        if sliceable and not hasattr(x, "toarray") and len(x.shape) == 2 and x.shape[0] > _BATCH:
            return x
        return self._check(x, "x")

    def _blocks(self, x: Any) -> Iterator[tuple[slice, AnyArray]]:
        for start in range(0, x.shape[0], _BATCH):
            part = slice(start, min(start + _BATCH, x.shape[0]))
            whole = part.stop - start == x.shape[0]
            yield part, x if whole else self._check(x[part], f"x[{start}:{part.stop}]")

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
        check_choice(out_of_range, "out_of_range", ("error", "clip"))
        _check_bits(bits)
        rows = self._open(x)
        if alpha is not None:
            alpha = check_real(alpha, "alpha", low=0.0)
        n, d = rows.shape[0], self.widths[-1]
        targets = Targets(n, labels, teacher, classes)
        fitted: Readout
        if readout == "ridge" and n > d + 1 and 8 * n * d > _HELD:
            stream = self._gather(rows, targets, out_of_range)
            fitted = stream.solve(alpha)
            if bits is not None:
                fitted = quantise(fitted, bits, stream.gram, stream.feature_mean)
        else:
            copies = 3 if readout == "logistic" else 2
            needed = 8 * (copies * n * d + min(n, d) ** 2)
            check_memory(needed, f"a readout of {n} samples and {d} features", "take fewer samples")
            features, parts = np.empty((n, d)), []
            for part, block in self._blocks(rows):
                parts.append(targets.rows(part, block))
                features[part] = self._forward(block, out_of_range=out_of_range)
            y = np.concatenate(parts)
            fitted = fit_ridge(features, y, alpha) if readout == "ridge" else fit_logistic(features, y, alpha)
            if bits is not None:
                check_memory(16 * d * d, f"rounding a readout of {d} features", "leave `bits` out")
                mean = features.mean(axis=0)
                features -= mean
                fitted = quantise(fitted, bits, features.T @ features, mean)
        self._readout, self._classes, self._stream = fitted, list(targets.classes or ()), None
        return self

    def _gather(self, rows: Any, targets: Targets, out_of_range: OutOfRange) -> StreamingRidge:
        stream: StreamingRidge | None = None
        for part, block in self._blocks(rows):
            y = targets.rows(part, block)
            stream = stream or StreamingRidge(self.widths[-1], y.shape[1])
            stream.update(self._forward(block, out_of_range=out_of_range), y)
        assert stream is not None
        return stream

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
        check_choice(out_of_range, "out_of_range", ("error", "clip"))
        rows = self._open(x)
        n = rows.shape[0]
        names = None if classes is None else check_classes(classes)
        before = self._stream
        if before is None and self._readout is not None:
            raise ValueError(
                "`partial_fit` cannot go on from a readout that was fitted or loaded: its samples are not kept. Gather "
                "all of them with partial_fit on a model without a readout"
            )
        if before is not None:
            if before.by_labels != (teacher is None):
                kind = "labels" if before.by_labels else "a teacher"
                raise ValueError(f"`partial_fit` began with {kind} and must go on so: call fit to start anew")
            if names is not None and names != before.classes:
                raise ValueError(f"`classes` must be those of the first call, {before.classes!r}, got {names!r}")
        if teacher is None:
            if labels is None:
                raise ValueError("pass either `labels` or `teacher`, got neither")
            fixed = names is not None or (before is not None and before.fixed)
            known = names if before is None else before.classes
            found, index = encode_labels(labels, n, known if fixed else None)
            if not fixed:
                joined = list(known or [])
                joined += [name for name in found if name not in set(joined)]
                place = {name: k for k, name in enumerate(joined)}
                found, index = joined, np.array([place[name] for name in found], dtype=np.int64)[index]
            fresh = StreamingRidge(self.widths[-1], len(found))
            for part, block in self._blocks(rows):
                features = self._forward(block, out_of_range=out_of_range)
                fresh.update(features, one_hot(index[part], len(found)))
        else:
            fixed = True
            targets = Targets(n, labels, teacher, names if before is None else before.classes)
            fresh = self._gather(rows, targets, out_of_range)
            found = list(targets.classes or ())
        if before is not None:
            old = [*range(len(before.classes)), *[-1] * (len(found) - len(before.classes))]
            fresh.merge(before.statistics.with_targets(old))
        self._stream = _Stream(fresh, found, fixed, teacher is None)
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
        _check_bits(bits)
        stream = self._stream
        if stream is None:
            raise ValueError("there is nothing to finish: call partial_fit(x, labels) first")
        seen = [name for name, mean in zip(stream.classes, stream.statistics.target_mean, strict=True) if mean > 0.0]
        if stream.by_labels and len(seen) < 2:
            raise ValueError(f"`labels` must hold at least two classes, got only {seen[0]!r}: call partial_fit again")
        order = list(range(len(stream.classes))) if stream.fixed else in_order(stream.classes)
        statistics = stream.statistics.with_targets(order)
        solved = statistics.solve(alpha)
        rounded = None if bits is None else quantise(solved, bits, statistics.gram, statistics.feature_mean)
        self._readout, self._classes = rounded or solved, [stream.classes[k] for k in order]
        stream.pending = False
        return self

    def _solve_pending(self) -> None:
        if self._stream is not None and self._stream.pending:
            self.finish()

    def decision_function(self, x: ArrayLike, *, out_of_range: OutOfRange = "error") -> FloatArray:
        """Return the readout's scores, shape (n, number of classes); 4096 rows are in work at a time."""
        readout = self.readout
        if readout is None:
            raise ValueError("the model has no readout yet: call fit(x, labels) first")
        check_choice(out_of_range, "out_of_range", ("error", "clip"))
        rows = self._open(x)
        out = np.empty((rows.shape[0], len(readout.intercept)))
        for part, block in self._blocks(rows):
            out[part] = readout.scores(self._forward(block, out_of_range=out_of_range))
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
        table = np.empty(len(self.classes), dtype=object)
        table[:] = self.classes
        labels = table[best]
        kinds = {type(value) for value in self.classes}
        return np.array(labels.tolist()) if len(kinds) == 1 and kinds <= {int, float, str, bool} else labels

    def score(self, x: ArrayLike, labels: Any, *, out_of_range: OutOfRange = "error") -> float:
        """Return the share of rows whose predicted label is right."""
        predicted = self.predict(x, out_of_range=out_of_range)
        truth = list(labels.tolist() if isinstance(labels, np.ndarray) else labels)
        if len(truth) != len(predicted):
            raise ValueError(f"`labels` must have one entry per sample, {len(predicted)}, got {len(truth)}")
        return float(np.mean([a == b for a, b in zip(predicted.tolist(), truth, strict=True)]))

    def report(self) -> dict[str, Any]:
        """Return sizes and quality: bytes in every packing by encoding, the match's residual and excess.

        ``total_bytes`` is the sum of weights, thresholds (with levels), readout and preprocessing; ``runtime_bytes`` is
        what the forward pass holds (weights, folded thresholds, tables) and ``batch_bytes`` an estimate of what a batch
        of 4096 rows takes on top at its peak, good to a factor of two.
        """
        n_weights = sum(layer.size for layer in self.packed)
        zeros = 1.0 - sum(layer.n_nonzero for layer in self.packed) / n_weights
        packings = measure(self.packed, recipes(self))
        readout, sizes = self.readout, self._sizes()
        return {
            "activations": [str(act) for act in self.activations],
            "widths": list(self.widths),
            "n_weights": n_weights,
            "share_of_zeros": zeros,
            "neurons_without_weights": sum(layer.n_empty_rows for layer in self.packed),
            "weight_bytes_by_packing": packings,
            **sizes,
            "total_bytes": sum(sizes.values()),
            "runtime_bytes": self._forward.nbytes + sizes["readout_bytes"],
            "batch_bytes": self._batch_bytes(),
            "readout": None if readout is None else readout.kind,
            "readout_bits": None if readout is None else readout.bits,
            "alpha": None if readout is None else readout.alpha,
            **self.summary,
        }

    def _batch_bytes(self, rows: int = _BATCH) -> int:
        """Peak working set of `rows` rows beside the model: inputs, the widest layer in work, features and scores."""
        widths = (self.n_features, *self.widths)
        scores = 0 if self.readout is None else len(self.readout.intercept)
        if self._forward.is_integer and self.quantiser is not None:
            first = rows * self.n_features  # codes; hidden layers go 512 rows at a time
        elif self._forward.is_integer:
            first = rows * (8 * self.n_features + 9 * widths[1])  # inputs, arguments and codes of the first layer
        else:  # features and arguments of two layers, each with a temporary
            first = rows * 16 * max(a + b for a, b in pairwise(widths))
        return int(first + 8 * rows * (widths[-1] + 2 * scores))

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
        scale = None
        coefficients: AnyArray = readout.coefficients
        if isinstance(readout, Quantised):
            coefficients, scale, _ = readout.integers()
        folded = fold_readout(
            coefficients, readout.intercept, network.outputs, scale=scale, bits=bits,
            gain=network.output_unit, offset=network.output_offset,
        )  # fmt: skip
        return export_c(
            network, folded.readout, path,
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


class _Stream:
    """What :meth:`TernaryNetwork.partial_fit` has gathered."""

    def __init__(self, statistics: StreamingRidge, classes: list[Hashable], fixed: bool, by_labels: bool) -> None:
        self.statistics = statistics
        self.classes = classes
        self.fixed = fixed
        self.by_labels = by_labels
        self.pending = True


def _check_bits(bits: Any) -> None:
    if bits is not None and (isinstance(bits, bool) or bits not in (8, 2)):
        raise ValueError(f"`bits` must be 8, 2 or None, got {bits!r}")
