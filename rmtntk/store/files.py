"""The store on disk: a Zarr version 3 group with an array for each kernel, a file for each tile.

Tiles are written under another name and renamed, so that a file under a tile's name is a whole tile; each carries a
CRC-32C of its bytes. Metadata appear the same way, as a directory that is renamed.
"""

import contextlib
import errno
import importlib
import json
import os
import secrets
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rmtntk._typing import AnyArray
from rmtntk._version import __version__
from rmtntk.errors import MissingExtraError
from rmtntk.store.errors import DiskSpaceError, StoreError, StoreLockedError, UnfinishedStoreError
from rmtntk.store.grid import Grid
from rmtntk.store.identity import digest
from rmtntk.store.locks import new_directory, release, sweep, take

__all__ = ["FORMAT", "FULL", "VERSION", "Store", "as_path", "create", "load_zarr", "open_store"]

FORMAT = "rmtntk kernel matrix"
VERSION = 1
_LOCK = "writer.lock"
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def load_zarr() -> Any:
    """Return Zarr, or say how to get it."""
    try:
        module = importlib.import_module("zarr")
    except ImportError:
        raise MissingExtraError("zarr", "store", "a kernel on disk") from None
    if int(module.__version__.split(".")[0]) < 3:
        raise MissingExtraError("zarr>=3", "store", f"a kernel on disk (found zarr {module.__version__})")
    return module


def write_file(path: Path, content: Any) -> None:
    """Write a file that appears whole or not at all; a kill leaves at most one whose name ends in ``.tmp``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@lru_cache(maxsize=1)
def _local_store() -> Any:
    load_zarr()
    base: Any = importlib.import_module("zarr.storage").LocalStore
    import asyncio

    class TileStore(base):  # type: ignore[misc]
        """Local files, written atomically; a missing tile is an error and not a tile of fill values."""

        async def set(self, key: str, value: Any) -> None:
            await asyncio.to_thread(self.set_sync, key, value)

        def set_sync(self, key: str, value: Any) -> None:
            write_file(self.root / key, memoryview(value.as_numpy_array()))

        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            return _present(key, await super().get(key, *args, **options))

        def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
            return _present(key, super().get_sync(key, *args, **options))

    return TileStore


def _present(key: str, found: Any) -> Any:
    if found is None and "/c/" in key:
        raise UnfinishedStoreError(f"tile {key} is not in the store")
    return found


def as_path(path: Any) -> Path:
    """Return a path, or raise if it is none."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TypeError(f"`path` must be the path of a directory, got {path!r}")
    return Path(os.fspath(path)).absolute()


