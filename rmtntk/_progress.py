"""Progress on a terminal, silence elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stages", "stages"]


class Stages:
    """Counts named stages of a long run on one progress bar, and keeps the seconds each took."""

    def __init__(self, bar: Any | None) -> None:
        self._bar = bar
        self._name: str | None = None
        self._start = 0.0
        self.seconds: dict[str, float] = {}

    def enter(self, name: str) -> None:
        """Finish the current stage and begin the next."""
        self.leave()
        self._name, self._start = name, time.perf_counter()
        if self._bar is not None:
            self._bar.set_description_str(name)

    def leave(self) -> None:
        """Finish the current stage, if there is one."""
        if self._name is not None:
            self.seconds[self._name] = time.perf_counter() - self._start
            self._name = None
            if self._bar is not None:
                self._bar.update(1)


@contextmanager
def stages(total: int, *, quiet: bool = False) -> Iterator[Stages]:
    """Show a bar of `total` stages if stderr is a terminal and tqdm (extra ``progress``) is installed."""
    bar = None
    if not quiet and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            bar = tqdm(total=total, bar_format="{l_bar}{bar:24}| {n_fmt}/{total_fmt} [{elapsed}]", leave=False)
    try:
        counter = Stages(bar)
        yield counter
        counter.leave()
    finally:
        if bar is not None:
            bar.close()
