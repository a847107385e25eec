"""``rmtntk completion``: what a shell needs to complete commands, options, activations and file names."""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from rmtntk import activations as activation_module
from rmtntk.commands._parser import Parser
from rmtntk.errors import MissingExtraError

__all__ = ["EXAMPLES", "SHELLS", "add", "complete"]

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = (
    "bash >> ~/.bashrc",
    "zsh >> ~/.zshrc   # after compinit",
    "fish > ~/.config/fish/completions/rmtntk.fish",
)
_FILES = {"config": ("toml",), "model": ("npz",), "file": ("json",)}  # by their endings; others are of any kind
_PLACES = ("data", "out", "figure")


def add(commands: Any) -> None:
    """Add the command."""
    parser: Parser = commands.add_parser(
        "completion",
        help="print the code that completes this command line in a shell",
        description="Put the code at the end of the shell's start file. Needs the extra completion.",
        epilog="\n".join(["examples:", *(f"  rmtntk completion {example}" for example in EXAMPLES)]),
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=_run)


def _argcomplete(name: str = "argcomplete") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("argcomplete", "completion", "Completion in a shell") from error


def _run(args: argparse.Namespace) -> int:
    print(_argcomplete().shellcode(["rmtntk"], shell=args.shell))
    return 0


def complete(parser: Parser) -> None:
    """Answer the shell that asks for completions, and end the process."""
    library, completers = _argcomplete(), _argcomplete("argcomplete.completers")
    for command in _commands(parser):
        for action in command._actions:
            if action.choices is None and action.nargs != 0:
                action.completer = _completer(action.dest, completers)  # type: ignore[attr-defined]
    library.autocomplete(parser, always_complete_options="long")


def _commands(parser: Parser) -> list[Parser]:
    found = next(action for action in parser._actions if action.dest == "command").choices
    return list(found.values()) if isinstance(found, dict) else []


def _completer(dest: str, completers: Any) -> Callable[..., list[str]]:
    if dest == "activations":
        return _activations
    if dest in _FILES:
        return completers.FilesCompleter(_FILES[dest])
    if dest in _PLACES:
        files = completers.FilesCompleter()
        named = ["mnist5k"] if dest == "data" else []
        return lambda prefix, **more: [name for name in named if name.startswith(prefix)] + list(files(prefix, **more))
    return lambda prefix, **more: []  # numbers


def _activations(prefix: str, **_: Any) -> list[str]:
    """Complete the last name of a comma-separated list."""
    before, comma, last = prefix.rpartition(",")
    return [f"{before}{comma}{name}" for name in activation_module.names() if name.startswith(last)]
