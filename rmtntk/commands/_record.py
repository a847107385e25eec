"""What a command writes down so that ``rmtntk rerun`` can run it again."""

import argparse
import hashlib
from pathlib import Path
from typing import Any

from rmtntk.report import to_json
from rmtntk.workflow import versions

__all__ = ["INPUTS", "UNRECORDED", "fingerprints", "print_json", "record"]

UNRECORDED = frozenset({"command", "run", "config", "json", "quiet"})  # how it is shown, not what is computed
INPUTS = ("data", "model")


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
