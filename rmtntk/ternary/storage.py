"""What a file of a ternary network holds: its networks as names, its weights, readout, preprocessing and quantiser.

Version 2 keeps the coded layers end to end in one member, ``weights``, which is stored as it is; the header has the
length of each. Version 1 kept bit planes.
"""

import json
import os
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmtntk import activations as activation_module
from rmtntk._validation import check_choice
from rmtntk.errors import MemoryLimitError, ModelFileError
from rmtntk.modelfile import read_model, write_model
from rmtntk.network import Network
from rmtntk.packing import PACKINGS, PackedTernary, Recipe, WeightKey, decode, encode, packing_of, zero_units
from rmtntk.readout import Readout, restore
from rmtntk.ternary.parts import InputQuantiser, Preprocessing

if TYPE_CHECKING:
    from rmtntk.ternary.network import TernaryNetwork

__all__ = ["read", "recipes", "stored_packings", "write"]

_WEIGHTS = "weights"
_READOUT = "readout."


def recipes(model: "TernaryNetwork") -> list[Recipe] | None:
    """Return how the weights of every layer are made from the model's key, None if it has none."""
    key = getattr(model, "key", None)
    if key is None:
        return None
    return [Recipe(key, k, zero_units(model.sparsity)) for k in range(len(model.packed))]


def write(model: "TernaryNetwork", path: str | os.PathLike[str], packing: str = "auto") -> int:
    """Write a model, whole or not at all; return the file's size in bytes.

    Parameters
    ----------
    model : TernaryNetwork
        Fitted or not.
    path : path-like
        Where to.
    packing : {"auto", "2bit", "trit", "bitmap", "entropy", "seed"}
        How weights are coded (:func:`rmtntk.packing.encode`): "auto" takes the smallest that holds them, layer by
        layer; "seed" writes the key they come from instead. All are lossless, and so is the rest of the file.

    Raises
    ------
    ValueError
        If the packing is unknown, "seed" for weights that do not come from a key, an activation is a custom function,
        or labels are not numbers, strings or booleans.
    """
    check_choice(packing, "packing", PACKINGS)
    made = recipes(model)
    if packing == "seed" and made is None:
        raise ValueError(
            '`packing` "seed" needs a model whose weights were made from a key (`model.key`), and this one has none: '
            'take packing="auto"'
        )
    header: dict[str, Any] = {
        "dense": _describe(model.dense),
        "net": _describe(model.net),
        "sparsity": model.sparsity,
        "classes": _storable(model.classes),
        "summary": model.summary,
    }
    arrays: dict[str, NDArray[Any]] = {}
    if model.readout is not None:
        header["readout"], kept = model.readout.describe()
        arrays.update({_READOUT + name: value for name, value in kept.items()})
    if model.preprocessing is not None:
        header["scale"], arrays["mean"] = model.preprocessing.scale, model.preprocessing.mean
    quantiser = getattr(model, "quantiser", None)
    if quantiser is not None:
        header["quantiser"] = [int(quantiser.bits), float(quantiser.low), float(quantiser.step)]
    if made is not None:
        header["key"] = str(made[0].key)
    blobs = [
        encode(layer, packing, recipe=made[k] if made is not None else None) for k, layer in enumerate(model.packed)
    ]
    header[_WEIGHTS] = [len(blob) for blob in blobs]
    arrays[_WEIGHTS] = np.frombuffer(b"".join(blobs), dtype=np.uint8)
    return write_model(path, header, arrays, coded=(_WEIGHTS,))


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a model file; return the arguments that make the model again.

    "key" and "quantiser" are among them only where the model had one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is foreign, truncated, altered or of another version.
    MemoryLimitError
        If the weights would not fit into memory.
    """
    header, arrays = read_model(path)
    try:
        old = _WEIGHTS not in header
        arguments: dict[str, Any] = {
            "dense": _network(header["dense"]),
            "net": _network(header["net"]),
            "packed": _planes_1(header, arrays) if old else [decode(blob) for blob in _blobs(header, arrays)],
            "sparsity": float(header["sparsity"]),
            "classes": header["classes"],
            "readout": _readout_1(header, arrays) if old else _readout(header, arrays),
            "preprocessing": Preprocessing(arrays["mean"], float(header["scale"])) if "mean" in arrays else None,
            "summary": header["summary"],
        }
        if "key" in header:
            arguments["key"] = WeightKey(int(header["key"], 16))
        if "quantiser" in header:
            bits, low, step = header["quantiser"]
            arguments["quantiser"] = InputQuantiser(int(bits), float(low), float(step))
        return arguments
    except MemoryLimitError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} has a header this rmtntk does not understand: {error!r}") from error


def stored_packings(path: str | os.PathLike[str]) -> list[str]:
    """Return the packing of every layer in a model file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is not a readable model file.
    """
    header, arrays = read_model(path)
    try:
        if _WEIGHTS not in header:
            return ["2bit"] * len(header["columns"])
        return [packing_of(blob) for blob in _blobs(header, arrays)]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} has a header this rmtntk does not understand: {error!r}") from error


def _blobs(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> list[bytes]:
    lengths, content = header[_WEIGHTS], arrays[_WEIGHTS].tobytes()
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    if not ends or ends[-1] != len(content):
        raise ValueError("coded weights do not have the lengths of the header")
    return [content[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _readout(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Readout | None:
    if "readout" not in header:
        return None
    kept = {name.removeprefix(_READOUT): value for name, value in arrays.items() if name.startswith(_READOUT)}
    return restore(header["readout"], kept)


def _planes_1(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> list[PackedTernary]:
    """Return the bit planes of version 1."""
    return [
        PackedTernary(arrays[f"nonzero{k}"], arrays[f"negative{k}"], int(columns))
        for k, columns in enumerate(header["columns"])
    ]


def _readout_1(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Readout | None:
    """Return the readout of version 1, always a ridge."""
    if "coefficients" not in arrays:
        return None
    return restore({"kind": "ridge", "bits": 64, "alpha": header["alpha"], "gcv": header["gcv"]}, arrays)


def _describe(net: Network) -> dict[str, Any]:
    for act in net.activations:
        if act.name == "custom":
            raise ValueError(
                "a custom activation cannot be written to a file: use a named one, or pickle the model, for which its "
                "functions must be defined with def in a module that can be imported (lambdas cannot be pickled)"
            )
    return {
        "activations": [[act.name, dict(act.parameters)] for act in net.activations],
        "weight_std": net.weight_std,
        "bias_std": net.bias_std,
        "centered": net.centered,
        "input_scaling": net.input_scaling,
        "tau0": net.tau0,
    }


def _network(fields: dict[str, Any]) -> Network:
    layers = [activation_module.get(name, **parameters) for name, parameters in fields["activations"]]
    options = {key: value for key, value in fields.items() if key != "activations"}
    return Network(layers, **options)


def _storable(classes: list[Hashable]) -> list[Hashable]:
    for value in classes:
        if not isinstance(value, int | float | str | bool):
            raise ValueError(f"labels must be numbers, strings or booleans to be written to a file, got {value!r}")
    return json.loads(json.dumps(classes))
