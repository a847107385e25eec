"""The system's file locks, which end with their process; and new directories of which none stays that nobody holds."""

import contextlib
import importlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["new_directory", "release", "sweep", "take"]

_TRIES = 100  # names taken from under us by others that sweep, before we give up


def take(stream: Any) -> bool:
    """Lock an open file (or its descriptor) for this process alone; return whether that went."""
    try:
        import fcntl
    except ImportError:
        msvcrt: Any = importlib.import_module("msvcrt")
        try:
            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(stream: Any) -> None:
    """Unlock a file."""
    try:
        import fcntl
    except ImportError:
        msvcrt: Any = importlib.import_module("msvcrt")
        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)
        return
    fcntl.flock(stream, fcntl.LOCK_UN)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool | None]:
    """Lock a directory; yield True, False if another process has it, or None where directories have no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    except OSError:  # Windows opens no directories
        yield None
        return
    try:
        locked: bool | None
        try:
            locked = take(descriptor) and os.path.samestat(os.stat(folder), os.fstat(descriptor))
        except FileNotFoundError:  # removed between the opening and the lock
            locked = False
        except OSError:  # some network mounts
            locked = None
        yield locked
    finally:
        os.close(descriptor)  # and with it the lock


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a new directory beside `path`, held until the block ends; it is removed if it was not renamed."""
    for _ in range(_TRIES):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        os.mkdir(temporary)
        with _held(temporary) as locked:
            if locked is False:  # somebody swept between the two lines above
                continue
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return
    raise OSError(f"no directory beside {path} could be kept from other processes in {_TRIES} attempts")


def sweep(path: Path) -> None:
    """Remove directories that :func:`new_directory` made for `path` in processes that were killed.

    One that a process holds stays, as do all where directories have no locks (Windows, some network mounts).
    """
    name = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{12}\.tmp")
    try:
        found = [folder for folder in path.parent.iterdir() if name.fullmatch(folder.name)]
    except OSError:
        return
    for folder in found:
        if folder.is_dir() and not folder.is_symlink():
            with _held(folder) as locked:
                if locked:
                    shutil.rmtree(folder, ignore_errors=True)
