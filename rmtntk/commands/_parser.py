"""The parser all commands share, and the options several of them have."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rmtntk.commands import _settings

__all__ = [
    "DATA",
    "Parser",
    "add_command",
    "add_data",
    "add_flag",
    "add_json",
    "add_levels",
    "add_network",
    "add_quiet",
    "check_place",
]

DATA = "mnist5k, or a .npz, .csv, IDX or CIFAR-10 file or folder"


_HIDDEN = argparse.SUPPRESS


class _Formatter(argparse.HelpFormatter):
    """Wrap the description, leave the lines of the epilog (examples, exit statuses) as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Config(argparse.Action):
    """``--config`` has been read when arguments are parsed; what the scan for it did not see is refused."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if isinstance(parser, Parser) and values not in parser.configured:
            parser.error("`--config` must be spelled out")
        if getattr(namespace, self.dest, None) is not None:
            parser.error("`--config` must be given once")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Answers mistakes in one line, and takes defaults from the file of ``--config``.

    Attributes
    ----------
    family : mapping of str to Parser
        The parsers of all commands, by name; set for the commands that take ``--config``.
    configured : tuple of str
        The files taken.
    """

    family: Mapping[str, "Parser"] = {}
    configured: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Print one line, where argparse prints the usage too."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")

    @property
    def options(self) -> dict[str, argparse.Action]:
        """Options and arguments by name, with underscores: what a configuration or a record may hold."""
        ignored = ("help", "config")
        return {act.dest: act for act in self._actions if act.dest not in ignored and act.help != _HIDDEN}

    def preset(self, values: Mapping[str, Any]) -> None:
        """Make values of options their defaults; options that have one need not be given any more."""
        self.set_defaults(**values)
        for action in self._actions:
            if action.dest in values:
                action.required = False
                if not action.option_strings:
                    action.nargs = "?"

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Read the file of ``--config``, if there is one, before the arguments, which override it."""
        words = list(sys.argv[1:] if args is None else args)
        if self.family:
            self.configured = _configured(words)
            idle = {"-h", "--help"} & set(words) or "_ARGCOMPLETE" in os.environ
            for path in () if idle else self.configured[:1]:
                try:
                    self.preset(_settings.from_file(path, self.family, self.prog.split()[-1]))
                except (ValueError, OSError) as error:
                    self.error(str(error))
        return super().parse_known_args(words, namespace)


def _configured(words: Sequence[str]) -> tuple[str, ...]:
    found = []
    for k, word in enumerate(words):
        if word == "--":
            break
        if word == "--config" and k + 1 < len(words):
            found.append(words[k + 1])
        elif word.startswith("--config="):
            found.append(word.partition("=")[2])
    return tuple(found)


def add_command(commands: Any, name: str, *, examples: Sequence[str], help: str, **more: Any) -> Parser:
    """Add a command whose help ends with examples, and which takes a configuration file."""
    epilog = "\n".join(["examples:", *(f"  rmtntk {name} {example}".rstrip() for example in examples)])
    parser: Parser = commands.add_parser(name, help=help, epilog=epilog, **{"description": f"{help}.", **more})
    parser.add_argument(
        "--config",
        action=_Config,
        metavar="FILE",
        help="TOML file with tables [network] and "
        f"[{name}]; options given here override it (flags of the file are switched off by --no-FLAG)",
    )
    parser.family = commands.choices
    return parser


def add_flag(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    """Add ``--name``, and ``--no-name`` for a flag that a configuration file sets."""
    dest = name.replace("-", "_")
    parser.add_argument(f"--{name}", action="store_true", help=help)
    parser.add_argument(f"--no-{name}", action="store_false", dest=dest, default=argparse.SUPPRESS, help=_HIDDEN)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    add_flag(parser, "json", "print JSON for machines, which rmtntk rerun takes")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``."""
    add_flag(parser, "quiet", "no progress bar")


def add_network(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--activations``."""
    parser.add_argument(
        "--activations",
        default=default,
        metavar="LIST",
        help=f"one per layer, e.g. relu,leaky_relu(0.1),tanh (default {default}; names: rmtntk info)",
    )


def add_data(parser: argparse.ArgumentParser, help: str = DATA, *, required: bool = True) -> None:
    """Add ``--data`` and ``--label-column``."""
    parser.add_argument("--data", required=required, help=help)
    parser.add_argument("--label-column", help="of a CSV file: name or index of the label column")


def add_levels(parser: argparse.ArgumentParser) -> None:
    """Add ``--levels`` and ``--spacing``."""
    parser.add_argument("--levels", type=int, metavar="N", help="values an activation takes, 2 to 8 (default 3)")
    parser.add_argument("--spacing", choices=("equal", "free"), default="equal", help="of the levels (default equal)")


def check_place(path: Path | None, name: str, suffixes: tuple[str, ...]) -> None:
    """Check where a file is to go before anything is computed."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"`{name}` must end in {' or '.join(suffixes)}, got {path}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"`{name}` must be a file in an existing folder, got {path}")
