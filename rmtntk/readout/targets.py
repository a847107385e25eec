"""What a readout is fitted to: labels, or the outputs of a teacher, in rows as they are asked for."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from rmtntk._typing import AnyArray, FloatArray, IntArray
from rmtntk._validation import check_data, check_labels

__all__ = ["Targets", "check_classes", "decode_labels", "encode_labels", "in_order", "one_hot"]

Teacher = Any  # array (n, C), or a callable of inputs (m, p) that returns one (m, C)


def check_classes(classes: Any) -> list[Hashable]:
    """Return at least two different hashable names of columns."""
    try:
        names = list(classes.tolist() if isinstance(classes, np.ndarray) else classes)
        distinct = set(names)
    except TypeError:
        raise TypeError(f"`classes` must be a sequence of hashable labels, got {classes!r}") from None
    if isinstance(classes, str) or len(names) < 2 or len(distinct) != len(names):
        raise ValueError(f"`classes` must hold at least two labels, each once, got {classes!r}")
    return names


def encode_labels(labels: Any, n: int, classes: Sequence[Hashable] | None) -> tuple[list[Hashable], IntArray]:
    """Return classes and the index of each label among them; `classes` None takes those of the labels."""
    found, index = check_labels(labels, n)
    if classes is None:
        return found, index
    place = {name: k for k, name in enumerate(classes)}
    strange = [name for name in found if name not in place]
    if strange:
        raise ValueError(f"`labels` must be among `classes`, got {strange[0]!r}, which is not in {list(classes)!r}")
    return list(classes), np.array([place[name] for name in found], dtype=np.int64)[index]


def decode_labels(classes: Sequence[Hashable], index: IntArray) -> AnyArray:
    """Return the label of every index, as an array of its type where all classes have one, else of objects."""
    table = np.empty(len(classes), dtype=object)
    table[:] = classes
    labels = table[index]
    kinds = {type(name) for name in classes}
    return np.array(labels.tolist()) if len(kinds) == 1 and kinds <= {int, float, str, bool} else labels


def one_hot(index: IntArray, n_classes: int) -> FloatArray:
    """Return rows of the identity."""
    out = np.zeros((len(index), n_classes))
    out[np.arange(len(index)), index] = 1.0
    return out


def in_order(classes: Sequence[Hashable]) -> list[int]:
    """Return the order that sorts the classes; as they are if they cannot be compared."""
    order = list(range(len(classes)))
    with suppress(TypeError):
        order.sort(key=lambda k: classes[k])  # type: ignore[arg-type, return-value]  # what cannot be ordered raises
    return order


class Targets:
    """Rows of targets (m, C): one-hot of labels, or a teacher's.

    Attributes
    ----------
    classes : list or None
        Names of the columns; None for a callable that has not been asked yet.
    """

    classes: list[Hashable] | None

    def __init__(self, n: int, labels: Any, teacher: Teacher, classes: Any) -> None:
        if (labels is None) == (teacher is None):
            raise ValueError(f"pass either `labels` or `teacher`, got {'neither' if labels is None else 'both'}")
        self.classes = None if classes is None else check_classes(classes)
        self._index: IntArray | None = None
        self._array: AnyArray | None = None
        self._function: Callable[[AnyArray], Any] | None = None
        if labels is not None:
            self.classes, self._index = encode_labels(labels, n, self.classes)
            seen = np.unique(self._index)
            if len(seen) < 2:
                only = self.classes[int(seen[0])]
                raise ValueError(f"`labels` must hold at least two classes, got only {only!r}")
        elif callable(teacher):
            self._function = teacher
        else:
            self._array = check_data(teacher, "teacher")
            if len(self._array) != n:
                raise ValueError(f"`teacher` must have one row per sample, {n}, got shape {self._array.shape}")
            self._columns(self._array, "teacher")

    def rows(self, part: slice, x: AnyArray) -> FloatArray:
        """Return the targets of samples `part`, whose inputs are `x`."""
        if self._index is not None and self.classes is not None:
            return one_hot(self._index[part], len(self.classes))
        if self._array is not None:
            return np.asarray(self._array[part])
        assert self._function is not None
        found = check_data(self._function(x), "teacher(x)")
        if len(found) != len(x):
            raise ValueError(f"`teacher(x)` must have one row per sample, {len(x)}, got shape {found.shape}")
        self._columns(found, "teacher(x)")
        return found

    def _columns(self, array: AnyArray, name: str) -> None:
        if array.shape[1] < 2:
            raise ValueError(f"`{name}` must have a column for each of at least two classes, got shape {array.shape}")
        if self.classes is None:
            self.classes = list(range(array.shape[1]))
        elif len(self.classes) != array.shape[1]:
            raise ValueError(f"`{name}` must have one column per class, {len(self.classes)}, got shape {array.shape}")
