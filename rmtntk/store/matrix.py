r"""A kernel larger than memory: on disk in tiles, or computed tile by tile whenever it is used."""

import importlib
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse.linalg import LinearOperator

from rmtntk._threads import get_num_threads
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_integer
from rmtntk.errors import MissingExtraError
from rmtntk.kernels import Diagonal
from rmtntk.network import Network
from rmtntk.solvers import Eigenpairs, RidgeSolution
from rmtntk.store import compute, files, solve
from rmtntk.store.blocks import Blocks, check_kinds
from rmtntk.store.budget import check_limit, check_result, parse_bytes
from rmtntk.store.errors import StoreError
from rmtntk.store.grid import Grid
from rmtntk.store.indexing import gather, gather_points, select
from rmtntk.store.products import TiledOperator, multiply
from rmtntk.store.progress import Watch, check_progress
from rmtntk.store.sources import Cache, Computed, Source, Stored

__all__ = ["KernelCost", "KernelMatrix"]

Kind = Literal["ck", "nngp", "ntk"]
Size = int | str


@dataclass(frozen=True)
class KernelCost:
    """What one product with the kernel costs, whatever the number of vectors up to a hundred or so.

    Attributes
    ----------
    n_tiles : int
        Tiles visited, of which `n_cached` are in memory.
    n_cached : int
        Tiles that are not read or computed again.
    multiplications : float
        In X Xᵀ, p for each entry computed; 0 for a stored kernel.
    bytes_read : int
        From the disk; 0 for a kernel computed on the fly.
    seconds : float
        Estimate for computing, from tiles made so far or one made for this; nan for a stored kernel.
    tile_bytes : int
        Of one tile in memory.
    """

    n_tiles: int
    n_cached: int
    multiplications: float
    bytes_read: int
    seconds: float
    tile_bytes: int


