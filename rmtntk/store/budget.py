"""How much memory and disk there is to use."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from rmtntk._memory import available_memory
from rmtntk._validation import check_integer
from rmtntk.errors import MemoryLimitError

__all__ = ["check_limit", "check_result", "disk_free", "parse_bytes", "resident", "show"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip


def parse_bytes(value: Any, name: str) -> int:
    """Return a number of bytes given as an integer or as text such as "2GiB"."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([A-Za-z]*)\s*", value)
        if found is None or found[2].lower() not in _UNITS:
            raise ValueError(f"`{name}` must be a number of bytes or text such as '2GiB' or '500MB', got {value!r}")
        return int(float(found[1]) * _UNITS[found[2].lower()])
    return check_integer(value, name, low=0)


def resident() -> int:
    """Return the memory that this process has now, in bytes; elsewhere than on Linux its peak or 0."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        if sys.platform == "win32":
            return 0
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak) * (1 if sys.platform == "darwin" else 1024)


def show(count: float) -> str:
    """Return a number of bytes as people read them."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{int(count)} bytes"


def check_limit(need: int, limit: int | None, what: str, advice: str) -> None:
    """Raise if `need` more bytes would take this process beyond `limit`, or beyond what the machine has."""
    if limit is not None:
        held = resident()
        if held + need > limit:
            raise MemoryLimitError(
                f"{what} needs {show(need)} beyond the {show(held)} that this process holds already, but "
                f"`memory_limit` is {show(limit)}: {advice}"
            )
    available = available_memory()
    if available is not None and need > available:
        raise MemoryLimitError(f"{what} needs {show(need)}, but {show(available)} of memory are available: {advice}")


def check_result(need: int, limit: int | None, shape: tuple[int, ...]) -> None:
    """Raise if a result of this shape does not fit."""
    check_limit(need, limit, f"an array of shape {shape}", "take fewer rows at a time, or products with @")


def disk_free(path: Path) -> int:
    """Return the free bytes of the file system that holds `path`, which need not exist yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
