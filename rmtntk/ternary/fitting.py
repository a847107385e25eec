"""Readouts of a ternary network: fitted at once, or from samples gathered over several calls."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rmtntk._memory import check_memory
from rmtntk.readout import Readout, StreamingRidge, fit_logistic, fit_ridge, quantise
from rmtntk.readout.targets import Targets, check_classes, encode_labels, in_order, one_hot
from rmtntk.ternary.rows import Rows

__all__ = ["Samples", "add_samples", "check_bits", "fit_readout", "solve"]

_HELD = 1 << 28  # bytes of features a fit holds; more are streamed


@dataclass(frozen=True)
class Samples:
    """What is kept of the samples gathered so far.

    Attributes
    ----------
    statistics : StreamingRidge
        Their sums.
    classes : list of hashable
        What the columns stand for, in order of appearance.
    fixed : bool
        Whether these were given by the user, so that no others may follow.
    by_labels : bool
        Whether targets are labels, not a teacher's.
    """

    statistics: StreamingRidge
    classes: list[Hashable]
    fixed: bool
    by_labels: bool


def check_bits(bits: Any) -> None:
    """Raise ValueError unless `bits` is one a readout can be rounded to, or None."""
    if bits is not None and (isinstance(bits, bool) or bits not in (8, 2)):
        raise ValueError(f"`bits` must be 8, 2 or None, got {bits!r}")


def fit_readout(
    rows: Rows,
    targets: Targets,
    alpha: float | None,
    kind: Literal["ridge", "logistic"],
    bits: Literal[8, 2] | None,
) -> Readout:
    """Fit a readout to all rows; a ridge whose features are large by statistics of batches.

    Raises
    ------
    ConvergenceError
        If the logistic fit does not reach its tolerance.
    MemoryLimitError
        If statistics or features do not fit into memory.
    """
    n, d = len(rows), rows.n_features
    fitted: Readout
    if kind == "ridge" and n > d + 1 and 8 * n * d > _HELD:
        stream = _gather(rows, targets)
        fitted = stream.solve(alpha)
        return fitted if bits is None else quantise(fitted, bits, stream.gram, stream.feature_mean)
    copies = 3 if kind == "logistic" else 2
    needed = 8 * (copies * n * d + min(n, d) ** 2)
    check_memory(needed, f"a readout of {n} samples and {d} features", "take fewer samples")
    features, parts = np.empty((n, d)), []
    for place, block in rows:
        parts.append(targets.rows(place, block))
        features[place] = rows.features(block)
    y = np.concatenate(parts)
    fitted = fit_ridge(features, y, alpha) if kind == "ridge" else fit_logistic(features, y, alpha)
    if bits is None:
        return fitted
    check_memory(16 * d * d, f"rounding a readout of {d} features", "leave `bits` out")
    mean = features.mean(axis=0)
    features -= mean
    return quantise(fitted, bits, features.T @ features, mean)


def _gather(rows: Rows, targets: Targets) -> StreamingRidge:
    stream: StreamingRidge | None = None
    for place, block in rows:
        y = targets.rows(place, block)
        stream = stream or StreamingRidge(rows.n_features, y.shape[1])
        stream.update(rows.features(block), y)
    assert stream is not None
    return stream


def add_samples(
    before: Samples | None, rows: Rows, labels: Any, teacher: Any, classes: Sequence[Hashable] | None
) -> Samples:
    """Return the samples gathered before, if any, and these; `before` is left as it was.

    Raises
    ------
    TypeError, ValueError
        If labels, teacher or classes are outside their domain, or do not go on as the samples before.
    """
    names = None if classes is None else check_classes(classes)
    if before is not None:
        if before.by_labels != (teacher is None):
            kind = "labels" if before.by_labels else "a teacher"
            raise ValueError(f"`partial_fit` began with {kind} and must go on so: call fit to start anew")
        if names is not None and names != before.classes:
            raise ValueError(f"`classes` must be those of the first call, {before.classes!r}, got {names!r}")
    if teacher is None:
        fixed = names is not None or (before is not None and before.fixed)
        known = names if before is None else before.classes
        fresh, found = _gather_labels(rows, labels, known, fixed)
    else:
        fixed = True
        targets = Targets(len(rows), labels, teacher, names if before is None else before.classes)
        fresh = _gather(rows, targets)
        found = list(targets.classes or ())
    if before is not None:
        old = [*range(len(before.classes)), *[-1] * (len(found) - len(before.classes))]
        fresh.merge(before.statistics.with_targets(old))
    return Samples(fresh, found, fixed, teacher is None)


def _gather_labels(
    rows: Rows, labels: Any, known: list[Hashable] | None, fixed: bool
) -> tuple[StreamingRidge, list[Hashable]]:
    """Statistics of labelled rows, and their columns: the known ones, then, unless these are fixed, new labels."""
    if labels is None:
        raise ValueError("pass either `labels` or `teacher`, got neither")
    found, index = encode_labels(labels, len(rows), known if fixed else None)
    if not fixed:
        joined = list(known or [])
        joined += [name for name in found if name not in set(joined)]
        position = {name: k for k, name in enumerate(joined)}
        found, index = joined, np.array([position[name] for name in found], dtype=np.int64)[index]
    stream = StreamingRidge(rows.n_features, len(found))
    for place, block in rows:
        stream.update(rows.features(block), one_hot(index[place], len(found)))
    return stream, found


def solve(samples: Samples, alpha: float | None, bits: Literal[8, 2] | None) -> tuple[Readout, list[Hashable]]:
    """Return the ridge readout of gathered samples and the classes of its columns, sorted unless they were given.

    Raises
    ------
    ValueError
        If the labels are of one class only.
    """
    seen = [name for name, mean in zip(samples.classes, samples.statistics.target_mean, strict=True) if mean > 0.0]
    if samples.by_labels and len(seen) < 2:
        raise ValueError(f"`labels` must hold at least two classes, got only {seen[0]!r}: call partial_fit again")
    order = list(range(len(samples.classes))) if samples.fixed else in_order(samples.classes)
    statistics = samples.statistics.with_targets(order)
    ridge = statistics.solve(alpha)
    solved = ridge if bits is None else quantise(ridge, bits, statistics.gram, statistics.feature_mean)
    return solved, [samples.classes[k] for k in order]
