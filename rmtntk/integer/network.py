"""A whole network of integers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk.integer.inputs import InputQuantiser
from rmtntk.integer.layer import IntegerLayer
from rmtntk.integer.run import propagate

__all__ = ["IntegerNetwork"]


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A whole network from input codes to output codes.

    Attributes
    ----------
    layers : tuple of IntegerLayer
        First to last.
    quantiser : InputQuantiser
        How raw inputs become codes; preprocessing is folded into the first thresholds.
    outputs : ndarray of int32, shape (k,)
        Integer of every code of the last layer.
    output_unit, output_offset : float
        The features are output_offset + output_unit · outputs[code], centring and 1/√width included.
    level_error : float
        Largest distance of a level from the multiple of its unit that stands for it, relative to the range of the
        levels of its activation; a few roundings where they have a common unit.
    """

    layers: tuple[IntegerLayer, ...]
    quantiser: InputQuantiser
    outputs: NDArray[np.int32]
    output_unit: float = 1.0
    output_offset: float = 0.0
    level_error: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes held, weights included."""
        return sum(layer.nbytes for layer in self.layers) + self.outputs.nbytes

    def codes(self, x_codes: ArrayLike) -> NDArray[np.uint8]:
        """Return the codes of the last layer, (n, d_L), of input codes (n, p), exactly."""
        return propagate(self.layers, self._check(x_codes))

    def reference(self, x_codes: ArrayLike) -> NDArray[np.uint8]:
        """Return the same by products of int64 matrices in NumPy: slow, and all there is to understand."""
        codes = self._check(x_codes)
        for layer in self.layers:
            sums = layer.values.astype(np.int64)[codes] @ layer.weights.unpack().astype(np.int64).T
            codes = np.zeros(sums.shape, dtype=np.uint8)
            for threshold in layer.thresholds.T:
                codes += sums >= threshold
        return codes

    def _check(self, x_codes: ArrayLike) -> NDArray[np.uint8]:
        array = np.asarray(x_codes)
        width, largest = self.layers[0].weights.columns, len(self.layers[0].values) - 1
        if array.dtype.kind not in "iu":
            raise TypeError(f"`x_codes` must be integers, got dtype {array.dtype}: quantise(quantiser, x) makes them")
        if array.ndim != 2 or array.shape[1] != width or len(array) == 0:
            raise ValueError(f"`x_codes` must have shape (n, {width}) with n ≥ 1, got {array.shape}")
        outside = int(((array < 0) | (array > largest)).sum())
        if outside:
            raise ValueError(f"`x_codes` must be in 0 … {largest}, got {outside} of {array.size} entries outside")
        return np.ascontiguousarray(array, dtype=np.uint8)
