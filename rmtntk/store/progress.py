"""How far a computation is, and how long it still takes."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Progress", "Watch", "check_progress", "watched"]


@dataclass(frozen=True)
class Progress:
    """State of a computation of tiles.

    Attributes
    ----------
    done, total : int
        Tiles finished, those found in the store included, and all tiles.
    seconds : float
        Since the start of this call.
    remaining : float
        Seconds to the end at the rate of this call; inf before its first tile.
    """

    done: int
    total: int
    seconds: float
    remaining: float


Watch = Callable[[Progress], Any] | bool | None


def check_progress(progress: Any) -> None:
    """Raise if it is neither a callable, a bool nor None."""
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"`progress` must be True, False, None or a callable, got {progress!r}")


@contextmanager
def watched(total: int, found: int, progress: Watch) -> Iterator[Callable[[int], None]]:
    """Yield a function of the number of finished tiles; with a bar on a terminal, or if asked for, and tqdm there."""
    start = time.perf_counter()
    bar: Any = None
    if progress is True or (progress is None and sys.stderr.isatty()):
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            bar = tqdm(total=total, initial=found, unit="tile", leave=False)

    def tell(done: int) -> None:
        if bar is not None:
            bar.update(done - bar.n)
        if callable(progress):
            seconds = time.perf_counter() - start
            fresh = done - found
            progress(Progress(done, total, seconds, seconds / fresh * (total - done) if fresh else float("inf")))

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()
