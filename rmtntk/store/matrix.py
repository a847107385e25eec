r"""A kernel larger than memory: on disk in tiles, or computed tile by tile whenever it is used."""

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rmtntk._threads import get_num_threads
from rmtntk._validation import check_integer
from rmtntk.kernels import Diagonal
from rmtntk.network import Network
from rmtntk.store import compute, files
from rmtntk.store.blocks import Blocks, check_kinds
from rmtntk.store.budget import check_limit, parse_bytes
from rmtntk.store.errors import StoreError
from rmtntk.store.grid import Grid
from rmtntk.store.progress import Watch, check_progress
from rmtntk.store.sources import Computed, Stored
from rmtntk.store.tiled import TiledKernel

__all__ = ["KernelMatrix"]

Kind = Literal["ck", "nngp", "ntk"]
Size = int | str


class KernelMatrix(TiledKernel):
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
