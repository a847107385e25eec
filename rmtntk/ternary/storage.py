"""What a file of a ternary network holds: its networks as names, its weights, readout and preprocessing."""

import json
import os
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from rmtntk import activations as activation_module
from rmtntk.errors import ModelFileError
from rmtntk.modelfile import read_model, write_model
from rmtntk.network import Network
from rmtntk.packing import PackedTernary
from rmtntk.readout import Ridge
from rmtntk.ternary.parts import Preprocessing

if TYPE_CHECKING:
    from rmtntk.ternary.network import TernaryNetwork

__all__ = ["read", "write"]


def write(model: "TernaryNetwork", path: str | os.PathLike[str]) -> int:
    """Write a model, whole or not at all; return the file's size in bytes."""
    header = {
        "dense": _describe(model.dense),
        "net": _describe(model.net),
        "columns": [layer.columns for layer in model.packed],
        "sparsity": model.sparsity,
        "classes": _storable(model.classes),
        "alpha": None if model.readout is None else model.readout.alpha,
        "gcv": None if model.readout is None else model.readout.gcv,
        "scale": None if model.preprocessing is None else model.preprocessing.scale,
        "summary": model.summary,
    }
    arrays: dict[str, NDArray[Any]] = {}
    for k, layer in enumerate(model.packed):
        arrays[f"nonzero{k}"], arrays[f"negative{k}"] = layer.nonzero, layer.negative
    if model.readout is not None:
        arrays["coefficients"], arrays["intercept"] = model.readout.coefficients, model.readout.intercept
    if model.preprocessing is not None:
        arrays["mean"] = model.preprocessing.mean
    return write_model(path, header, arrays)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a model file; return the arguments that make the model again."""
    header, arrays = read_model(path)
    try:
        packed = [
            PackedTernary(arrays[f"nonzero{k}"], arrays[f"negative{k}"], int(columns))
            for k, columns in enumerate(header["columns"])
        ]
        readout = None
        if "coefficients" in arrays:
            gcv = float("inf") if header["gcv"] is None else float(header["gcv"])
            readout = Ridge(arrays["coefficients"], arrays["intercept"], float(header["alpha"]), gcv)
        return {
            "dense": _network(header["dense"]),
            "net": _network(header["net"]),
            "packed": packed,
            "sparsity": float(header["sparsity"]),
            "classes": header["classes"],
            "readout": readout,
            "preprocessing": Preprocessing(arrays["mean"], float(header["scale"])) if "mean" in arrays else None,
            "summary": header["summary"],
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} has a header this rmtntk does not understand: {error!r}") from error


def _describe(net: Network) -> dict[str, Any]:
    for act in net.activations:
        if act.name == "custom":
            raise ValueError("a custom activation cannot be written to a file: use a named one, or pickle the model")
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
