r"""A kernel in tiles: its entries, products, eigenpairs and ridge systems, wherever the tiles come from."""

import importlib
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse.linalg import LinearOperator

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, to_host
from rmtntk.errors import MissingExtraError
from rmtntk.solvers import Eigenpairs, RidgeSolution
from rmtntk.store import solve
from rmtntk.store.budget import check_limit, check_result
from rmtntk.store.cost import KernelCost, cost_of
from rmtntk.store.indexing import gather, gather_points, select
from rmtntk.store.products import TiledOperator, multiply
from rmtntk.store.sources import Cache, Source, Stored

__all__ = ["TiledKernel"]


class TiledKernel:
    """What :class:`rmtntk.KernelMatrix` is and does once it is made."""

    __array_ufunc__ = None  # ndarray @ kernel is ours
    ndim = 2

    def __init__(self, source: Source, *, cache: int, limit: int | None) -> None:
        self._source = source
        self._limit = limit
        self._cache = Cache(source, cache)

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
        return cost_of(self._cache)

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
        given = np.asarray(to_host(v, name))
        block = check_array(given, name, 1 if given.ndim == 1 else 2, keep_float32=True)
        want = self.shape[0] if transpose else self.shape[1]
        if len(block) != want:
            raise ValueError(f"`{name}` must have {want} entries along the kernel's axis, got shape {block.shape}")
        columns = np.ascontiguousarray(block.reshape(len(block), -1))  # or BLAS rounds by the order in memory
        found = multiply(self._cache, columns, transpose=transpose)
        return found[:, 0] if block.ndim == 1 else found

    def __matmul__(self, v: ArrayLike) -> AnyArray:
        return self.matvec(v)

    def __rmatmul__(self, v: ArrayLike) -> AnyArray:
        return self.rmatvec(np.asarray(to_host(v, "v")).T).T

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
        return _again, (type(self), self._source, self._cache.limit, self._limit)


def _again(kind: type[TiledKernel], source: Source, cache: int, limit: int | None) -> TiledKernel:
    return kind(source, cache=cache, limit=limit)