def create(path: Path, content: dict[str, Any], *, whole: bool) -> None:
    """Make the group and its arrays, without tiles, under a name that is free."""
    load_zarr()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path` must be in an existing directory, got {path}")
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "rmtntk": __version__,
        "numpy": np.__version__,
        "whole": whole,
        "identity": content,
        "fingerprint": digest(content),
    }
    sweep(path)
    try:
        with new_directory(path) as temporary:
            _write_metadata(temporary, content, attributes)
            with contextlib.suppress(OSError):  # an empty directory is as good as none
                os.rmdir(path)
            os.rename(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and path.is_dir():  # somebody else was faster
            return
        if error.errno in FULL:
            raise DiskSpaceError(f"the disk of {path} is full: nothing was written") from error
        raise type(error)(f"`path` must be where a directory can be made, got {path}: {error}") from error


def _write_metadata(folder: Path, content: dict[str, Any], attributes: dict[str, Any]) -> None:
    zarr = load_zarr()
    codecs = importlib.import_module("zarr.codecs")
    group = zarr.create_group(store=_local_store()(folder), attributes={"rmtntk": attributes})
    n, m = content["shape"]
    tile = content["tile"]
    for kind in content["kinds"]:
        group.create_array(
            kind,
            shape=(n, m),
            chunks=(min(tile, n), min(tile, m)),
            dtype=content["dtype"],
            compressors=[
                codecs.BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
                codecs.Crc32cCodec(),
            ],
            fill_value=float("nan"),
            attributes={"storage": "tiles (i, j) with i <= j"} if content["symmetric"] else {},
        )


def open_store(path: Path) -> "Store":
    """Open a store, or raise if the directory is none."""
    if not path.exists():
        raise FileNotFoundError(f"`path` must be a kernel store, got {path}, which does not exist")
    if not path.is_dir():
        raise StoreError(f"`path` must be a directory, got the file {path}")
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]["rmtntk"]
        known = attributes["format"] == FORMAT
    except FileNotFoundError:
        raise StoreError(f"`path` must be a kernel store or free, got {path}, which holds something else") from None
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise StoreError(f"`path` must be a kernel store, got {path}, a directory that rmtntk did not write")
    if attributes.get("version") != VERSION:
        raise StoreError(
            f"{path} has format version {attributes.get('version')}, this rmtntk reads version {VERSION}: install the "
            "rmtntk that wrote it, or compute the kernel again"
        )
    if attributes.get("fingerprint") != digest(attributes.get("identity", {})):
        raise StoreError(f"{path} was altered: its fingerprint does not fit its metadata. Compute the kernel again")
    return Store(path, attributes)


class Store:
    """An open store.

    Attributes
    ----------
    path : Path
        Its directory.
    identity : dict
        What :func:`rmtntk.store.identity.identity` gave.
    whole : bool
        Whether tiles were made with tables of all rows.
    version : str
        The rmtntk that made it.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path
        self.attributes = attributes
        self.identity: dict[str, Any] = attributes["identity"]
        self.whole: bool = attributes["whole"]
        self.version: str = attributes["rmtntk"]
        self.fingerprint: str = attributes["fingerprint"]
        n, m = self.identity["shape"]
        self.kinds: tuple[str, ...] = tuple(self.identity["kinds"])
        self.grid = Grid(n, m, self.identity["tile"], self.identity["symmetric"])
        self.dtype = np.dtype(self.identity["dtype"])
        self._arrays: dict[str, Any] = {}

    def __reduce__(self) -> Any:
        return Store, (self.path, self.attributes)

    def _array(self, kind: str) -> Any:
        if kind not in self._arrays:
            zarr = load_zarr()
            try:
                array = zarr.open_array(
                    store=_local_store()(self.path), path=kind, mode="r+", config={"write_empty_chunks": True}
                )
            except Exception as error:  # on damaged metadata Zarr raises nearly anything
                raise StoreError(f"{self.path} has unreadable metadata of {kind!r}: {error}") from error
            tile = (min(self.grid.tile, self.grid.n), min(self.grid.tile, self.grid.m))
            if (array.shape, array.chunks, array.dtype) != (self.grid.shape, tile, self.dtype):
                raise StoreError(
                    f"{self.path} was altered: {kind!r} has shape {array.shape}, tiles {array.chunks} and type "
                    f"{array.dtype}, but the store's are {self.grid.shape}, {tile} and {self.dtype}"
                )
            self._arrays[kind] = array
        return self._arrays[kind]

    def prepare(self, kind: str) -> None:
        """Open an array, before threads ask for it."""
        self._array(kind)

    def tile_path(self, kind: str, i: int, j: int) -> Path:
        """Return the file of a tile."""
        return self.path / kind / "c" / str(i) / str(j)

    def write(self, tile: dict[str, AnyArray], i: int, j: int) -> None:
        """Write one tile of every kernel."""
        for kind, block in tile.items():
            self._array(kind)[self.grid.bounds(i, j)] = block

    def read(self, kind: str, i: int, j: int) -> AnyArray:
        """Read one tile and check its sum."""
        array = self._array(kind)
        try:
            return np.asarray(array[self.grid.bounds(i, j)])
        except UnfinishedStoreError:
            raise UnfinishedStoreError(
                f"tile ({i}, {j}) of {kind!r} has not been computed yet ({self.n_done(kind)} of {self.grid.n_tiles} "
                f"are in {self.path}): wait, or call KernelMatrix.compute with the same arguments to go on"
            ) from None
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a bad sum, or whatever the decoders raise on damaged bytes
            raise StoreError(
                f"tile ({i}, {j}) of {kind!r} in {self.path} is damaged ({error}): call KernelMatrix.compute with the "
                "same arguments, which makes it again"
            ) from error

    def done(self, kind: str) -> set[tuple[int, int]]:
        """Return the tiles that are there."""
        found: set[tuple[int, int]] = set()
        for i in range(self.grid.counts[0]):
            try:
                names = os.listdir(self.path / kind / "c" / str(i))
            except FileNotFoundError:
                continue
            first = i if self.grid.symmetric else 0
            found.update((i, int(name)) for name in names if name.isdigit() and int(name) >= first)
        return found

    def n_done(self, kind: str) -> int:
        """Return how many tiles are there."""
        return len(self.done(kind))

    def nbytes(self, kind: str) -> int:
        """Return the bytes of the tiles on disk."""
        return sum(self.tile_path(kind, i, j).stat().st_size for i, j in self.done(kind))

    def clean(self) -> None:
        """Remove what killed writers left; for the holder of the lock only."""
        sweep(self.path)
        for kind in self.kinds:
            for file in (self.path / kind).glob("c/*/.*.tmp"):
                file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer. The system lets go of the lock of a process that has died, so none is ever stale."""
        path = self.path / self.kinds[0] / _LOCK  # not beside the arrays, where Zarr looks for groups
        try:
            stream = open(path, "a+", encoding="ascii")  # noqa: SIM115 - held below
        except PermissionError as error:
            raise PermissionError(f"`path` must be writable, got {self.path}: {error}") from error
        except OSError as error:
            if error.errno in FULL:
                raise DiskSpaceError(f"the disk of {self.path} is full: free some space and call again") from error
            raise
        with stream:
            if not take(stream):
                stream.seek(0)
                raise StoreLockedError(
                    f"{self.path} is being written to by another computation (process {stream.read().strip() or '?'}): "
                    "wait for it, or read what is finished with KernelMatrix.open"
                )
            with contextlib.suppress(OSError):  # a full disk: the number is for people only
                stream.truncate(0)
                stream.write(str(os.getpid()))
                stream.flush()
            try:
                yield
            finally:
                release(stream)
