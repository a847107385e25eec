"""Options that come from files: tables of a configuration, and the records of earlier runs."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rmtntk.configuration import activations_text, network_arguments, read_tables, suggestion
from rmtntk.network import Network

__all__ = ["from_file", "from_table", "integers"]

_NETWORK = {field.name: field.default for field in fields(Network) if field.name != "activations"}


def integers(text: str) -> tuple[int, ...]:
    """Read integers separated by commas: the type of ``--widths`` and ``--sizes``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be integers separated by commas, got {text!r}") from None


def from_file(path: str, family: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return the values a configuration file has for a command; all its tables are checked.

    Raises
    ------
    ValueError, OSError
        If the file cannot be read or anything in it is not what a command takes.
    """
    tables = read_tables(path)
    known = {name: parser for name, parser in family.items() if parser.family}
    own: dict[str, Any] = {}
    for name, table in tables.items():
        if name == "network":
            continue
        if name not in known:
            raise ValueError(f"{path}: [{name}] must be [network] or a command{suggestion(name, ['network', *known])}")
        values = from_table(table, known[name].options, f"{path}: `[{name}] %s`", f"an option of rmtntk {name}")
        if name == command:
            own = values
    table = tables.get("network", {})
    network = network_arguments(table, path)
    if "activations" in network:
        network["activations"] = activations_text(table["activations"], path)
    return {**_network_options(network, known[command].options, path, command), **own}


def _network_options(
    network: Mapping[str, Any], options: Mapping[str, argparse.Action], path: str, command: str
) -> dict[str, Any]:
    """Return a command's options for a network; what it has no option for must be what it takes anyway."""
    values: dict[str, Any] = {}
    for name, value in network.items():
        if name == "activations" and name in options:
            values[name] = value
        elif name == "centered" and "uncentered" in options:
            values["uncentered"] = not value
        elif name in options:
            values[name] = float(value) if isinstance(value, int) else value
        elif name in _NETWORK and "activations" in options and value != _NETWORK[name]:
            what = "takes it from the data" if name == "tau0" else f"is for networks with {name} = {_NETWORK[name]!r}"
            raise ValueError(f"{path}: `[network] {name}` must be left out, got {value!r}: rmtntk {command} {what}")
    return values


def from_table(
    table: Mapping[str, Any], options: Mapping[str, argparse.Action], where: str, what: str
) -> dict[str, Any]:
    """Return values of options by name, converted as the command line's are.

    Parameters
    ----------
    table : mapping
        Values by name, with - or _; None (of JSON) only where the option's default is.
    options : mapping of str to Action
        The options there are.
    where, what : str
        For messages: the place, with %s for the key, and what a key must be.

    Raises
    ------
    ValueError
        If a key is unknown or given twice, or a value is of another type or not one of the choices.
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        place = where % key
        if name not in options:
            raise ValueError(f"{place} must be {what}{suggestion(name, list(options))}")
        if name in values:
            raise ValueError(f"{place} must be given once, got it with - and with _")
        values[name] = (
            None if value is None and options[name].default is None else _convert(value, options[name], place)
        )
    return values


def _convert(value: Any, action: argparse.Action, place: str) -> Any:
    if action.nargs == 0:
        wanted, right = "true or false", isinstance(value, bool)
    elif action.dest == "activations":
        return activations_text(value, place)
    else:
        wanted, fits, convert = _TYPES[action.type if action.type in _TYPES else None]
        right = fits(value) or (action.dest == "label_column" and _integer(value))
        value = convert(value) if right else value
    if not right:
        raise ValueError(f"{place} must be {wanted}, got {value!r}")
    if action.choices is not None and value not in action.choices:
        allowed = ", ".join(repr(choice) for choice in action.choices)
        hint = suggestion(value, list(action.choices), always=False) if isinstance(value, str) else ""
        raise ValueError(f"{place} must be one of {allowed}, got {value!r}{hint}")
    return value


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_integer, value))


_TYPES: dict[Any, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    int: ("an integer", _integer, int),
    float: ("a number", lambda value: _integer(value) or isinstance(value, float), float),
    integers: ("a list of integers such as [64, 64]", _integer_list, tuple),
    Path: ("a string", lambda value: isinstance(value, str), Path),
    None: ("a string", lambda value: isinstance(value, str), str),
}
