"""The model file: a NumPy archive with a JSON header, sealed by a checksum over every byte of it.

Version 2 is a zip archive of .npy members that `numpy.load` reads like any other. The comment at its end is
``rmtntk/2 sha-256:`` and the SHA-256 of all bytes before the sum, so that no byte can change unnoticed. Members
already coded are stored as they are, others deflated; the same model gives the same bytes. Version 1 (a checksum of the
content in the header) is still read.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from rmtntk._files import atomic_write
from rmtntk._typing import AnyArray
from rmtntk.errors import ModelFileError

__all__ = ["FORMAT", "VERSION", "read_model", "write_model"]

FORMAT = "rmtntk ternary network"
VERSION = 2
_HEADER = "header"
_SEAL = b"rmtntk/2 sha-256:"
_SUM_BYTES = hashlib.sha256().digest_size


def write_model(
    path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, AnyArray], *, coded: Collection[str] = ()
) -> int:
    """Write header and arrays under `path`, whole or not at all; return the file's size in bytes.

    Parameters
    ----------
    path : path-like
        Where to.
    header : dict
        What JSON can hold.
    arrays : dict of ndarray
        By name; "header" is taken.
    coded : collection of str
        Names of arrays not worth deflating.

    Raises
    ------
    TypeError, ValueError
        If the header is no JSON, or an array holds objects or has a name that is taken.
    FileNotFoundError
        If the directory does not exist.
    """
    if _HEADER in arrays:
        raise ValueError(f"`arrays` must not have a member named {_HEADER!r}: the name is taken")
    text = json.dumps({**header, "format": FORMAT, "version": VERSION}, sort_keys=True).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in {_HEADER: np.frombuffer(text, dtype=np.uint8), **arrays}.items():
            method = zipfile.ZIP_STORED if name in coded else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy(array), compress_type=method)
        archive.comment = _SEAL + bytes(_SUM_BYTES)
    content = buffer.getbuffer()[:-_SUM_BYTES]
    with atomic_write(path) as stream:
        stream.write(content)
        stream.write(hashlib.sha256(content).digest())
    return Path(path).stat().st_size


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """Read and check a model file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is foreign, truncated, altered, or of a version this library does not read.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"`path` must be a model file, got {source}, which does not exist")
    content = source.read_bytes()
    sealed = content[:-_SUM_BYTES].endswith(_SEAL)
    if sealed and hashlib.sha256(memoryview(content)[:-_SUM_BYTES]).digest() != content[-_SUM_BYTES:]:
        raise _altered(source)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    except Exception as error:  # on damaged bytes NumPy, zipfile and its decoders raise nearly anything
        raise ModelFileError(
            f"{source} is not a readable model file (damaged, truncated, or not made by rmtntk): {error}"
        ) from error
    header = _header(source, members.pop(_HEADER, None))
    if header.pop("format", None) != FORMAT:
        raise ModelFileError(f"{source} is a NumPy archive but not an rmtntk model: it has no {FORMAT!r} header")
    version = header.pop("version", None)
    if type(version) is not int or version not in (1, VERSION):
        raise ModelFileError(
            f"{source} has format version {version}, this rmtntk reads versions 1 and {VERSION}: "
            "install the rmtntk that wrote it, or make the model again"
        )
    if version == 1:
        sealed = header.pop("sha256", None) == _digest_1(header, members)
    if not sealed:
        raise _altered(source)
    return header, members


def _altered(source: Path) -> ModelFileError:
    return ModelFileError(
        f"{source} was altered after it was written: its checksum does not fit its content. Copy it again, or make "
        "the model again"
    )


def _npy(array: AnyArray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
    return stream.getvalue()


def _header(source: Path, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, np.ndarray):
        return {}
    try:
        header = json.loads(raw.tobytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{source} has an unreadable header: {error}") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{source} has a header that is not a JSON object")
    return header


def _digest_1(header: dict[str, Any], arrays: dict[str, AnyArray]) -> str:
    """Return the checksum of version 1, over the content."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
