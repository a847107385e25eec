"""Tiles as tasks on a cluster: workers compute them and write them to a store that all of them see."""

import importlib
import os
import uuid
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rmtntk._validation import check_integer
from rmtntk._version import __version__
from rmtntk.errors import MissingExtraError
from rmtntk.kernels import Diagonal
from rmtntk.network import Network
from rmtntk.store import compute, files
from rmtntk.store.blocks import Blocks, check_kinds
from rmtntk.store.budget import parse_bytes, resident
from rmtntk.store.errors import StoreError
from rmtntk.store.matrix import KernelMatrix, Kind
from rmtntk.store.progress import Watch, check_progress, watched
from rmtntk.store.sources import Stored

__all__ = ["compute_distributed"]

_TASKS = 4  # tiles that wait at each thread of the cluster
_RETRIES = 5  # workers that may die under a tile
_LOADED = 64 << 20  # what a worker loads with its first tile: Zarr and compiled loops

_held: dict[str, Blocks] = {}  # of this worker: the last data it worked on


def compute_distributed(
    client: Any,
    net: Network,
    x: ArrayLike,
    path: str | os.PathLike[str],
    *,
    kind: Kind | tuple[Kind, ...] = "ntk",
    y: ArrayLike | None = None,
    tile: int = 1024,
    dtype: DTypeLike = np.float64,
    memory_limit: int | str | None = None,
    diagonal: Diagonal = None,
    progress: Watch = None,
    cache: int | str = "256MiB",
    verify: bool = True,
    check_disk: bool = True,
) -> Any:
    """Compute kernels into a store with the workers of a Dask cluster; else as :meth:`KernelMatrix.compute`.

    Parameters
    ----------
    client : dask.distributed.Client
        The cluster. Workers must see `path` under the same name (a shared file system), have this version of rmtntk,
        and room for the data and their tables.
    memory_limit : int or str, optional
        Largest memory of each worker, in bytes or like "2GiB", what it holds already and the data included; checked
        before anything is sent, of the workers there are then. It decides whether workers hold tables of all rows.
        Where Dask has limits of its own (``LocalCluster(memory_limit=...)``), take no more than those.
    net, x, path, kind, y, tile, dtype, diagonal, progress, cache, verify, check_disk
        As for :meth:`KernelMatrix.compute`. The store is the same, and either can finish what the other began.

    Returns
    -------
    KernelMatrix or tuple of KernelMatrix

    Raises
    ------
    MissingExtraError
        If dask.distributed is not installed (extra ``distributed``).
    StoreError
        If versions of rmtntk or NumPy differ between here and a worker, a worker does not see the store, or as for
        :meth:`KernelMatrix.compute`.
    MemoryLimitError
        If data, tables and a tile for each of a worker's threads do not fit in `memory_limit`; or, without one, if this
        process, which makes the tables to check them, has no room for a tile.

    Notes
    -----
    A task is one tile of every kernel. A worker that dies takes its tiles under way with it, which others make again.
    On workers with the same processor and libraries tiles are those of a single process, to the last bit; others differ
    in the last digits. The data go to each worker once; n p values, and nothing comes back.
    """
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise MissingExtraError("distributed", "distributed", "a kernel on a cluster") from None
    if not isinstance(client, distributed.Client) or client.asynchronous:
        raise TypeError(f"`client` must be a synchronous dask.distributed.Client, got {client!r}")
    kinds, single = check_kinds(kind)
    where = files.as_path(path)
    side = check_integer(tile, "tile", low=1)
    held = parse_bytes(cache, "cache")
    limit = None if memory_limit is None else parse_bytes(memory_limit, "memory_limit")
    check_progress(progress)
    if where.exists() and not where.is_dir():
        raise StoreError(f"`path` must be a directory, got the file {where}")
    blocks = Blocks(net, x, y, kinds, dtype, diagonal)

    def fill(store: files.Store, _: Blocks, missing: list[tuple[int, int]], __: int, watch: Watch) -> None:
        _check_workers(client, store)
        token = uuid.uuid4().hex
        shared = client.scatter([(blocks.net, blocks.x, blocks.y, diagonal)], broadcast=True, hash=False)[0]
        arguments = (token, store, shared)
        _hand_out(distributed, client, arguments, missing, store.grid.n_tiles, watch)
        client.run(_forget, token)

    maker = compute.Maker() if limit is None else _worker(client, blocks)
    store = compute.run(
        blocks, where, side, limit, progress, verify=verify, check_disk=check_disk, fill=fill, maker=maker
    )  # fmt: skip
    found = tuple(KernelMatrix(Stored(store, name), cache=held, limit=None) for name in kinds)
    return found[0] if single else found


def _worker(client: Any, blocks: Blocks) -> compute.Maker:
    """Return what the fullest worker will hold, and how many tiles the one with most threads makes at a time."""
    found = client.run(resident)
    if not found:
        raise StoreError("`client` must have at least one worker, got none")
    data = blocks.x.nbytes + (0 if blocks.y is None else blocks.y.nbytes)
    # as they came, and again where the message put them at odd addresses
    return compute.Maker("a worker", max(found.values()) + _LOADED + 2 * data, max(client.nthreads().values()))


def _hand_out(
    distributed: Any, client: Any, arguments: tuple[Any, ...], missing: list[tuple[int, int]], total: int, watch: Watch
) -> None:
    """Keep every thread of the cluster busy, a few tiles ahead."""
    found = done = total - len(missing)
    left = iter(missing)
    threads = max(1, sum(client.nthreads().values()))

    def submit(place: tuple[int, int]) -> Any:
        return client.submit(_make, *arguments, *place, pure=False, retries=_RETRIES)

    with watched(total, found, watch) as tell:
        pool = distributed.as_completed([submit(place) for place in islice(left, _TASKS * threads)])
        try:
            for future in pool:
                future.result()
                done += 1
                tell(done)
                for place in islice(left, 1):
                    pool.add(submit(place))
        except BaseException:
            client.cancel(list(pool.futures))
            raise


def _make(token: str, store: files.Store, shared: tuple[Any, ...], i: int, j: int) -> None:
    """Compute and write a tile, in a worker."""
    blocks = _held.get(token)
    if blocks is None:
        net, x, y, diagonal = shared
        blocks = Blocks(net, x, y, store.kinds, store.dtype, diagonal)
        blocks.prepare(whole=store.whole)
        _held.clear()
        _held[token] = blocks
    store.write(blocks.tile(store.grid, i, j), i, j)


def _forget(token: str) -> None:
    _held.pop(token, None)


def _look(path: str) -> tuple[str, str, bool]:
    return __version__, np.__version__, os.path.exists(os.path.join(path, "zarr.json"))


def _check_workers(client: Any, store: files.Store) -> None:
    """Raise if workers would write other digits, or elsewhere."""
    try:
        found = client.run(_look, str(store.path))
    except ModuleNotFoundError as error:
        raise StoreError(f"a worker of `client` lacks a package: {error}; all need rmtntk {__version__}") from error
    if not found:
        raise StoreError("`client` must have at least one worker, got none")
    for worker, (version, numpy, sees) in found.items():
        if version != __version__ or numpy != np.__version__:
            raise StoreError(
                f"the worker {worker} has rmtntk {version} and NumPy {numpy}, here are {__version__} and "
                f"{np.__version__}: install the same on all, or last digits differ from tile to tile"
            )
        if not sees:
            raise StoreError(f"the worker {worker} does not see {store.path}: `path` must be on a shared file system")
