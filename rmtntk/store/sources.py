"""Where tiles come from: the disk, or the engine; and the few that are kept in memory."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from rmtntk._blas import one_blas_thread
from rmtntk._threads import get_num_threads
from rmtntk._typing import AnyArray
from rmtntk.store.blocks import Blocks
from rmtntk.store.files import Store
from rmtntk.store.grid import Grid

__all__ = ["Cache", "Computed", "Source", "Stored", "stream"]

_AHEAD = 1  # tiles that wait for a thread

Result = TypeVar("Result")


class Source(Protocol):
    """Tiles of one kernel."""

    grid: Grid
    dtype: np.dtype[Any]
    kind: str
    threaded: bool  # whether several threads are faster than one

    def tile(self, i: int, j: int) -> AnyArray:
        """Return tile (i, j), which is one that exists; nobody writes to it."""
        ...

    def n_done(self) -> int:
        """Return how many tiles there are."""
        ...

    def diagonal(self) -> AnyArray | None:
        """Return the diagonal if that is cheaper than its tiles."""
        ...


class Stored:
    """Tiles on disk."""

    threaded = True

    def __init__(self, store: Store, kind: str) -> None:
        self.store, self.kind = store, kind
        self.grid, self.dtype = store.grid, store.dtype

    def tile(self, i: int, j: int) -> AnyArray:
        """Read a tile."""
        return self.store.read(self.kind, i, j)

    def n_done(self) -> int:
        """Return how many tiles are finished."""
        return self.store.n_done(self.kind)

    def diagonal(self) -> AnyArray | None:
        """Return None: it is on disk as well."""
        return None


class Computed:
    """Tiles made when they are asked for; `seconds` and `entries` tell what that cost so far."""

    threaded = False  # the engine has its own

    def __init__(self, blocks: Blocks, grid: Grid) -> None:
        self.blocks, self.grid, self.dtype = blocks, grid, blocks.dtype
        self.kind = blocks.kinds[0]
        self.seconds, self.entries = 0.0, 0

    def tile(self, i: int, j: int) -> AnyArray:
        """Compute a tile."""
        start = time.perf_counter()
        found = self.blocks.tile(self.grid, i, j)[self.kind]
        self.seconds += time.perf_counter() - start
        self.entries += found.size
        return found

    def n_done(self) -> int:
        """Return the number of tiles: all are to be had."""
        return self.grid.n_tiles

    def diagonal(self) -> AnyArray | None:
        """Return the diagonal in closed form."""
        return self.blocks.diagonal(self.kind)


class Cache:
    """Tiles in memory, of at most `limit` bytes together.

    Where tiles are visited one after another and again from the start, those that came first stay and the others are
    not kept, since the ones used last are the ones wanted last; elsewhere the least recently used leave.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.nbytes = 0
        self._tiles: OrderedDict[tuple[int, int], AnyArray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tiles)

    def tile(self, i: int, j: int, *, cyclic: bool = False) -> AnyArray:
        """Return a tile."""
        with self._lock:
            found = self._tiles.get((i, j))
            if found is not None:
                self._tiles.move_to_end((i, j))
                return found
        found = self.source.tile(i, j)
        if found.nbytes > self.limit:
            return found
        with self._lock:
            if cyclic and self.nbytes + found.nbytes > self.limit:
                return found
            if (i, j) not in self._tiles:
                self._tiles[i, j] = found
                self.nbytes += found.nbytes
            while self.nbytes > self.limit:
                self.nbytes -= self._tiles.popitem(last=False)[1].nbytes
        return found


def stream(
    cache: Cache, places: list[tuple[int, int]], work: Callable[[tuple[int, int], AnyArray], Result]
) -> Iterator[tuple[tuple[int, int], Result]]:
    """Return what `work` makes of tiles, in this order; threads read tiles (or one computes them) and work on them.

    BLAS has one thread in each meanwhile, so that results do not depend on their number.
    """
    threads = get_num_threads()
    waiting: deque[tuple[tuple[int, int], Future[Result]]] = deque()

    def read(place: tuple[int, int]) -> Result:
        with one_blas_thread():
            return work(place, cache.tile(*place, cyclic=True))

    def made(place: tuple[int, int], held: list[AnyArray]) -> Result:
        with one_blas_thread():
            return work(place, held.pop())  # the only reference, unless it is cached

    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            for place in places:
                if cache.source.threaded:
                    waiting.append((place, pool.submit(read, place)))
                else:
                    waiting.append((place, pool.submit(made, place, [cache.tile(*place, cyclic=True)])))
                if len(waiting) > threads + _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
