"""The one way loops are compiled, and what makes the disk cache of the results safe.

Numba's cache compares the file that defines a loop, not the other files of this folder whose helpers are compiled into
it, and it writes an index and the code one after the other, so that a process killed in between, or two that write at
once, can pair a new index with old code. Here the code of a loop is one file, replaced whole, which begins with a hash
of its own bytes and of all they were made from: the sources of the whole folder, settings, types and processor. Under
any other hash the loop is compiled again.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import uuid
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numba

_CACHE = os.environ.get("RMTNTK_CACHE", "1") != "0"
_FOLDER = os.path.dirname(__file__)
_SEAL_BYTES = 32
_warned = False


def njit(*, fma: bool = False, reassoc: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's njit, lazily compiled, cached on disk unless the environment says RMTNTK_CACHE=0.

    ``error_model="numpy"``: a division by zero gives inf or nan, as in NumPy. Never ``fastmath=True``: it would
    fold isnan() to False.

    Parameters
    ----------
    fma : bool
        Let ``a * b + c`` be rounded once (LLVM's ``contract``). NaN, infinities and signed zeros keep their meaning.
    reassoc : bool
        Let sums and products be taken in another order (LLVM's ``reassoc``), so that an inner sum vectorises. Not for
        compensated arithmetic, which it undoes.
    **options
        Passed on to `numba.njit`.

    Returns
    -------
    callable
        The decorator.
    """
    flags = [name for name, wanted in (("contract", fma), ("reassoc", reassoc)) if wanted]
    compiled = numba.njit(error_model="numpy", nogil=True, fastmath=set(flags) or False, **options)
    spelling = repr((flags, sorted(options.items())))  # one function may be compiled in several

    def decorate(function: Callable[..., Any]) -> Any:
        loop = compiled(function)
        if _CACHE and hasattr(loop, "enable_caching"):  # with the JIT off it is a plain function
            _cache_on_disk(loop, spelling)
        return loop

    return decorate


def _cache_on_disk(loop: Any, spelling: str) -> None:
    """Let Numba choose folder, keys and pickling, and put our files in place of its own.

    Where a Numba to come keeps them elsewhere, its own cache stays. Where no folder can be written, neither
    NUMBA_CACHE_DIR nor this one nor the user's, the loop goes uncached.
    """
    try:
        loop.enable_caching()
    except RuntimeError as error:
        with contextlib.suppress(AttributeError):
            loop._cache.save_overload = functools.partial(_cannot_save, error)
        return
    with contextlib.suppress(AttributeError):
        cache = loop._cache
        cache._cache_file = _LoopFiles(loop.py_func, spelling, cache.cache_path, cache._cache_file)
        cache.save_overload = functools.partial(_save, cache.save_overload)


def _save(save: Callable[[Any, Any], None], signature: Any, compiled: Any) -> None:
    """Save a loop just compiled."""
    try:
        save(signature, compiled)
    except OSError as error:  # a full disk, a folder gone: the compiled loop works all the same
        _cannot_save(error)


def _cannot_save(error: Exception, *_: Any) -> None:
    """Say once that compiled loops are lost with the process; after a compilation only, never on import."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"compiled loops cannot be kept on disk, so every process compiles them again ({error}). Set "
            "NUMBA_CACHE_DIR to a folder that can be written, or RMTNTK_CACHE=0 to do without and silence this.",
            RuntimeWarning,
            stacklevel=2,
        )


def _sources() -> bytes:
    """Hash of the sources of this folder and of the settings that change what is compiled."""
    names = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "JIT_COVERAGE")
    settings = [getattr(numba.config, name, None) for name in names]
    digest = hashlib.sha256(repr((sys.version, numba.__version__, settings)).encode())
    with contextlib.suppress(OSError):  # in a frozen program there are none, and Numba's stamp is the program's
        files = [file for file in resources.files(__package__).iterdir() if file.name.endswith((".py", ".pyc"))]
        for file in sorted(files, key=lambda file: file.name):
            content = file.read_bytes()
            digest.update(f"{file.name} {len(content)} ".encode())
            digest.update(content)
    return digest.digest()


def _fingerprint() -> list[tuple[str, int, int]] | None:
    """Name, time and size of the sources: a cheap sign that they were edited while this process runs."""
    try:
        with os.scandir(_FOLDER) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
    except OSError:  # in a zip file
        return None
    return sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in files)


def _edited() -> bool:
    """Whether sources changed after the import: what is in memory may have been reloaded, and has no hash."""
    return _fingerprint() != _FINGERPRINT


_FINGERPRINT = _fingerprint()
_SOURCES = _sources()


class _LoopFiles:
    """The files of one loop, one for each tuple of argument types and processor; in place of Numba's index and data."""

    def __init__(self, function: Callable[..., Any], spelling: str, folder: str, replaced: Any) -> None:
        name = f"{function.__module__}.{function.__qualname__}".replace("<", "").replace(">", "")
        self._stem = Path(folder) / f"{name}.{sys.implementation.cache_tag}"
        line = function.__code__.co_firstlineno
        self._spelling = spelling
        self._made_from = repr((_SOURCES, replaced._source_stamp, name, line, spelling)).encode()
        self._dump = replaced._dump

    def _path(self, key: tuple[Any, ...]) -> Path:
        # types and processor, not key[2], the bytecode: after an edit the file is replaced, not left behind
        kind = hashlib.sha256(repr((key[:2], self._spelling)).encode()).hexdigest()
        return self._stem.with_name(f"{self._stem.name}-{kind[:16]}.nbc")

    def _seal(self, key: tuple[Any, ...], payload: bytes) -> bytes:
        digest = hashlib.sha256(self._made_from)
        digest.update(repr(key).encode())
        digest.update(payload)
        return digest.digest()

    def load(self, key: tuple[Any, ...]) -> Any:
        """Return what was saved under the key, or None if it is missing, stale or damaged."""
        if _edited():
            return None
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        seal, payload = content[:_SEAL_BYTES], content[_SEAL_BYTES:]
        return pickle.loads(payload) if seal == self._seal(key, payload) else None

    def save(self, key: tuple[Any, ...], data: Any) -> None:
        """Write beside the file, then rename: readers see the old file or the new one."""
        if _edited():
            return
        payload = self._dump(data)
        path = self._path(key)
        fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            fresh.write_bytes(self._seal(key, payload) + payload)
            fresh.replace(path)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def flush(self) -> None:
        """Forget everything: the loop was told to compile again."""
        for path in self._stem.parent.glob(f"{self._stem.name}-*.nbc"):
            path.unlink(missing_ok=True)
