"""What a product with a kernel in tiles costs."""

from dataclasses import dataclass

from rmtntk.store.sources import Cache, Computed, Stored

__all__ = ["KernelCost", "cost_of"]


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


def cost_of(cache: Cache) -> KernelCost:
    """Return the cost of visiting all tiles; on the fly, a tile is computed to time it if none has been yet."""
    source, grid = cache.source, cache.source.grid
    tile_bytes = min(grid.tile, grid.n) * min(grid.tile, grid.m) * source.dtype.itemsize
    cached, kept = len(cache), cache.nbytes // source.dtype.itemsize
    if isinstance(source, Computed):
        if source.entries == 0:
            source.tile(0, min(1, grid.counts[1] - 1))
        left = grid.n_entries - kept
        seconds = source.seconds / source.entries * left
        return KernelCost(grid.n_tiles, cached, float(left * source.blocks.x.shape[1]), 0, seconds, tile_bytes)
    read = source.store.nbytes(source.kind) if isinstance(source, Stored) else 0
    return KernelCost(grid.n_tiles, cached, 0.0, read, float("nan"), tile_bytes)
