"""Tiles from the engine to the disk: one thread asks the engine for the next, others code and write the last ones."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rmtntk._threads import get_num_threads
from rmtntk._typing import AnyArray
from rmtntk._version import __version__
from rmtntk.errors import MemoryLimitError
from rmtntk.store import files
from rmtntk.store.blocks import Blocks
from rmtntk.store.budget import check_limit, disk_free, resident, show
from rmtntk.store.errors import DiskSpaceError, StoreError
from rmtntk.store.files import Store
from rmtntk.store.grid import Grid
from rmtntk.store.identity import differences, identity
from rmtntk.store.progress import Watch, watched

__all__ = ["Maker", "plan_memory", "run"]

_IN_FLIGHT = 4  # tiles being coded and written at most
_COPIES = 3  # of a tile while it is written: itself, coded, and as it goes to the file
_SPARE = 16 << 20  # Zarr and threads

Fill = Callable[[Store, Blocks, list[tuple[int, int]], int, Watch], None]


@dataclass(frozen=True)
class Maker:
    """The process that makes tiles.

    Attributes
    ----------
    name : str
        What messages call it.
    held : int or None
        Bytes that it holds before the first tile, data included; None for this process, which is asked.
    tiles : int
        Tiles that it makes at a time.
    """

    name: str = "this process"
    held: int | None = None
    tiles: int = 1


_HERE = Maker()


def plan_memory(
    blocks: Blocks, grid: Grid, limit: int | None, *, whole: bool | None, copies: int, maker: Maker = _HERE
) -> tuple[bool, int]:
    """Decide whether tables of all rows fit, and how many tiles may wait to be written (0: none while one is made).

    Raises
    ------
    MemoryLimitError
        If not even one tile fits; the message has the largest that does.
    """
    n_rows = grid.n if grid.symmetric else grid.n + grid.m
    tile = min(grid.tile, max(grid.shape))
    results = len(blocks.kinds) * min(tile, grid.n) * min(tile, grid.m) * blocks.dtype.itemsize
    single = blocks.work_bytes(tile) + copies * results
    tables = blocks.table_bytes(n_rows)
    held = resident() if maker.held is None else maker.held
    room = None if limit is None else limit - held
    if whole is None:
        whole = room is None or maker.tiles * single + _SPARE + tables <= room
    need = maker.tiles * single + _SPARE + (tables if whole else 0)
    if room is not None and need > room:
        smaller = tile
        while smaller > 1 and _least(blocks, smaller, copies * results * (smaller / tile) ** 2, maker) > room:
            smaller //= 2
        fits = smaller > 1 and not whole
        raise MemoryLimitError(
            f"`memory_limit` must be at least {show(need + held)} here, got {show(limit or 0)}: {maker.name} "
            f"holds {show(held)} already, data included, and a tile of {tile} rows needs {show(single)}"
            + (f" in each of {maker.tiles} threads" if maker.tiles > 1 else "")
            + (f", the tables of the rows {show(tables)}" if whole else "")
            + (f"; take tile={smaller}" if fits else "; take a larger `memory_limit`, or fewer kernels at a time")
        )
    if maker.held is None:
        check_limit(need, None, f"a tile of {tile} rows", "take a smaller `tile`")
    spare = _IN_FLIGHT * copies * results if room is None else room - need
    return whole, max(0, min(_IN_FLIGHT, int(spare // (copies * results))))


def _least(blocks: Blocks, tile: int, results: float, maker: Maker) -> float:
    return maker.tiles * (blocks.work_bytes(tile) + results) + _SPARE


def run(
    blocks: Blocks,
    path: Path,
    tile: int,
    limit: int | None,
    progress: Watch,
    *,
    verify: bool,
    check_disk: bool,
    fill: Fill | None = None,
    maker: Maker = _HERE,
) -> Store:
    """Make, or go on making, the store of these blocks at `path`; `fill` may make the tiles in another way.

    `limit` is that of the process that makes them.
    """
    files.load_zarr()
    wanted = identity(blocks, tile)
    n, m = blocks.shape
    grid = Grid(n, m, tile, blocks.symmetric)
    prepared, waiting = False, 0
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        store = files.open_store(path)
        other = differences(store.identity, wanted)
        if other:
            raise StoreError(
                f"{path} holds another kernel: it differs in {other}. Give another `path`, or remove the directory"
            )
    else:
        # before anything is made: what cannot be computed or stored leaves no trace
        whole, waiting = plan_memory(blocks, grid, limit, whole=None, copies=_COPIES, maker=maker)
        if check_disk:
            _check_disk(path, grid.n_entries, blocks)
        blocks.prepare(whole=whole)
        prepared = True
        files.create(path, wanted, whole=whole)
        store = files.open_store(path)
        other = differences(store.identity, wanted)
        if other:
            raise StoreError(f"{path} was made by another computation meanwhile: it differs in {other}")
    if not verify and len(_finished(store)) == grid.n_tiles:
        return store
    with store.lock():
        store.clean()
        finished = _sound(store, limit if maker is _HERE else None) if verify else _finished(store)
        missing = [place for place in grid.tiles() if place not in finished]
        if not missing:
            return store
        if store.version != __version__:
            raise StoreError(
                f"{path} was begun by rmtntk {store.version}, this is {__version__}, whose last digits may differ: "
                "finish it with that version, or give another `path`"
            )
        if check_disk:
            _check_disk(path, sum(_entries(grid, place) for place in missing), blocks)
        if not prepared or blocks.whole != store.whole:
            _, waiting = plan_memory(blocks, grid, limit, whole=store.whole, copies=_COPIES, maker=maker)
            blocks.prepare(whole=store.whole)
        with _explained(store):
            (fill or _fill)(store, blocks, missing, waiting, progress)
        left = grid.n_tiles - len(_finished(store))
        if left:
            raise StoreError(f"{left} tiles of {path} have gone while others were made: call again to make them")
    return store


def _entries(grid: Grid, place: tuple[int, int]) -> int:
    rows, columns = grid.size(*place)
    return rows * columns


def _check_disk(path: Path, entries: int, blocks: Blocks) -> None:
    need = entries * len(blocks.kinds) * blocks.dtype.itemsize
    free = disk_free(path)
    if need > free:
        raise DiskSpaceError(
            f"the tiles still to write take up to {show(need)}, but {show(free)} are free on the disk of {path}: free "
            "some space, take dtype='float32' or another `path`, or check_disk=False if compression will do"
        )


def _finished(store: Store) -> set[tuple[int, int]]:
    found = [store.done(kind) for kind in store.kinds]
    return set.intersection(*found)


def _sound(store: Store, limit: int | None) -> set[tuple[int, int]]:
    """Return the finished tiles whose sums are right, having read them all."""
    places = sorted(_finished(store))
    threads = get_num_threads()
    if limit is not None:
        held = _COPIES * min(store.grid.tile, store.grid.n) * min(store.grid.tile, store.grid.m) * store.dtype.itemsize
        threads = max(1, min(threads, (limit - resident()) // held))
    for kind in store.kinds:
        store.prepare(kind)

    def sound(place: tuple[int, int]) -> bool:
        try:
            for kind in store.kinds:
                store.read(kind, *place)
        except StoreError:
            return False
        return True

    with ThreadPoolExecutor(threads) as pool:
        return {place for place, good in zip(places, pool.map(sound, places), strict=True) if good}


@contextmanager
def _explained(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError) or error.errno not in files.FULL:
            raise
        raise DiskSpaceError(
            f"the disk of {store.path} is full: {len(_finished(store))} of {store.grid.n_tiles} tiles are finished and "
            "kept; free some space and call again with the same arguments"
        ) from error


def _fill(store: Store, blocks: Blocks, missing: list[tuple[int, int]], waiting: int, progress: Watch) -> None:
    """Compute and write the missing tiles."""
    total = store.grid.n_tiles
    found = done = total - len(missing)
    for kind in store.kinds:
        store.prepare(kind)
    pending: deque[Future[None]] = deque()
    with watched(total, found, progress) as tell:
        if waiting == 0:
            for i, j in missing:
                store.write(blocks.tile(store.grid, i, j), i, j)
                done += 1
                tell(done)
            return
        with ThreadPoolExecutor(min(waiting, get_num_threads() + 1)) as pool:
            try:
                for i, j in missing:
                    pending.append(pool.submit(_write, store, [blocks.tile(store.grid, i, j)], i, j))
                    while pending and (len(pending) >= waiting or pending[0].done()):
                        pending.popleft().result()
                        done += 1
                        tell(done)
                while pending:
                    pending.popleft().result()
                    done += 1
                    tell(done)
            except BaseException:
                for future in pending:
                    future.cancel()
                raise


def _write(store: Store, held: list[dict[str, AnyArray]], i: int, j: int) -> None:
    """Write the tile that the list holds, whose only owner this call then is."""
    store.write(held.pop(), i, j)
