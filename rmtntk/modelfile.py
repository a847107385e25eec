"""The model file: a NumPy archive with a JSON header and a checksum over everything else."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from rmtntk._files import atomic_write
from rmtntk._typing import AnyArray
from rmtntk.errors import ModelFileError

__all__ = ["FORMAT", "VERSION", "read_model", "write_model"]

FORMAT = "rmtntk ternary network"
VERSION = 1
_HEADER = "header"


def write_model(path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, AnyArray]) -> int:
    """Write header and arrays under `path`, whole or not at all; returns the file's size in bytes."""
    full = {**header, "format": FORMAT, "version": VERSION, "sha256": _digest(header, arrays)}
    encoded = np.frombuffer(json.dumps(full, sort_keys=True).encode(), dtype=np.uint8)
    with atomic_write(path) as stream:
        members: dict[str, Any] = {_HEADER: encoded, **arrays}
        np.savez_compressed(stream, **members)
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
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    except Exception as error:  # on damaged bytes NumPy, zipfile and its decoders raise nearly anything
        raise ModelFileError(
            f"{source} is not a readable model file (damaged, truncated, or not made by rmtntk): {error}"
        ) from error
    header = _header(source, members.pop(_HEADER, None))
    if header.get("format") != FORMAT:
        raise ModelFileError(f"{source} is a NumPy archive but not an rmtntk model: it has no {FORMAT!r} header")
    if header.get("version") != VERSION:
        raise ModelFileError(
            f"{source} has format version {header.get('version')}, this rmtntk reads version {VERSION}: "
            "install the rmtntk that wrote it, or make the model again"
        )
    stored = header.pop("sha256", None)
    del header["format"], header["version"]
    if stored != _digest(header, members):
        raise ModelFileError(f"{source} was altered after it was written: its checksum does not fit its content")
    return header, members


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


def _digest(header: dict[str, Any], arrays: dict[str, AnyArray]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
