r"""Networks and runs in TOML files.

A file has an optional table ``[network]`` with the arguments of :class:`rmtntk.Network`, and one table a command of the
command line, whose keys are its long options::

    [network]
    activations = ["relu", "leaky_relu(0.1)"]
    weight_std = 1.2

    [kernel]
    data = "digits.npz"
    kind = "ntk"
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rmtntk import activations as activation_module
from rmtntk._activation import Activation
from rmtntk.network import Network

__all__ = [
    "activations_text",
    "dump_network",
    "load_network",
    "network_arguments",
    "read_tables",
    "suggestion",
    "to_toml",
]

Scalar = str | bool | int | float
_NETWORK = tuple(field.name for field in fields(Network))
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def load_network(path: str | Path) -> Network:
    """Read the table ``[network]`` of a TOML file.

    Parameters
    ----------
    path : str or Path
        The file. Its keys there are the arguments of :class:`rmtntk.Network`; `activations`, which must be there, is a
        list of names, or one string, as the command line takes it: ``"relu,leaky_relu(0.1)"``. Other tables are not
        looked at.

    Returns
    -------
    Network
        With defaults for keys that are not there.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not TOML, has no such table, or a key or value in it is not one of a network; the message names the
        file, the key, what is required and what came.
    """
    table = read_tables(path).get("network")
    if table is None:
        raise ValueError(f"{path}: must have a table [network], got none")
    arguments = network_arguments(table, path)
    if "activations" not in arguments:
        raise ValueError(f'{path}: `[network] activations` must be given, such as activations = ["relu", "tanh"]')
    return Network(**arguments)


def dump_network(net: Network) -> str:
    """Return a network as the table ``[network]``, from which :func:`load_network` makes an equal one.

    Raises
    ------
    TypeError
        If `net` is not a Network.
    ValueError
        If an activation has no name that makes it again: one made of a callable, or rescaled by hand.
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be a Network, got {net!r}")
    table: dict[str, Any] = {"activations": [_activation_text(act, k) for k, act in enumerate(net.activations)]}
    table |= {name: getattr(net, name) for name in _NETWORK if name != "activations"}
    return to_toml({"network": {name: value for name, value in table.items() if value is not None}})


def _activation_text(act: Activation, k: int) -> str:
    """Return what :func:`rmtntk.activations.parse` reads as this activation, digit by digit."""
    text = act.name
    if act.parameters:
        text += "(" + ", ".join(f"{key}={value!r}" for key, value in act.parameters) + ")"
    try:
        if activation_module.parse(text) == (act,):
            return text
    except (TypeError, ValueError):  # names that `parse` does not know, and parameters it refuses
        pass
    what = "a callable" if act.name == "custom" else f"{act} with constants of its own"
    raise ValueError(
        f"`net` must have activations with names to be written as text, got {what} in layer {k + 1}: "
        "build it in Python, or take a name of activations.names()"
    )


def read_tables(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the tables of a TOML file by name.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, is not TOML, or has a key outside its tables; the message names the file.
    """
    import tomllib

    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:  # with or without a byte order mark
            content = tomllib.loads(stream.read())
    except OSError as error:
        raise type(error)(f"{str(path) or repr('')}: must be a readable TOML file: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # also of bytes that are not UTF-8
        raise ValueError(f"{path}: must be a TOML file: {error}") from None
    for name, table in content.items():
        if isinstance(table, list) and table and all(isinstance(entry, dict) for entry in table):
            raise ValueError(f"{path}: [{name}] must be one table, got [[{name}]], a list of {len(table)}")
        if not isinstance(table, dict):
            raise ValueError(
                f"{path}: `{name}` must stand in a table such as [network] or [compress], got {name} = {table!r} "
                "outside of any"
            )
    return content


def network_arguments(table: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the arguments of :class:`rmtntk.Network` that a table holds, checked; activations as a tuple.

    Raises
    ------
    ValueError
        If a key is not an argument or a value not one it takes.
    """
    arguments: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        where = f"{path}: `[network] {key}`"
        if name not in _NETWORK:
            raise ValueError(f"{where} must be an argument of a network{suggestion(name, _NETWORK)}")
        if name in arguments:
            raise ValueError(f"{where} must be given once, got it with - and with _")
        arguments[name] = activation_module.parse(activations_text(value, where)) if name == "activations" else value
    try:
        Network(**{"activations": ["relu"], **arguments})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: [network]: {error}") from None
    return arguments


def activations_text(value: Any, where: str) -> str:
    """Return activations of a file, a list of names or one string, as the text that the command line takes.

    Raises
    ------
    ValueError
        If it is neither, or not of known activations; `where` says of what the message is.
    """
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{where} must be a list of names such as ["relu", "leaky_relu(0.1)"], got {value!r}')
    try:
        for text in texts:
            activation_module.parse(text)
    except (TypeError, ValueError) as error:
        hints = [suggestion(word, activation_module.names(), always=False) for word in _unknown(texts)]
        raise ValueError(f"{where}: {error}{''.join(hints[:1])}") from None
    return ",".join(texts)


def _unknown(texts: Sequence[str]) -> list[str]:
    words = [word for text in texts for word in re.findall(r"[A-Za-z_]\w*(?=\s*(?:\(|,|$))", text)]
    return [word for word in words if word not in activation_module.names()]


def suggestion(name: str, known: Sequence[str], *, always: bool = True) -> str:
    """Return ``; did you mean ...?``, or, where nothing is like `name`, what there is if `always`."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f": one of {', '.join(known)}" if always else ""


def to_toml(tables: Mapping[str, Mapping[str, Scalar | Sequence[Scalar]]]) -> str:
    """Return tables of scalars and lists of scalars as TOML that :mod:`tomllib` reads back without a change.

    Raises
    ------
    TypeError, ValueError
        If a value is of another type, or a string cannot be encoded.
    """
    blocks = []
    for name, table in tables.items():
        lines = [f"[{_key(name)}]", *(f"{_key(key)} = {_value(value, key)}" for key, value in table.items())]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"strings must be of characters that UTF-8 has, got {text!r}")
    letters = (
        _ESCAPES.get(letter) or (f"\\u{ord(letter):04x}" if letter < " " or letter == "\x7f" else letter)
        for letter in text
    )
    return '"' + "".join(letters) + '"'


def _value(value: Any, key: str) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f"{float(value)}"
    if isinstance(value, list | tuple) and not any(isinstance(entry, list | tuple) for entry in value):
        return "[" + ", ".join(_value(entry, key) for entry in value) + "]"
    raise TypeError(f"`{key}` must be a string, bool, number or a list of these, got {value!r}")
