r"""Features of a network with ternary weights.

Where all activations are steps, hidden layers are integer arithmetic (:mod:`rmtntk.integer`): bit planes, popcounts
and integer thresholds, the codes being those of exact arithmetic. With quantised inputs the first layer is too; else
its product is taken in float64. Where some activations are not steps, sums over the codes of those that are remain
exact, and the rest is float64. No result depends on the number of threads.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtntk import integer
from rmtntk._activation import Activation
from rmtntk._threads import Numbers, get_num_threads, run
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.integer import InputQuantiser, IntegerLayer, IntegerLevels, IntegerNetwork, OutOfRange, Outside
from rmtntk.network import Network, input_rows, layer_scales
from rmtntk.packing import PackedTernary
from rmtntk.ternary.parts import Preprocessing

__all__ = ["Forward"]

_BATCH = 4096
_NEURONS = 256  # rows of weights unpacked at a time
_ONE_THREAD = 1 << 20  # fewer weights × rows are not worth a second thread
_ROUNDING = 1e-13  # levels that differ from integers in a unit by rounding only, relative to their range


class Forward:
    """The map from inputs to features; holds what is constant over inputs.

    Parameters
    ----------
    net : Network
        With its τ_0.
    packed : sequence of PackedTernary
        Weights of every layer.
    sparsity : float
        Weights are scaled by (1 − sparsity)^{-1/2}.
    quantiser : InputQuantiser, optional
        Inputs are raw and become codes first; the first layer is then integer as well.
    preprocessing : Preprocessing, optional
        Inputs are raw, and the network sees (x − mean)/scale of them. Without it inputs are in the network's units.
    """

    def __init__(
        self,
        net: Network,
        packed: Sequence[PackedTernary],
        sparsity: float,
        *,
        quantiser: InputQuantiser | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if net.tau0 is None:
            raise ValueError("`net` must have its tau0 set")
        self.net = net
        self.packed = packed
        self.sparsity = sparsity
        self.quantiser = None if quantiser is None else integer.check_quantiser(quantiser)
        self.preprocessing = preprocessing
        self.gain = net.weight_std / np.sqrt(1.0 - sparsity)
        self.centre = [float(value) for value in layer_scales(net, net.tau0).centre]

    @cached_property
    def is_integer(self) -> bool:
        """Whether hidden layers go by integers alone."""
        return self.net.bias_std == 0.0 and all(
            act.is_step and len(act.thresholds) <= integer.LARGEST_CODE for act in self.net.activations
        )

    @cached_property
    def hidden(self) -> tuple[IntegerLayer, ...]:
        """Layers 2, …, L as integers, from the codes of the first activation; made at first use."""
        return integer.fold_hidden(self.net, self.packed, self.sparsity)

    @cached_property
    def network(self) -> IntegerNetwork:
        """The whole network as integers; made at first use.

        Raises
        ------
        ValueError
            If inputs are not quantised or an activation is not a step.
        """
        if self.quantiser is None:
            raise ValueError("the inputs are not quantised: pass input_bits to have the first layer in integers")
        mean, scale = self.preprocessing or (None, 1.0)
        return integer.fold(self.net, self.packed, self.sparsity, self.quantiser, mean=mean, scale=scale)

    @property
    def nbytes(self) -> int:
        """Bytes the forward pass holds: weights as two planes, and what else its layers need."""
        if self.is_integer:
            layers: tuple[IntegerLayer, ...] = self.network.layers if self.quantiser is not None else self.hidden
            rest = 0 if self.quantiser is not None else self.packed[0].nbytes
            return rest + sum(layer.nbytes for layer in layers) + self._table.nbytes
        return sum(layer.nbytes for layer in self.packed)

    @cached_property
    def _table(self) -> FloatArray:
        """Feature of every code of the last layer."""
        return (self.net.activations[-1].levels - self.centre[-1]) / np.sqrt(self.packed[-1].shape[0])

    def __call__(
        self, data: AnyArray, *, out_of_range: OutOfRange = "error", outside: Outside | None = None
    ) -> FloatArray:
        """Return features (n, widths[-1]) of inputs (n, p).

        Parameters
        ----------
        data : ndarray, shape (n, p)
            Raw if there is a quantiser or preprocessing; bytes are taken as they are where inputs are quantised.
        out_of_range : {"error", "clip"}
            What to do with inputs outside the quantiser's range: raise, or cut them and warn with their number.
        outside : Outside, optional
            Where those cut are counted instead, for one warning over several calls.

        Raises
        ------
        ValueError
            If inputs are outside the quantiser's range.
        """
        if self.quantiser is not None:
            codes = integer.quantise(self.quantiser, data, out_of_range=out_of_range, outside=outside)
            if self.is_integer:
                return integer.propagate_values(self.network.layers, codes, self._table)
            return self._in_batches(codes)
        return self._in_batches(data)

    def _in_batches(self, data: NDArray[Any]) -> FloatArray:
        out = np.empty((len(data), self.packed[-1].shape[0]))
        for start in range(0, len(data), _BATCH):
            part = slice(start, start + _BATCH)
            out[part] = self._batch(data[part])
        return out

    def _batch(self, data: NDArray[Any]) -> FloatArray:
        """Features of some rows by way of the float64 arguments of the first layer."""
        u = self._first(data)
        if self.is_integer:
            codes = _codes(self.net.activations[0], u)
            if len(self.packed) == 1:
                return self._table[codes]
            return integer.propagate_values(self.hidden, codes, self._table)
        for k, act in enumerate(self.net.activations):
            root = np.sqrt(self.packed[k].shape[0])
            if k == len(self.packed) - 1:
                return (act(u) - self.centre[k]) / root
            levels, following = _levels(act), self.packed[k + 1]
            if levels is None:
                u = _product((act(u) - self.centre[k]) / root, following) * self.gain
            else:
                u = integer.accumulate(following, levels.values, _codes(act, u), np.float64)
                u *= float(levels.unit)
                shift = float(levels.offset - Fraction(self.centre[k]))
                u += shift * integer.row_sums(following)
                u *= self.gain / root
        raise AssertionError("unreachable: a network has at least one layer")

    def _first(self, data: NDArray[Any]) -> FloatArray:
        """Arguments of the first activation, of codes if inputs are quantised."""
        weights = self.packed[0]
        if self.quantiser is None:
            if self.preprocessing is not None:
                data = (data - self.preprocessing.mean) / self.preprocessing.scale
            return _product(input_rows(self.net, data), weights) * self.gain
        mean, scale = self.preprocessing or (np.zeros(weights.columns), 1.0)
        ramp = np.arange(self.quantiser.largest + 1, dtype=np.int32)
        sums = integer.accumulate(weights, ramp, data, np.float64) * self.quantiser.step
        sums += _product((self.quantiser.low - mean)[None, :], weights)
        return sums * (self.gain / scale * np.sqrt(self.net.input_factor(weights.columns)))


def _levels(act: Activation) -> IntegerLevels | None:
    """Levels as integers if that is exact but for rounding."""
    if not act.is_step or len(act.thresholds) > integer.LARGEST_CODE:
        return None
    found = integer.integer_levels(act)
    return found if found.error <= _ROUNDING * float(np.ptp(act.levels)) else None


def _codes(act: Activation, u: FloatArray) -> NDArray[np.uint8]:
    """How many thresholds every argument reaches."""
    codes = np.zeros(u.shape, dtype=np.uint8)
    for threshold in act.thresholds:
        codes += u >= threshold
    return codes


def _product(left: FloatArray, layer: PackedTernary) -> FloatArray:
    """Left @ Tᵀ, unpacking a few rows of T at a time, which are the same for every number of threads."""
    neurons = layer.shape[0]
    out = np.empty((len(left), neurons))
    starts = range(0, neurons, _NEURONS)

    def task(_: int) -> None:
        for number in numbers:
            part = slice(starts[number], starts[number] + _NEURONS)
            np.matmul(left, layer.unpack(part).astype(np.float64).T, out=out[:, part])

    numbers = Numbers(len(starts))
    run(task, 1 if layer.size * len(left) < _ONE_THREAD else min(get_num_threads(), len(starts)), numbers)
    return out
