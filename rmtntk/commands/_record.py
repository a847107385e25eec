"""What a command writes down so that ``rmtntk rerun`` can run it again."""

import argparse
import hashlib
import platform
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy

from rmtntk._version import __version__
from rmtntk.report import to_json

__all__ = ["INPUTS", "UNRECORDED", "fingerprints", "print_json", "record", "versions"]

UNRECORDED = frozenset({"command", "run", "config", "json", "quiet"})  # how it is shown, not what is computed
INPUTS = ("data", "model")


def versions() -> dict[str, str]:
    """Versions that digits may depend on."""
    return {
        "rmtntk": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
    }


def fingerprints(options: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of the files among the inputs of a command, by option; folders and names of data sets have none."""
    found = {}
    for name in INPUTS:
        place = options.get(name)
        if place is not None and Path(place).is_file():
            with open(place, "rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def record(args: argparse.Namespace) -> dict[str, Any]:
    """Return name, options and input files of a command, and the versions it ran with, for its JSON."""
    options = {name: value for name, value in vars(args).items() if name not in UNRECORDED}
    return {
        "command": {"name": args.command, "options": options, "sha256": fingerprints(options)},
        "versions": versions(),
    }


def print_json(args: argparse.Namespace, outcome: dict[str, Any]) -> None:
    """Print an outcome and the record of its command."""
    print(to_json({**outcome, **record(args)}))
