r"""Forward and backward passes of a finite network, and the Gram matrices of what they leave, in bounded memory.

Callers pass validated float64 data; everything after it is in the dtype of the plan.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.activations import Activation
from rmtntk.network import Network

__all__ = [
    "ADVICE",
    "Layers",
    "Plan",
    "assemble",
    "batches",
    "default_batch",
    "last_features",
    "layers",
    "require_finite",
    "tile_buffers",
]

WORKSPACE = 256 * 2**20  # bytes for the layers of the samples in work, unless the weights are many
TILE = 512  # samples a side: the two temporaries of a tile stay in the cache
ADVICE = "take dtype=np.float32, or blocks of rows such as (x[:1000], x) with Network(tau0=...) set"
CHUNK = 2**15  # entries to which an activation is applied at a time: its temporaries stay in the cache

# Evaluated in float32 to within a few units in the last place (tests/test_finite.py measures it); all others, among
# them polynomials, which cancel, and custom functions, which are promised float64, are evaluated in float64.
NATIVE = frozenset(
    [
        *["erf", "sigmoid_like", "gelu", "gelu_tanh", "sin", "cos", "tanh", "hard_tanh", "sigmoid", "softsign"],
        *["softplus", "silu", "elu", "selu", "gaussian", "exp", "exp_square", "gabor"],
    ]
)

_FLOAT64 = np.dtype(np.float64)


class Plan(NamedTuple):
    """A network with everything cast and scaled for one call."""

    kind: np.dtype[Any]
    input_scale: float  # w, over √p under "fan_in"
    weights: list[AnyArray]
    biases: list[AnyArray] | None  # b β_l, shapes (d_l,); None if b = 0
    readout: AnyArray | None
    centre: FloatArray
    batch: int


class Layers(NamedTuple):
    """What a batch of samples brings to the kernel."""

    features: list[AnyArray]  # w f_0 … w f_L
    gradients: list[AnyArray]  # Δ_1 … Δ_L, the output's gradients in u_l


_Compute = Callable[[FloatArray], Layers]
_Fill = Callable[[AnyArray, Layers, slice, Layers, slice], None]


def default_batch(sizes: tuple[int, ...], kind: np.dtype[Any], *, gradients: bool) -> int:
    """Return how many samples at a time fit the workspace, two batches being in work at once.

    The workspace grows with the weights because layers are computed again for every pair of batches: a batch of
    about d samples of width d keeps that below the cost of the Gram matrices.
    """
    n_weights = sum(above * below for above, below in zip(sizes[1:], sizes[:-1], strict=True))
    kept = sizes[0] + 2 * sum(sizes[1:]) if gradients else sizes[-1]
    room = max(WORKSPACE // kind.itemsize, 4 * n_weights)
    return max(1, room // (2 * kept + 2 * max(sizes)))


def tile_buffers(n: int, m: int, kind: np.dtype[Any]) -> AnyArray:
    """Return the two temporaries of a tile, flat."""
    return np.empty((2, min(TILE, n) * min(TILE, m)), dtype=kind)


def last_features(net: Network, plan: Plan, data: FloatArray) -> AnyArray:
    """Return f_L alone, shape (len(data), d_L)."""
    values = _scaled_input(plan, data)
    for k, act in enumerate(net.activations):
        values = _affine(plan, k, values)
        scale = (1.0 if k == net.depth - 1 else net.weight_std) / math.sqrt(values.shape[1])
        _activate(act, values, plan.centre[k], scale, None, 0.0)
    return values


def layers(net: Network, plan: Plan, data: FloatArray) -> Layers:
    """Return every layer's features and gradients of a batch."""
    assert plan.readout is not None
    features = [_scaled_input(plan, data)]
    gradients = []
    for k, act in enumerate(net.activations):
        values = _affine(plan, k, features[-1])
        slope = np.empty_like(values)
        scale = net.weight_std / math.sqrt(values.shape[1])
        _activate(act, values, plan.centre[k], scale, slope, scale)
        features.append(values)
        gradients.append(slope)
    gradients[-1] *= plan.readout
    for k in range(net.depth - 1, 0, -1):
        gradients[k - 1] *= gradients[k] @ plan.weights[k]
    return Layers(features, gradients)


