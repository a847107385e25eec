"""What makes two kernels the same: the network, the data and the options, each with a digest."""

import hashlib
import json
from typing import Any

import numpy as np

from rmtntk._typing import AnyArray
from rmtntk.activations import Activation
from rmtntk.network import Network
from rmtntk.store.blocks import Blocks

__all__ = ["differences", "digest", "identity"]

_CHUNK = 1 << 24
_REACH = 8.0  # standard deviations within which a user's function is compared
_PROBES = 2049

_NAMES = {
    "network": "network",
    "tau0": "tau0 of the network or data",
    "x": "data `x`",
    "y": "data `y`",
    "kinds": "`kind`",
    "shape": "shape",
    "symmetric": "symmetry (`y`)",
    "tile": "`tile`",
    "dtype": "`dtype`",
    "diagonal": "`diagonal`",
}


def data_digest(data: AnyArray) -> str:
    """Return the SHA-256 of the values, row by row, with shape and type."""
    found = hashlib.sha256(f"{data.dtype.str}:{data.shape}:".encode())
    step = max(1, _CHUNK // max(1, data.shape[1] * data.itemsize))
    for k in range(0, len(data), step):
        found.update(np.ascontiguousarray(data[k : k + step]).view(np.uint8).data)
    return found.hexdigest()


def _activation(act: Activation, scale: float) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": act.name,
        "family": act.family,
        "parameters": [[key, value] for key, value in act.parameters],
        "breakpoints": list(act.breakpoints),
        "tolerance": act.tolerance,
        "constants": list(act.constants),
    }
    if act.source:  # of a user's function only its values are known: those where the layer's arguments are
        values = act(np.linspace(-_REACH * scale, _REACH * scale, _PROBES))
        content["values"] = hashlib.sha256(np.ascontiguousarray(values, dtype=np.float64).tobytes()).hexdigest()
    return content


def _network(net: Network, scales: Any) -> dict[str, Any]:
    return {
        "activations": [_activation(act, float(scale)) for act, scale in zip(net.activations, scales, strict=True)],
        "weight_std": net.weight_std,
        "bias_std": net.bias_std,
        "centered": net.centered,
        "input_scaling": net.input_scaling,
    }


def identity(blocks: Blocks, tile: int) -> dict[str, Any]:
    """Return what must agree for a store to be used again, in JSON's types."""
    diagonal: Any = blocks.infinite if blocks.jumps else None
    if isinstance(diagonal, np.ndarray):
        diagonal = data_digest(diagonal[:, None])
    elif isinstance(diagonal, float):
        diagonal = repr(diagonal)
    content = {
        "network": _network(blocks.net, blocks.scales.scale),
        "tau0": blocks.net.tau0,
        "x": data_digest(blocks.x),
        "y": None if blocks.y is None else data_digest(blocks.y),
        "kinds": list(blocks.kinds),
        "shape": list(blocks.shape),
        "symmetric": blocks.symmetric,
        "tile": tile,
        "dtype": blocks.dtype.name,
        "diagonal": diagonal,
    }
    return json.loads(json.dumps(content))


def digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of what :func:`identity` gave."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say in words where two identities differ; empty if they do not."""
    parts = []
    for key, name in _NAMES.items():
        if found.get(key) != wanted[key]:
            short = key in ("kinds", "shape", "symmetric", "tile", "dtype", "tau0")
            parts.append(f"{name} ({found.get(key)} there, {wanted[key]} here)" if short else name)
    if parts == [] and found != wanted:
        parts.append("unknown options")
    return ", ".join(parts)
