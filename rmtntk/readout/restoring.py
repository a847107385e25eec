"""Readouts back from what `describe` returned."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from rmtntk._typing import AnyArray
from rmtntk.readout.logistic import Logistic
from rmtntk.readout.quantised import Quantised
from rmtntk.readout.ridge import Ridge

__all__ = ["Readout", "restore"]

Readout: TypeAlias = Ridge | Logistic | Quantised


def restore(header: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Readout:
    """Return the readout whose ``describe()`` gave `header` and `arrays`; other entries of either are ignored.

    Raises
    ------
    KeyError
        If an entry is missing.
    ValueError
        If kind, bits, a type or a shape is none that `describe` gives.
    """
    kind, bits = header["kind"], header["bits"]
    if kind not in ("ridge", "logistic") or bits not in (64, 8, 2):
        raise ValueError(
            f"`header` must describe a ridge or logistic readout of 64, 8 or 2 bits, got {kind!r}, {bits!r}"
        )
    intercept = _floats(arrays, "intercept", (None,))
    alpha = float(header["alpha"])
    if bits == 64:
        coefficients = _floats(arrays, "coefficients", (None, len(intercept)))
        if kind == "ridge":
            return Ridge(coefficients, intercept, alpha, math.inf if header["gcv"] is None else float(header["gcv"]))
        held = header["validation_loss"]
        return Logistic(
            coefficients, intercept, alpha, float(header["loss"]), None if held is None else float(held),
            int(header["iterations"]), float(header["gradient_norm"]),
        )  # fmt: skip
    scale = _floats(arrays, "scale", (len(intercept),))
    d = int(header["n_features"])
    codes = arrays["codes"]
    count = d * len(intercept)
    shape, kind_of = ((d, len(intercept)), np.int8) if bits == 8 else ((2, -(-count // 8)), np.uint8)
    if codes.dtype != kind_of or codes.shape != shape:
        raise ValueError(f"`arrays` must hold codes {kind_of.__name__} {shape}, got {codes.dtype} {codes.shape}")
    if bits == 2 and (codes[1] & ~codes[0]).any():
        raise ValueError("`arrays` must hold codes whose negative ones are not zero")
    return Quantised(kind, bits, codes, scale, intercept, d, alpha, float(header["error"]))


def _floats(arrays: Mapping[str, AnyArray], name: str, shape: tuple[int | None, ...]) -> AnyArray:
    array = arrays[name]
    fits = array.ndim == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
    if array.dtype != np.float64 or not fits:
        raise ValueError(f"`arrays` must hold {name} float64 {shape}, got {array.dtype} {array.shape}")
    return array
