"""How a kernel is cut into tiles."""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid:
    """Tiles of at most `tile` rows and columns of an n × m kernel; of a symmetric one those with i ≤ j only."""

    n: int
    m: int
    tile: int
    symmetric: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n, m) of the kernel."""
        return self.n, self.m

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles along rows and columns."""
        return -(-self.n // self.tile), -(-self.m // self.tile)

    @property
    def n_tiles(self) -> int:
        """Number of tiles that exist."""
        down, across = self.counts
        return down * (down + 1) // 2 if self.symmetric else down * across

    @property
    def n_entries(self) -> int:
        """Number of entries of all tiles that exist."""
        if not self.symmetric:
            return self.n * self.m
        return sum(self.size(i, i)[0] * (self.n - i * self.tile) for i in range(self.counts[0]))

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Return the tiles row by row."""
        down, across = self.counts
        for i in range(down):
            for j in range(i if self.symmetric else 0, across):
                yield i, j

    def bounds(self, i: int, j: int) -> tuple[slice, slice]:
        """Return the rows and columns of tile (i, j)."""
        return (
            slice(i * self.tile, min(self.n, (i + 1) * self.tile)),
            slice(j * self.tile, min(self.m, (j + 1) * self.tile)),
        )

    def size(self, i: int, j: int) -> tuple[int, int]:
        """Return the shape of tile (i, j)."""
        rows, columns = self.bounds(i, j)
        return rows.stop - rows.start, columns.stop - columns.start
