r"""Ternary weights from a counter: any rows of any layer from 16 bytes, on every machine and version alike.

Weights come from the raw 64-bit output of the Philox 4×64-10 generator (a public function of key and counter, whose
stream NumPy keeps) by integer comparisons alone, so that no change of a distribution's method can alter them.
Weight (i, j) of layer l: with s = ceil(columns / 8), row i takes the outputs of the counters l 2^128 + i s + 1, …,
l 2^128 + (i + 1) s, four 64-bit numbers each; each is two 32-bit numbers, the low half first; u is number j, and

.. math:: w = 0 \text{ if } u < 2T, \text{ else } 1 - 2 (u \bmod 2), \qquad T = \mathrm{round}(2^{31} \varepsilon).

So P(w = 0) = T/2^31 exactly, within 2^-32 of ε, and both signs have the same probability (2^31 − T)/2^32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmtntk._typing import Seed
from rmtntk._validation import as_generator, check_integer, check_real
from rmtntk.packing.planes import Masks, PackedTernary, assemble, block_rows

__all__ = ["Recipe", "WeightKey", "sample_keyed", "sample_packed", "sample_ternary", "zero_probability", "zero_units"]

KEY_BITS = 128
LAYER_BITS = 64
UNITS = 1 << 31
_PER_COUNTER = 8  # 32-bit numbers
_LITTLE = np.dtype("<u8")


@dataclass(frozen=True)
class WeightKey:
    """What weights are made of: a number of 128 bits.

    Attributes
    ----------
    key : int
        In [0, 2^128).

    Raises
    ------
    TypeError, ValueError
        If `key` is not such a number.
    """

    key: int

    def __post_init__(self) -> None:
        key = check_integer(self.key, "key", low=0)
        if key >> KEY_BITS:
            raise ValueError(f"`key` must be below 2**{KEY_BITS}, got {key}")
        object.__setattr__(self, "key", key)

    @classmethod
    def draw(cls, rng: Seed) -> "WeightKey":
        """Draw a key from a generator, which moves on, or from one seeded by an integer."""
        return cls(int.from_bytes(as_generator(rng).bytes(KEY_BITS // 8), "little"))

    def __str__(self) -> str:
        return f"{self.key:032x}"


class Recipe(NamedTuple):
    """How a layer's weights are made again: key, index of the layer, and T (see the module)."""

    key: WeightKey
    layer: int
    units: int


def zero_units(sparsity: float) -> int:
    """Return T, the probability of a zero in units of 2^-31.

    Raises
    ------
    TypeError, ValueError
        If `sparsity` is not in [0, 1), or so near to 1 that no weight would be left.
    """
    units = round(check_real(sparsity, "sparsity", low=0.0, high=1.0, open_high=True) * UNITS)
    if units == UNITS:
        raise ValueError(f"`sparsity` must be below 1 - 2**-32 for weights made from a key, got {sparsity!r}")
    return units


def zero_probability(sparsity: float) -> float:
    """Return the exact probability of a zero, T/2^31, within 2^-32 of `sparsity`."""
    return zero_units(sparsity) / UNITS


def sample_ternary(rows: int, columns: int, sparsity: float, rng: Seed) -> NDArray[np.int8]:
    """Draw independent weights: 0 with probability `sparsity` (to 2^-32), else ±1 with equal probability.

    The generator gives a key, and the key the weights: this is layer 0 of ``WeightKey.draw(rng)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain.
    """
    rows, columns = check_integer(rows, "rows", low=1), check_integer(columns, "columns", low=1)
    zero_units(sparsity)
    return sample_keyed(WeightKey.draw(rng), 0, rows, columns, sparsity)


def sample_keyed(
    key: WeightKey, layer: int, rows: int, columns: int, sparsity: float, *, block: slice = slice(None)
) -> NDArray[np.int8]:
    """Make the weights of a layer, or a block of its rows, from a key.

    Parameters
    ----------
    key : WeightKey
        Common to all layers of a network.
    layer : int
        Index of the layer, in [0, 2^64); layers of one key are independent.
    rows, columns : int
        Shape of the layer.
    sparsity : float
        Probability in [0, 1) of a zero, rounded to a multiple of 2^-31.
    block : slice
        Which rows to return, in steps of one; they do not depend on what else is made.

    Returns
    -------
    ndarray of int8, shape (rows of the block, columns)

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain.

    References
    ----------
    Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".
    """
    recipe, rows, columns = _check(key, layer, rows, columns, sparsity)
    start, stop, step = block.indices(rows)
    if step != 1:
        raise ValueError(f"`block` must be a slice with step 1, got {block}")
    out = np.empty((max(0, stop - start), columns), dtype=np.int8)
    done = 0
    for at, below in make_masks(recipe, range(start, max(start, stop)), columns):
        signed = out[done : done + len(at) // columns].reshape(-1)
        np.subtract(at.view(np.int8), 2 * below.view(np.int8), out=signed)
        done += len(at) // columns
    return out


def sample_packed(key: WeightKey, layer: int, rows: int, columns: int, sparsity: float) -> PackedTernary:
    """Make a layer in packed form, never unpacked as a whole; ``.unpack()`` is :func:`sample_keyed`'s result.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain.
    """
    recipe, rows, columns = _check(key, layer, rows, columns, sparsity)
    return assemble(rows, columns, make_masks(recipe, range(rows), columns))


def _check(key: WeightKey, layer: int, rows: int, columns: int, sparsity: float) -> tuple[Recipe, int, int]:
    if not isinstance(key, WeightKey):
        raise TypeError(f"`key` must be a WeightKey, got {key!r}: use WeightKey.draw(rng)")
    layer = check_integer(layer, "layer", low=0, high=(1 << LAYER_BITS) - 1)
    rows, columns = check_integer(rows, "rows", low=1), check_integer(columns, "columns", low=1)
    return Recipe(key, layer, zero_units(sparsity)), rows, columns


def make_masks(recipe: Recipe, rows: range, columns: int) -> Iterator[Masks]:
    """Yield where the weights of consecutive rows are nonzero and where negative, flat, a block of rows at a time."""
    stride = -(-columns // _PER_COUNTER)
    step = block_rows(columns)
    limit = np.uint32(2 * recipe.units)
    counter = (recipe.layer << KEY_BITS) + rows.start * stride
    stream = np.random.Philox(counter=counter, key=recipe.key.key)
    for start in range(0, len(rows), step):
        count = min(step, len(rows) - start)
        raw = stream.random_raw(4 * stride * count).astype(_LITTLE, copy=False)
        numbers = raw.view("<u4").reshape(count, _PER_COUNTER * stride)[:, :columns]
        nonzero = numbers >= limit
        negative = (numbers & np.uint32(1)).astype(np.bool_)
        negative &= nonzero
        yield nonzero.ravel(), negative.ravel()