def _scaled_input(plan: Plan, data: FloatArray) -> AnyArray:
    """Return w f_0, the data itself if that is what it is."""
    if plan.input_scale == 1.0:
        return data.astype(plan.kind, copy=False)
    return np.multiply(data, plan.input_scale, dtype=np.float64).astype(plan.kind, copy=False)


def _affine(plan: Plan, k: int, features: AnyArray) -> AnyArray:
    values = np.asarray(features @ plan.weights[k].T)
    if plan.biases is not None:
        values += plan.biases[k]
    return values


def _activate(
    act: Activation, values: AnyArray, centre: float, scale: float, slope: AnyArray | None, slope_scale: float
) -> None:
    """Replace u by (σ(u) − centre) · scale and, if wanted, `slope` by σ'(u) · slope_scale, a few rows at a time."""
    evaluate = _homogeneous if act.family == "homogeneous" else _general
    step = max(1, CHUNK // values.shape[1])
    for start in range(0, len(values), step):
        part = values[start : start + step]
        evaluate(act, part, None if slope is None else slope[start : start + step])
        if centre:
            part -= centre
        part *= scale
    if slope is not None:
        slope *= slope_scale


def _general(act: Activation, part: AnyArray, slope: AnyArray | None) -> None:
    argument = part if act.name in NATIVE else part.astype(np.float64, copy=False)
    if slope is not None:
        assert act.derivative_function is not None
        slope[...] = act.derivative_function(argument)
    part[...] = act.function(argument)


def _homogeneous(act: Activation, part: AnyArray, slope: AnyArray | None) -> None:
    # One of two slopes, and the value is the slope times u: no branches, ten times faster than numpy.where.
    alpha, beta = act.constants
    table = np.array([-beta, alpha], dtype=part.dtype)
    chosen = np.empty_like(part) if slope is None else slope
    np.take(table, (part >= 0.0).view(np.uint8), out=chosen, mode="clip")
    part *= chosen


def batches(n: int, size: int) -> Iterator[slice]:
    """Equal batches of at most `size`."""
    count = -(-n // size)
    for k in range(count):
        yield slice(k * n // count, (k + 1) * n // count)


def assemble(x: FloatArray, y: FloatArray | None, plan: Plan, compute: _Compute, fill: _Fill) -> AnyArray:
    """Fill the kernel tile by tile; the lower half is computed, the upper one mirrored, if y is None."""
    symmetric = y is None
    other = x if y is None else y
    shape = (len(x), len(other))
    check_memory(shape[0] * shape[1] * plan.kind.itemsize, f"an empirical kernel of shape {shape}", ADVICE)
    result = np.empty(shape, dtype=plan.kind)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in batches(len(x), plan.batch):
            first = second = None  # drop the batches of the last round before there are new ones
            first = compute(x[rows])
            for columns in batches(len(other), plan.batch):
                if symmetric and columns.start > rows.start:
                    break
                same = symmetric and columns.start == rows.start
                second = None
                second = first if same else compute(other[columns])
                _fill_pair(result, rows, columns, first, second, fill, same=same)
                if symmetric and not same:
                    result[columns, rows] = result[rows, columns].T
    return result


def _fill_pair(
    result: AnyArray, rows: slice, columns: slice, first: Layers, second: Layers, fill: _Fill, *, same: bool
) -> None:
    block = result[rows, columns]
    for i in batches(block.shape[0], TILE):
        for j in batches(block.shape[1], TILE):
            if same and j.start > i.start:
                break
            fill(block[i, j], first, i, second, j)
            if same and j.start < i.start:
                block[j, i] = block[i, j].T


def require_finite(values: AnyArray, name: str, kind: np.dtype[Any]) -> None:
    if not np.isfinite(values).all():
        advice = "rescale the data, or ask for dtype=float64" if kind != _FLOAT64 else "rescale the data"
        raise ValueError(
            f"the empirical {name} of `x` overflows {kind} or an activation gives values that are not finite: {advice}"
        )
