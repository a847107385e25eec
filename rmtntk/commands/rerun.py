"""``rmtntk rerun``: a command again, from the JSON it wrote."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rmtntk.commands._parser import Parser, add_json, add_quiet
from rmtntk.commands._record import UNRECORDED, fingerprints
from rmtntk.commands._settings import from_table
from rmtntk.workflow import versions

__all__ = ["EXAMPLES", "add"]

EXAMPLES = ("runs/mnist/report.json --out runs/again", "match.json --json")
_PLACES = {"compress": "out", "kernel": "out", "spectrum": "figure"}  # options that say where files go


def add(commands: Any) -> None:
    """Add the command."""
    parser: Parser = commands.add_parser(
        "rerun",
        help="run a command again with the options in the JSON it wrote",
        description="Takes report.json of compress, or what any command printed with --json. Warns where versions or "
        "input files are others than they were; exit status that of the command.",
        epilog="\n".join(["examples:", *(f"  rmtntk rerun {example}" for example in EXAMPLES)]),
    )
    parser.add_argument("file", help="the JSON")
    parser.add_argument(
        "--out", type=Path, help="where files go this time (default: where they went, if nothing is there any more)"
    )
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=partial(_run, commands.choices))


def _run(parsers: Mapping[str, Parser], args: argparse.Namespace) -> int:
    name, options, written = _read(args.file, parsers)
    place = _PLACES.get(name)
    if args.out is not None:
        if place is None:
            raise ValueError(f"`--out` must be left out: rmtntk {name} writes no file")
        options[place] = args.out
    elif place is not None and options[place] is not None and os.path.lexists(options[place]):
        raise ValueError(f"`--out` must be given: {options[place]} exists; name it to replace it, or another place")
    for warning in _changes(written, options):
        print(f"rmtntk rerun: warning: {warning}", file=sys.stderr)
    again = argparse.Namespace(**options, command=name, config=None, json=args.json)
    if "quiet" in parsers[name].options:
        again.quiet = args.quiet
    run = parsers[name].get_default("run")
    return int(run(again))


def _read(path: str, parsers: Mapping[str, Parser]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return name and options of a recorded command, and all that was recorded."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            content = json.load(stream)
    except OSError as error:
        raise type(error)(f"{path}: must be a readable JSON file: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: must be a JSON file: {error}") from None
    command = content.get("command") if isinstance(content, dict) else None
    if not isinstance(command, dict) or not isinstance(command.get("options"), dict):
        raise ValueError(f'{path}: must be JSON that rmtntk wrote, with the "command" to run again; it has none')
    name = command.get("name")
    known = [word for word, parser in parsers.items() if parser.family]
    if name not in known:
        raise ValueError(f"{path}: `command.name` must be one of {', '.join(known)}, got {name!r}")
    actions = {dest: action for dest, action in parsers[name].options.items() if dest not in UNRECORDED}
    found = from_table(command["options"], actions, f"{path}: `command.options.%s`", f"an option of rmtntk {name}")
    for dest, action in actions.items():
        if dest in found:
            continue
        if action.required:
            raise ValueError(f"{path}: `command.options.{dest}` must be there, as rmtntk {name} needs it")
        found[dest] = action.default
    missing = [dest for dest, action in actions.items() if action.required and found[dest] is None]
    if missing:
        raise ValueError(f"{path}: `command.options.{missing[0]}` must not be null, as rmtntk {name} needs it")
    return name, found, content


def _changes(written: Mapping[str, Any], options: dict[str, Any]) -> list[str]:
    """Say what is not as it was: versions in one sentence, and one for each input file."""
    found = []
    before, now = written.get("versions"), versions()
    if not isinstance(before, dict):
        found.append("no versions were recorded: numbers may differ from those of the first run")
    else:
        others = [f"{name} {before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]]
        if others:
            found.append(f"versions differ, and numbers may: {'; '.join(others)}")
    hashes = written["command"].get("sha256")
    for name, digest in fingerprints(options).items():
        if isinstance(hashes, dict) and name in hashes and hashes[name] != digest:
            found.append(f"{options[name]} is not the file it was: another `{name}`, and other results")
    return found
