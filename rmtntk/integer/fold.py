"""From real scales, offsets and thresholds to integer thresholds, exactly."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rmtntk._activation import Activation
from rmtntk._typing import FloatArray
from rmtntk._validation import check_real
from rmtntk.integer.inputs import InputQuantiser, check_quantiser
from rmtntk.integer.layer import LARGEST_CODE, IntegerLayer, row_sums
from rmtntk.integer.levels import integer_levels
from rmtntk.integer.network import IntegerNetwork
from rmtntk.network import Network, layer_scales
from rmtntk.packing import PackedTernary

__all__ = ["fold", "fold_hidden"]


def _ceiling(a: Fraction, q: Fraction, b: Fraction, low: int, high: int) -> int:
    """Return the smallest integer n ≥ a √q + b in [low, high), else high."""
    square = a * a * q

    def reaches(n: int) -> bool:
        rest = n - b
        return (rest >= 0 and rest * rest >= square) if a >= 0 else (rest >= 0 or rest * rest <= square)

    if reaches(low):
        return low
    if not reaches(high - 1):
        return high
    n = math.ceil(float(a) * math.sqrt(q) + float(b))  # off by rounding; both of low and high - 1 are near or apart
    n = min(max(n, low), high - 1)
    while reaches(n - 1):
        n -= 1
    while not reaches(n):
        n += 1
    return n


def _fold_common(
    step: Activation, a: Fraction, q: Fraction, b: Fraction, sums: NDArray[np.int64], bound: int
) -> NDArray[np.int64]:
    """Integer thresholds ⌈s a √q + b R⌉ of neurons with row sums R, (d, k − 1); |Σ_j T_j v_j| ≤ bound."""
    distinct, index = np.unique(sums, return_inverse=True)
    table = [
        [_ceiling(Fraction(float(s)) * a, q, b * int(r), -bound, bound + 1) for s in step.thresholds] for r in distinct
    ]
    return np.array(table, dtype=np.int64).reshape(len(distinct), -1)[index]


def _fold_mean(
    step: Activation, a: Fraction, q: Fraction, shift: list[Fraction], weights: PackedTernary, bound: int
) -> NDArray[np.int64]:
    """Integer thresholds ⌈s a √q + Σ_j T_j shift_j⌉; floating point decides where its error bound allows."""
    vector = np.array([float(value) for value in shift])
    root = float(a) * math.sqrt(q)
    out = np.empty((weights.shape[0], len(step.thresholds)), dtype=np.int64)
    # rounding of the shifts, of a sum of p terms in any order, and of the product s a √q
    slack = 2.0 * np.finfo(float).eps * (weights.columns + 4) * float(np.abs(vector).sum())
    for first in range(0, weights.shape[0], 2048):
        rows = weights.unpack(slice(first, first + 2048))
        with np.errstate(over="ignore"):
            product = step.thresholds * root
        real = product + (rows @ vector)[:, None]
        margin = slack + 8.0 * np.finfo(float).eps * (np.abs(product) + np.abs(real))
        with np.errstate(invalid="ignore"):  # infinities are cut below
            doubtful = (np.abs(real - np.rint(real)) <= margin) & (np.abs(real) < bound + 2.0 + margin)
        out[first : first + 2048] = np.ceil(np.clip(real, -bound, bound + 1))
        for i, j in np.argwhere(doubtful):
            exact = sum((value * int(t) for value, t in zip(shift, rows[i], strict=True) if t), Fraction(0))
            s = Fraction(float(step.thresholds[j]))
            out[first + i, j] = _ceiling(s * a, q, exact, -bound, bound + 1)
    return out


def _check_foldable(net: Network, packed: Sequence[PackedTernary], sparsity: float) -> float:
    if net.tau0 is None:
        raise ValueError("`net` must have its tau0 set")
    if net.bias_std != 0.0:
        raise ValueError(f"`net` must have bias_std=0 to be folded into integers, got {net.bias_std:g}")
    if len(packed) != net.depth:
        raise ValueError(f"`packed` must have one matrix per layer, {net.depth}, got {len(packed)}")
    for k, act in enumerate(net.activations):
        if not act.is_step or len(act.thresholds) > LARGEST_CODE:
            raise ValueError(f"`net` must have steps of at most 256 levels in every layer, got {act} in layer {k + 1}")
    return check_real(sparsity, "sparsity", low=0.0, high=1.0, open_high=True)


def fold_hidden(net: Network, packed: Sequence[PackedTernary], sparsity: float) -> tuple[IntegerLayer, ...]:
    """Return layers 2, …, L as integers; the input codes are those of the first activation.

    u = (w/√(1 − ε)) Σ_j T_j (B + A v_j − m)/√d reaches s where
    Σ_j T_j v_j ≥ s √(d (1 − ε))/(w A) + ((m − B)/A) Σ_j T_j.

    Raises
    ------
    ValueError
        If an activation is no step, or the network has biases or no τ_0.
    """
    sparsity = _check_foldable(net, packed, sparsity)
    centre = layer_scales(net, float(net.tau0 or 0.0)).centre
    layers = []
    for k in range(1, net.depth):
        values, unit, offset, _ = integer_levels(net.activations[k - 1])
        a = 1 / (Fraction(net.weight_std) * unit)
        q = Fraction(packed[k].columns) * (1 - Fraction(sparsity))
        b = (Fraction(float(centre[k - 1])) - offset) / unit
        bound = int(np.abs(values).max()) * packed[k].columns
        thresholds = _fold_common(net.activations[k], a, q, b, row_sums(packed[k]), bound)
        layers.append(IntegerLayer(packed[k], values, thresholds))
    return tuple(layers)


def fold(
    net: Network,
    packed: Sequence[PackedTernary],
    sparsity: float,
    quantiser: InputQuantiser,
    *,
    mean: FloatArray | None = None,
    scale: float = 1.0,
) -> IntegerNetwork:
    """Return a network of steps as integers, from raw quantised inputs to codes.

    Parameters
    ----------
    net : Network
        Steps in every layer, no biases, τ_0 set.
    packed : sequence of PackedTernary
        Weights of every layer.
    sparsity : float
        Weights are scaled by (1 − sparsity)^{-1/2}.
    quantiser : InputQuantiser
        A raw input is taken for low + step · code.
    mean : ndarray, shape (p,), optional
        Preprocessing: the network sees (x − mean)/scale.
    scale : float
        See `mean`.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain.
    """
    sparsity = _check_foldable(net, packed, sparsity)
    quantiser = check_quantiser(quantiser)
    first, step = packed[0], Fraction(quantiser.step)
    a = Fraction(check_real(scale, "scale", low=0.0, open_low=True)) / (Fraction(net.weight_std) * step)
    q = (1 - Fraction(sparsity)) * (first.columns if net.input_scaling == "fan_in" else 1)
    bound = quantiser.largest * first.columns
    if mean is None:
        b = -Fraction(quantiser.low) / step
        thresholds = _fold_common(net.activations[0], a, q, b, row_sums(first), bound)
    else:
        if np.shape(mean) != (first.columns,):
            raise ValueError(f"`mean` must have shape ({first.columns},), got {np.shape(mean)}")
        shift = [(Fraction(float(value)) - Fraction(quantiser.low)) / step for value in mean]
        thresholds = _fold_mean(net.activations[0], a, q, shift, first, bound)
    entry = IntegerLayer(first, np.arange(1 << quantiser.bits, dtype=np.int32), thresholds)
    last = integer_levels(net.activations[-1])
    centre = Fraction(float(layer_scales(net, float(net.tau0 or 0.0)).centre[-1]))
    root = math.sqrt(packed[-1].shape[0])
    errors = [integer_levels(act).error / float(np.ptp(act.levels) or 1.0) for act in net.activations]
    return IntegerNetwork(
        (entry, *fold_hidden(net, packed, sparsity)),
        quantiser,
        last.values,
        output_unit=float(last.unit) / root,
        output_offset=float(last.offset - centre) / root,
        level_error=max(errors),
    )
