"""Whether a result fits into memory, asked before it is allocated."""

import platform
from pathlib import Path

from rmtntk.errors import MemoryLimitError

__all__ = ["available_memory", "check_memory"]

_SMALL = 1 << 26


def available_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, or None where the system does not say."""
    system = platform.system()
    if system == "Linux":
        found = [value for value in (_meminfo(), _cgroup()) if value is not None]
        return min(found) if found else None
    if system == "Windows":
        return _windows()
    return None


def _meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def _cgroup() -> int | None:
    """Return what a container's limit leaves, under version 2 of control groups."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


# Of MEMORYSTATUSEX after its two 32-bit fields, in order.
_FIELDS = ("total", "available", "page_total", "page_available", "virtual_total", "virtual_available", "extended")


def _windows() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "available", "page", "page_left", "virtual", "left", "more")
            ),
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    call = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    if call is None or not call.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)


_ADVICE = (
    "take dtype=np.float32, one kernel at a time, or blocks of rows such as rn.ntk(net, x[:1000], x) with "
    "Network(tau0=...) set, and keep them on disk"
)


def check_memory(n_bytes: int, what: str, advice: str = _ADVICE) -> None:
    """Raise if `n_bytes` for `what` are more than there is; small requests are not worth the question."""
    if n_bytes < _SMALL:
        return
    available = available_memory()
    if available is not None and n_bytes > available:
        raise MemoryLimitError(
            f"{what} needs {n_bytes / 2**30:.1f} GiB, but {available / 2**30:.1f} GiB of memory are available: {advice}"
        )
