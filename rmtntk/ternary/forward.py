r"""Features of a network with ternary weights.

Hidden arithmetic is exact. A three-level activation is level = A z + B with small integers z, so that the
next pre-activation is s·(A T z + (B − m) rowsum(T)) with T ternary: T z is an integer, computed without
rounding, and the comparison with the thresholds does not depend on summation order or threads.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmtntk._activation import Activation
from rmtntk._typing import FloatArray
from rmtntk.network import Network, input_rows, layer_scales
from rmtntk.packing import PackedTernary

__all__ = ["Forward"]

_BATCH = 4096
_ROWS_AT_ONCE = 2048


class _Integers(NamedTuple):
    """levels = amplitude · codes + offset with small integer codes."""

    codes: NDArray[np.float32]
    amplitude: float
    offset: float


class Forward:
    """The map from inputs (in the units of the network) to features; holds what is constant over inputs."""

    def __init__(self, net: Network, packed: Sequence[PackedTernary], sparsity: float) -> None:
        if net.tau0 is None:
            raise ValueError("`net` must have its tau0 set")
        self.net = net
        self.packed = packed
        self.gain = net.weight_std / np.sqrt(1.0 - sparsity)
        self.centre = [float(value) for value in layer_scales(net, net.tau0).centre]
        self.rowsums = [_row_sums(layer) for layer in packed]

    def __call__(self, data: FloatArray) -> FloatArray:
        """Return features (n, widths[-1]) of inputs (n, p); at most 4096 rows are in work at a time."""
        out = np.empty((len(data), self.packed[-1].shape[0]))
        for start in range(0, len(data), _BATCH):
            part = slice(start, start + _BATCH)
            out[part] = self._batch(data[part])
        return out

    def _batch(self, data: FloatArray) -> FloatArray:
        u = _product(input_rows(self.net, data), self.packed[0]) * self.gain
        for k, act in enumerate(self.net.activations):
            root = np.sqrt(self.packed[k].shape[0])
            last = k == len(self.packed) - 1
            integers = _integers(act) if act.is_step else None
            if last or integers is None:
                f = (act(u) - self.centre[k]) / root
                if last:
                    return f
                u = _product(f, self.packed[k + 1]) * self.gain
            else:
                codes = integers.codes[np.searchsorted(act.thresholds, u, side="right")]
                sums = _product(codes, self.packed[k + 1]).astype(np.float64)
                sums *= integers.amplitude
                sums += (integers.offset - self.centre[k]) * self.rowsums[k + 1]
                u = sums * (self.gain / root)
        raise AssertionError("unreachable: a network has at least one layer")


def _integers(act: Activation) -> _Integers | None:
    """Write three levels as A z + B with z in {−1, 0, 1}, if they are equally spaced or two coincide."""
    levels = act.levels
    distinct = np.unique(levels)
    if len(distinct) == 1 or len(distinct) > 3:
        return None
    middle = distinct[len(distinct) // 2]
    amplitude = float(np.abs(distinct - middle).max())
    codes = (levels - middle) / amplitude
    if not np.isin(codes, (-1.0, 0.0, 1.0)).all():
        return None
    return _Integers(codes.astype(np.float32), amplitude, float(middle))


def _row_sums(layer: PackedTernary) -> FloatArray:
    return np.concatenate(
        [
            layer.unpack(slice(start, start + _ROWS_AT_ONCE)).sum(axis=1, dtype=np.int64)
            for start in range(0, layer.shape[0], _ROWS_AT_ONCE)
        ]
    ).astype(np.float64)


def _product(left: NDArray[Any], layer: PackedTernary) -> NDArray[Any]:
    """Left @ Tᵀ in left's type, unpacking a block of rows of T at a time; exact for small integers."""
    out = np.empty((len(left), layer.shape[0]), dtype=left.dtype)
    for start in range(0, layer.shape[0], _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        np.matmul(left, layer.unpack(part).astype(left.dtype).T, out=out[:, part])
    return out