class KernelMatrix:
    r"""A kernel in tiles, of which memory holds a few at a time; made by `compute`, `open` or `on_the_fly`.

    Attributes
    ----------
    shape : tuple of int
        (n, m).
    dtype : numpy.dtype
        float32 or float64.
    kind : {"ck", "nngp", "ntk"}
        Which kernel.
    tile : int
        Rows and columns of a tile.
    is_symmetric : bool
        Whether this is the kernel of one set of samples; of its tiles those with i ≤ j are kept, each once.
    n_tiles, n_tiles_done : int
        Tiles there are in the end, and now: a store can be read while it is written.
    path : Path or None
        Of the store.

    Notes
    -----
    ``kernel[i, j]`` takes what NumPy takes (integers, slices, arrays of integers or booleans) and returns arrays;
    ``kernel @ v`` and ``v @ kernel`` visit every tile once for all columns of v. Sums are in float64 if v is. Every
    tile read is checked against its CRC-32C. Objects can be pickled; the copy opens the store again.
    """

    __array_ufunc__ = None  # ndarray @ kernel is ours
    ndim = 2

    def __init__(self, source: Source, *, cache: int, limit: int | None) -> None:
        self._source = source
        self._limit = limit
        self._cache = Cache(source, cache)

    # ------------------------------------------------------------------------------------------------------ making
    @classmethod
    def compute(
        cls,
        net: Network,
        x: ArrayLike,
        path: str | os.PathLike[str],
        *,
        kind: Kind | tuple[Kind, ...] = "ntk",
        y: ArrayLike | None = None,
        tile: int = 1024,
        dtype: DTypeLike = np.float64,
        memory_limit: Size | None = None,
        diagonal: Diagonal = None,
        progress: Watch = None,
        cache: Size = "256MiB",
        verify: bool = True,
        check_disk: bool = True,
    ) -> Any:
        r"""Compute kernels tile by tile into a Zarr store, or go on where an earlier call was stopped.

        Parameters
        ----------
        net : Network
            The network. If its `tau0` is None, that of all of `x` is taken.
        x : array_like, shape (n, p)
            Samples in rows; a memory map of the type of the result is read block by block.
        path : path-like
            Directory of the store: new, empty, or one made by the same call.
        kind : {"ck", "nngp", "ntk"} or a tuple of these
            Kernels; several are computed in one pass into one store.
        y : array_like, shape (m, p), optional
            Second set of samples, for a rectangular kernel.
        tile : int
            Rows and columns of a tile, a file each. Need not divide n.
        dtype : {float64, float32}
            Of the tiles; see :func:`rmtntk.ck`.
        memory_limit : int or str, optional
            Largest memory of this process, in bytes or like "2GiB", data and interpreter included. It decides how many
            tiles are under way at a time; it does not change any digit.
        diagonal : "nan", float or ndarray of shape (n,), optional
            For the NTK of activations that jump, as in :func:`rmtntk.ntk`.
        progress : bool or callable, optional
            A callable gets a :class:`Progress` after every tile. None: a bar with the time left if stderr is a terminal
            and tqdm is installed (extra ``progress``).
        cache : int or str
            Tiles that the result keeps in memory while it is read.
        verify : bool
            Read all tiles found and check their sums; those that are wrong are computed again. False trusts them.
        check_disk : bool
            Raise before any work if the tiles would not fit on the disk uncompressed.

        Returns
        -------
        KernelMatrix or tuple of KernelMatrix
            A tuple if `kind` is one.

        Raises
        ------
        StoreError
            If `path` holds anything else: another network, data, kind or option (the message says which), or a foreign
            directory; if it is begun by another version of rmtntk.
        StoreLockedError
            If another process is writing to it.
        DiskSpaceError
            If the disk has no room, beforehand or on the way; finished tiles are kept.
        MemoryLimitError
            If a tile does not fit in `memory_limit`; the message says what would.
        MissingExtraError
            If Zarr is not installed (extra ``store``).
        InfiniteDiagonalError, AccuracyError, TypeError, ValueError
            As for :func:`rmtntk.ntk`; before any work where possible.

        Notes
        -----
        Entries are those of :func:`rmtntk.ck` and the others up to the order in which BLAS sums p products: within one
        eps of sqrt(K_ii K_jj), and most of them equal; the diagonal is exact. The tiles do not depend on threads or
        interruptions, to the last bit, on one machine with one set of libraries.
        A killed process leaves whole tiles only. Power failures can leave a torn tile, which its checksum shows.
        A user's function (:func:`rmtntk.activations.custom`) is told from another by its values at 2049 points.
        """
        kinds, single = check_kinds(kind)
        where = files.as_path(path)
        side = check_integer(tile, "tile", low=1)
        limit = None if memory_limit is None else parse_bytes(memory_limit, "memory_limit")
        held = parse_bytes(cache, "cache")
        check_progress(progress)
        if where.exists() and not where.is_dir():
            raise StoreError(f"`path` must be a directory, got the file {where}")
        blocks = Blocks(net, x, y, kinds, dtype, diagonal)
        store = compute.run(blocks, where, side, limit, progress, verify=verify, check_disk=check_disk)
        found = tuple(cls(Stored(store, name), cache=held, limit=limit) for name in kinds)
        return found[0] if single else found

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        kind: Kind | tuple[Kind, ...] | None = None,
        cache: Size = "256MiB",
        memory_limit: Size | None = None,
    ) -> Any:
        """Open a store to read it, also while it is being written.

        Parameters
        ----------
        path : path-like
            Directory of the store.
        kind : {"ck", "nngp", "ntk"} or a tuple of these, optional
            Which of its kernels; may be left out if there is one.
        cache : int or str
            Tiles kept in memory.
        memory_limit : int or str, optional
            Largest memory of this process; results that would not fit raise.

        Returns
        -------
        KernelMatrix or tuple of KernelMatrix
            A tuple if `kind` is one.

        Raises
        ------
        FileNotFoundError, StoreError
            If there is no store, or a foreign or altered one.
        ValueError
            If the store has several kernels and `kind` is not given, or not the one asked for.
        MissingExtraError
            If Zarr is not installed (extra ``store``).
        """
        files.load_zarr()
        store = files.open_store(files.as_path(path))
        held = parse_bytes(cache, "cache")
        limit = None if memory_limit is None else parse_bytes(memory_limit, "memory_limit")
        if kind is None:
            if len(store.kinds) > 1:
                raise ValueError(f"`kind` must say which of the store's kernels {store.kinds} to open, got None")
            kinds, single = store.kinds, True
        else:
            kinds, single = check_kinds(kind)
        for name in kinds:
            if name not in store.kinds:
                raise ValueError(f"`kind` must be one of the store's kernels {store.kinds}, got {name!r}")
            store.prepare(name)
        found = tuple(cls(Stored(store, name), cache=held, limit=limit) for name in kinds)
        return found[0] if single else found

    @classmethod
    def on_the_fly(
        cls,
        net: Network,
        x: ArrayLike,
        *,
        kind: Kind = "ntk",
        y: ArrayLike | None = None,
        tile: int = 1024,
        dtype: DTypeLike = np.float64,
        memory_limit: Size | None = None,
        diagonal: Diagonal = None,
        cache: Size = 0,
    ) -> "KernelMatrix":
        r"""Return a kernel that is never stored: tiles are computed when they are needed.

        Parameters
        ----------
        net, x, kind, y, tile, dtype, memory_limit, diagonal
            As for :meth:`compute`, `kind` being a single one.
        cache : int or str
            Memory for tiles that are kept; a product computes the others only.

        Returns
        -------
        KernelMatrix

        Raises
        ------
        MemoryLimitError, InfiniteDiagonalError, AccuracyError, TypeError, ValueError
            As for :meth:`compute`.

        Notes
        -----
        A product costs as much as the kernel: n² p / 2 multiplications for the tiles (n m p if rectangular), and n² k
        for k vectors; :meth:`cost` says how long that takes here. Give all vectors at once: up to a hundred or so are
        nearly free. Reading a row computes its n / `tile` tiles. Memory: data, tables of the rows, a tile, the cache.
        """
        kinds, single = check_kinds(kind)
        if not single:
            raise TypeError(f"`kind` must be a single kernel on the fly, got {kind!r}: make one KernelMatrix for each")
        side = check_integer(tile, "tile", low=1)
        limit = None if memory_limit is None else parse_bytes(memory_limit, "memory_limit")
        held = parse_bytes(cache, "cache")
        blocks = Blocks(net, x, y, kinds, dtype, diagonal)
        grid = Grid(*blocks.shape, side, blocks.symmetric)
        # beside the tile that is made, those that a product works on
        whole, _ = compute.plan_memory(blocks, grid, limit, whole=None, copies=get_num_threads() + 2)
        check_limit(min(held, grid.n_entries * blocks.dtype.itemsize), limit, "the cache", "take a smaller `cache`")
        blocks.prepare(whole=whole)
        return cls(Computed(blocks, grid), cache=held, limit=limit)

    # ----------------------------------------------------------------------------------------------------- what it is
    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n, m)."""
        return self._source.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""
        return self._source.dtype

    @property
    def kind(self) -> str:
        """Which kernel."""
        return self._source.kind

    @property
    def tile(self) -> int:
        """Rows and columns of a tile."""
        return self._source.grid.tile

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    @property
    def is_symmetric(self) -> bool:
        """Whether this is the kernel of one set of samples."""
        return self._source.grid.symmetric

    @property
    def n_tiles(self) -> int:
        """Number of tiles there are when all are done."""
        return self._source.grid.n_tiles

    @property
    def n_tiles_done(self) -> int:
        """Number of tiles that can be read now."""
        return self._source.n_done()

    @property
    def path(self) -> Any:
        """Directory of the store, or None."""
        return self._source.store.path if isinstance(self._source, Stored) else None

    @property
    def nbytes_stored(self) -> int:
        """Bytes on disk of the tiles of this kernel."""
        return self._source.store.nbytes(self.kind) if isinstance(self._source, Stored) else 0

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        where = f"in {self.path}" if self.path is not None else "computed on the fly"
        return (
            f"<KernelMatrix {self.kind} {self.shape} {self.dtype}, {self.n_tiles_done} of {self.n_tiles} tiles of "
            f"{self.tile}, {where}>"
        )

    def cost(self) -> KernelCost:
        """Return what a product costs; on the fly, a tile is computed to time it if none has been yet."""
        source, grid = self._source, self._source.grid
        tile_bytes = min(grid.tile, grid.n) * min(grid.tile, grid.m) * self.dtype.itemsize
        cached, kept = len(self._cache), self._cache.nbytes // self.dtype.itemsize
        if isinstance(source, Computed):
            if source.entries == 0:
                source.tile(0, min(1, grid.counts[1] - 1))
            left = grid.n_entries - kept
            seconds = source.seconds / source.entries * left
            return KernelCost(grid.n_tiles, cached, float(left * source.blocks.x.shape[1]), 0, seconds, tile_bytes)
        return KernelCost(grid.n_tiles, cached, 0.0, self.nbytes_stored, float("nan"), tile_bytes)

    # ------------------------------------------------------------------------------------------------------- entries
    def __getitem__(self, key: Any) -> Any:
        chosen = select(key, self.shape)
        count = int(np.prod(chosen.shape, dtype=np.int64))
        check_result(count * self.dtype.itemsize, self._limit, chosen.shape)
        grid, tile = self._source.grid, self._cache.tile
        if chosen.outer:
            out = np.empty((len(chosen.rows), len(chosen.columns)), dtype=self.dtype)
            gather(grid, tile, chosen.rows, chosen.columns, out)
        else:
            out = np.empty(len(chosen.rows), dtype=self.dtype)
            gather_points(grid, tile, chosen.rows, chosen.columns, out)
        return out.reshape(chosen.shape)[()]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        """Return the whole kernel as an array, or raise MemoryLimitError if that does not fit."""
        if copy is False:
            raise ValueError("`copy` must not be False: an array of a tiled kernel is always new")
        kind = self.dtype if dtype is None else np.dtype(dtype)
        check_limit(
            self.size * kind.itemsize, self._limit, f"the kernel of shape {self.shape} as an array",
            "read some rows at a time, as in kernel[:1000], or use products with @",
        )  # fmt: skip
        out = np.empty(self.shape, dtype=kind)
        gather(self._source.grid, self._cache.tile, np.arange(self.shape[0]), np.arange(self.shape[1]), out)
        return out

    def diagonal(self) -> AnyArray:
        """Return the entries (i, i), shape (min(n, m),)."""
        if self.is_symmetric:
            found = self._source.diagonal()
            if found is not None:
                return found
        index = np.arange(min(self.shape))
        return np.asarray(self[index, index])

    def trace(self) -> float:
        """Return the sum of the diagonal, in float64."""
        return float(self.diagonal().sum(dtype=np.float64))

    # ------------------------------------------------------------------------------------------------------ products
    def matvec(self, v: ArrayLike) -> AnyArray:
        """Return K v, shape (n,) or (n, k), for v of shape (m,) or (m, k), visiting every tile once.

        The result has the wider type of v and the tiles; v in float64 makes all sums float64.
        """
        return self._product(v, "v", transpose=False)

    def rmatvec(self, v: ArrayLike) -> AnyArray:
        """Return Kᵀ v, shape (m,) or (m, k)."""
        return self._product(v, "v", transpose=True)

    def _product(self, v: ArrayLike, name: str, *, transpose: bool) -> AnyArray:
        block = check_array(v, name, 1 if np.ndim(v) == 1 else 2, keep_float32=True)
        want = self.shape[0] if transpose else self.shape[1]
        if len(block) != want:
            raise ValueError(f"`{name}` must have {want} entries along the kernel's axis, got shape {block.shape}")
        found = multiply(self._cache, block.reshape(len(block), -1), transpose=transpose)
        return found[:, 0] if block.ndim == 1 else found

    def __matmul__(self, v: ArrayLike) -> AnyArray:
        return self.matvec(v)

    def __rmatmul__(self, v: ArrayLike) -> AnyArray:
        return self.rmatvec(np.asarray(v).T).T

    def as_linear_operator(self) -> LinearOperator:
        """Return the kernel as SciPy's LinearOperator in float64, for `eigsh`, `cg` and the like."""
        return TiledOperator(self._cache)

    def eigenpairs(
        self,
        k: int = 20,
        *,
        which: Literal["largest", "magnitude"] = "largest",
        tol: float = 1e-8,
        maxiter: int = 200,
        throw: bool = True,
    ) -> Eigenpairs:
        """Return the k leading eigenpairs by block Lanczos: a pass over the tiles for each block of 1.25 k vectors.

        Parameters, result and errors are those of :func:`rmtntk.eigenpairs`. SciPy's `eigsh` makes a pass for each
        vector, about ten times as many.
        """
        self._need_symmetric("eigenpairs")
        return solve.eigenpairs(self._apply, self.shape[0], k, which, tol, maxiter, throw=throw)

    def ridge_solve(
        self,
        b: ArrayLike,
        ridge: float,
        *,
        tol: float = 1e-8,
        maxiter: int = 1000,
        landmarks: int | None = None,
        throw: bool = True,
        progress: Any = None,
    ) -> RidgeSolution:
        """Solve (K + λ I) x = b by block conjugate gradients, a pass over the tiles for each iteration.

        Parameters
        ----------
        b : array_like, shape (n,) or (n, k)
            Right sides; several share the passes.
        ridge : float
            λ ≥ 0. Tiles of float32 make a kernel that is positive only up to about 6e-8 of its norm: take a larger one.
        tol, maxiter, throw, progress
            As for :func:`rmtntk.ridge_solve`.
        landmarks : int, optional
            Columns of the Nyström preconditioner, n × landmarks in memory; by default 1000, or n/4 if less.

        Returns
        -------
        RidgeSolution

        Raises
        ------
        ConvergenceError
            If `tol` is not met and `throw` is true.
        TypeError, ValueError
            If an argument is not as described, or the kernel is rectangular.
        """
        self._need_symmetric("a ridge system")
        return solve.ridge_solve(
            self._apply, self._columns, self.diagonal().astype(np.float64), b, ridge, tol, maxiter, landmarks,
            throw=throw, progress=progress,
        )  # fmt: skip

    def _apply(self, block: FloatArray) -> FloatArray:
        return multiply(self._cache, block)

    def _columns(self, chosen: Any) -> AnyArray:
        return np.asarray(self[:, chosen])

    def _need_symmetric(self, what: str) -> None:
        if not self.is_symmetric:
            raise ValueError(f"the kernel must be symmetric for {what}, got a cross kernel of shape {self.shape}")

    # --------------------------------------------------------------------------------------------------- ecosystem
    def to_dask(self) -> Any:
        """Return the kernel as a Dask array with a chunk for each tile; tasks read the store when they run.

        Raises
        ------
        MissingExtraError
            If Dask is not installed (extra ``distributed``).
        """
        try:
            array = importlib.import_module("dask.array")
        except ImportError:
            raise MissingExtraError("dask", "distributed", "a kernel as a Dask array") from None
        name = None
        if isinstance(self._source, Stored):
            store = self._source.store
            name = f"rmtntk-{self.kind}-{store.fingerprint[:32]}"
        chunks = (min(self.tile, self.shape[0]), min(self.tile, self.shape[1]))
        return array.from_array(
            self, chunks=chunks, name=name or False, asarray=False, fancy=False, meta=np.empty((0, 0), self.dtype)
        )

    def __reduce__(self) -> Any:
        return _again, (self._source, self._cache.limit, self._limit)


def _again(source: Source, cache: int, limit: int | None) -> KernelMatrix:
    return KernelMatrix(source, cache=cache, limit=limit)
