"""Whatever happens to its bytes, a model file is read as it was written or refused with a ModelFileError."""

import contextlib
import hashlib
import io
import json
import pickle
import random
import zipfile

import numpy as np
import pytest
from cases import slow

import rmtntk as rn
from rmtntk import _files, modelfile
from rmtntk.modelfile import FORMAT, VERSION, read_model, write_model

HEADER = {"name": "ünï", "list": [1, 2.5, None], "nested": {"b": True, "a": "x"}, "huge": 1e308, "inf": float("inf")}
ARRAYS = {
    "bits": np.arange(15, dtype=np.uint64).reshape(3, 5) << 40,
    "signed": np.array([[-1, 0, 1]], np.int8),
    "real": np.linspace(0.0, 1.0, 7),
    "empty": np.zeros((0, 3)),
    "scalar": np.array(3.0),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


@pytest.fixture
def path(tmp_path):
    write_model(tmp_path / "model.npz", HEADER, ARRAYS)
    return tmp_path / "model.npz"


def assert_is_what_was_written(got):
    header, arrays = got
    assert header == HEADER
    assert set(arrays) == set(ARRAYS)
    for name, wanted in ARRAYS.items():
        assert arrays[name].dtype == wanted.dtype
        np.testing.assert_array_equal(arrays[name], wanted, strict=True)


def assert_whole_or_refused(path, content):
    """Write the bytes and read them; return whether they were taken."""
    path.write_bytes(content)
    try:
        got = read_model(path)
    except rn.ModelFileError:
        return False
    assert_is_what_was_written(got)
    return True


def test_reads_what_was_written(path, tmp_path):
    assert_is_what_was_written(read_model(path))
    assert_is_what_was_written(read_model(str(path)))
    size = write_model(str(tmp_path / "again.npz"), HEADER, ARRAYS)
    assert size == (tmp_path / "again.npz").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.npz", "model.npz"]


def test_is_an_ordinary_archive(path):
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {*ARRAYS, "header"}
        header = json.loads(archive["header"].tobytes())
    assert (header["format"], header["version"]) == (FORMAT, VERSION)


def test_errors_are_value_errors():
    assert issubclass(rn.ModelFileError, ValueError)


def test_truncated_anywhere(path):
    content = path.read_bytes()
    lengths = {*range(64), *range(len(content) - 64, len(content)), *range(0, len(content), 23)}
    assert not any(assert_whole_or_refused(path, content[:length]) for length in sorted(lengths - {len(content)}))


def test_extended(path):
    content = path.read_bytes()
    # zip readers look for the directory from the end and tolerate bytes around the archive
    for extra in (b"\0", b"x" * 1000, content):
        assert_whole_or_refused(path, content + extra)
        assert_whole_or_refused(path, extra + content)


@pytest.mark.parametrize("share", [4, slow(1)])
def test_any_byte_changed_is_noticed(path, share):
    content = path.read_bytes()
    rng = random.Random(0)
    for place in sorted(rng.sample(range(len(content)), len(content) // share)):
        altered = bytearray(content)
        altered[place] ^= 1 << rng.randrange(8)
        assert not assert_whole_or_refused(path, bytes(altered))


def test_any_bit_of_the_seal_changed_is_noticed(path):
    content = path.read_bytes()
    for place in range(len(content) - 70, len(content)):  # the archive's end record, its comment and the checksum
        for bit in range(8):
            altered = bytearray(content)
            altered[place] ^= 1 << bit
            assert not assert_whole_or_refused(path, bytes(altered))


@pytest.mark.parametrize("method", [0, 1, 6, 9, 12, 14, 20, 93, 95, 99, 255])
def test_another_compression_method_in_the_headers(path, method):
    # both places a zip archive names it: only then does a reader follow it, into bzip2, LZMA or Zstandard
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
        directory = archive.start_dir
    content = bytearray(path.read_bytes())
    content[first.header_offset + 8] = content[directory + 10] = method
    assert not assert_whole_or_refused(path, bytes(content))


def test_a_block_of_noise(path):
    content = path.read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        start, length = rng.randrange(len(content)), rng.randrange(2, 40)
        noise = rng.randbytes(len(content[start : start + length]))
        assert_whole_or_refused(path, content[:start] + noise + content[start + length :])


# --- Altered with care: the archive is sound, the content is not


def rewrite(path, change, *, compress=True):
    """Apply `change` to the members of the archive and write a sound one."""
    with np.load(path) as archive:
        members = {name: archive[name] for name in archive.files}
    change(members)
    (np.savez_compressed if compress else np.savez)(path, **members)


def with_header(members, **fields):
    header = {**json.loads(members["header"].tobytes()), **fields}
    members["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)


def test_the_same_content_in_another_archive_has_no_seal(path):
    rewrite(path, lambda members: None, compress=False)
    with pytest.raises(rn.ModelFileError, match="altered after it was written"):
        read_model(path)


CHANGES = {
    "value": lambda m: m["real"].__setitem__(3, np.nextafter(m["real"][3], 2.0)),
    "bit": lambda m: m["bits"].__setitem__((0, 0), 1),
    "shape": lambda m: m.update(bits=m["bits"].reshape(5, 3)),
    "type": lambda m: m.update(real=m["real"].astype(">f8")),
    "missing": lambda m: m.pop("signed"),
    "renamed": lambda m: m.update(other=m.pop("signed")),
    "added": lambda m: m.update(extra=np.zeros(1)),
    "swapped": lambda m: m.update(real=m["scalar"], scalar=m["real"]),
    "header field": lambda m: with_header(m, name="other"),
    "header gains a field": lambda m: with_header(m, more=1),
    "older version": lambda m: with_header(m, version=1),
    "older version with a checksum": lambda m: with_header(m, version=1, sha256="0" * 64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_altered_content_does_not_fit_its_checksum(path, change):
    rewrite(path, CHANGES[change])
    with pytest.raises(rn.ModelFileError, match="altered after it was written"):
        read_model(path)


@pytest.mark.parametrize("version", [VERSION + 1, 0, "1", None, [1], True, 2.0])
def test_another_version(path, version):
    rewrite(path, lambda members: with_header(members, version=version))
    with pytest.raises(rn.ModelFileError, match=f"has format version .*, this rmtntk reads versions 1 and {VERSION}"):
        read_model(path)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"null", b"3", b'"text"', b"{", b"\xff\xfe", b"{}", b'{"format": "other"}', b"[" * 100_000],
    ids=["empty", "list", "null", "number", "text", "open", "not utf-8", "no format", "other format", "deep"],
)
def test_a_header_that_is_none(path, raw):
    rewrite(path, lambda members: members.update(header=np.frombuffer(raw, np.uint8)))
    with pytest.raises(rn.ModelFileError):
        read_model(path)


# --- Foreign files


def archive_bytes(save, *args, **kwargs):
    stream = io.BytesIO()
    save(stream, *args, **kwargs)
    return stream.getvalue()


def zip_bytes(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def damaged_lzma():
    """An archive whose one member claims to be LZMA, with properties that are none."""
    content = bytearray(zip_bytes(**{"header.npy": b"\x09\x04\x05\x00" + b"\xff" * 200}))
    content[8] = content[content.index(b"PK\x01\x02") + 10] = zipfile.ZIP_LZMA
    return bytes(content)


FOREIGN = {
    "empty": b"",
    "text": b"hello world\n" * 20,
    "json": b'{"format": "rmtntk ternary network", "version": 1}',
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0",
    "elf": b"\x7fELF" + bytes(100),
    "gzip": b"\x1f\x8b\x08\0" + bytes(50),
    "npy": archive_bytes(np.save, np.arange(3.0)),
    "other npz": archive_bytes(np.savez, x=np.eye(3), labels=np.arange(3)),
    "empty npz": archive_bytes(np.savez),
    "pickle": pickle.dumps({"format": FORMAT}),
    "npz of a pickle": archive_bytes(np.savez, header=np.array([{"a": 1}], dtype=object)),
    "npz with a text header": archive_bytes(np.savez, header=np.array("text")),
    "npz with a number for a header": archive_bytes(np.savez, header=np.array(1.5)),
    "zip of other files": zip_bytes(**{"word/document.xml": b"<xml/>"}),
    "zip with a plain header": zip_bytes(header=b"hello"),
    "zip with a damaged array": zip_bytes(**{"header.npy": b"\x93NUMPY\x01\0\x10\0{'descr': oops}"}),
    "zip with an old array": zip_bytes(**{"header.npy": b"\x93NUMPY\x01\0\x10\0{'shape': (3L, \n"}),
    "zip with damaged LZMA": damaged_lzma(),
    "empty zip": zip_bytes(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(tmp_path, kind):
    path = tmp_path / "model.npz"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(rn.ModelFileError) as raised:
        read_model(path)
    assert str(path) in str(raised.value)
    with pytest.raises(rn.ModelFileError):
        rn.TernaryNetwork.load(path)


def test_nothing_in_a_file_is_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "exploded"), "w")

    for content in (pickle.dumps(Bomb()), archive_bytes(np.savez, header=np.array([Bomb()], dtype=object))):
        (tmp_path / "model.npz").write_bytes(content)
        with pytest.raises(rn.ModelFileError):
            read_model(tmp_path / "model.npz")
    assert not (tmp_path / "exploded").exists()


def test_no_file(tmp_path):
    for path in (tmp_path / "nothing.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match="`path` must be a model file"):
            read_model(path)


# --- Writing


def test_write_into_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="existing directory"):
        write_model(tmp_path / "nowhere" / "model.npz", HEADER, ARRAYS)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    @contextlib.contextmanager
    def half(path):
        with _files.atomic_write(path) as stream:
            stream.write(b"PK\x03\x04 half an archive")
            raise OSError("disk full")
            yield stream

    monkeypatch.setattr(modelfile, "atomic_write", half)
    with pytest.raises(OSError, match="disk full"):
        write_model(path, {"other": 1}, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.npz"]


def test_a_header_that_is_no_json_is_refused_before_writing(path):
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_model(path, {"bad": object()}, {})
    assert path.read_bytes() == before


def test_writing_again_replaces(path):
    write_model(path, {"second": 2}, {"a": np.ones(2)})
    header, arrays = read_model(path)
    assert header == {"second": 2}
    assert set(arrays) == {"a"}


def test_the_same_model_has_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_model(tmp_path / name, HEADER, ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_seal_is_the_checksum_of_all_before_it(path):
    content = path.read_bytes()
    assert content[-49:-32] == b"rmtntk/2 sha-256:"
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == content[-49:]


def test_coded_members_are_stored_and_others_deflated(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    size = write_model(tmp_path / "model.npz", {}, {"coded": noise, "zeros": np.zeros(100_000)}, coded=("coded",))
    with zipfile.ZipFile(tmp_path / "model.npz") as archive:
        methods = {info.filename: info.compress_type for info in archive.infolist()}
    assert methods == {
        "header.npy": zipfile.ZIP_DEFLATED, "coded.npy": zipfile.ZIP_STORED, "zeros.npy": zipfile.ZIP_DEFLATED,
    }  # fmt: skip
    assert 100_000 < size < 102_500  # three members of some 300 bytes, and the zeros at 1 : 1000
    np.testing.assert_array_equal(read_model(tmp_path / "model.npz")[1]["coded"], noise)


def test_a_name_that_is_taken(tmp_path):
    with pytest.raises(ValueError, match="`arrays` must not have a member named 'header'"):
        write_model(tmp_path / "model.npz", {}, {"header": np.zeros(3)})


def test_objects_are_not_written(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"(?i)object arrays cannot be saved"):
        write_model(path, {}, {"bad": np.array([{}], dtype=object)})
    assert path.read_bytes() == before


# --- Files of version 1


def write_version_1(path, header, arrays, **fields):
    """As version 1 did: a checksum of the content in the header, everything deflated."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.tobytes())
    full = {**header, "format": FORMAT, "version": 1, "sha256": digest.hexdigest(), **fields}
    encoded = np.frombuffer(json.dumps(full, sort_keys=True).encode(), dtype=np.uint8)
    np.savez_compressed(path, header=encoded, **arrays)


def test_version_1_is_read(path):
    # its checksum took scalars for vectors of length one, and Fortran order for C
    write_version_1(path, HEADER, ARRAYS)
    assert_is_what_was_written(read_model(path))


def test_version_1_altered_is_refused(path):
    for fields in ({"sha256": "0" * 64}, {"sha256": None}, {"name": "other"}):
        write_version_1(path, HEADER, ARRAYS, **fields)
        with pytest.raises(rn.ModelFileError, match="altered after it was written"):
            read_model(path)
    write_version_1(path, HEADER, ARRAYS)
    content = path.read_bytes()
    rng = random.Random(2)
    whole = 0
    for place in rng.sample(range(len(content)), 200):
        altered = bytearray(content)
        altered[place] ^= 1 << rng.randrange(8)
        whole += assert_whole_or_refused(path, bytes(altered))
    assert whole < 100  # a zip archive's dates and the like do not matter
