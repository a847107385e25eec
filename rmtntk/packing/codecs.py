r"""Ternary weights in bytes, without loss: four packings of the weights themselves, and one of what makes them.

=========  ==================================================================  ======================
packing    content, for a block of m weights of which k are nonzero            bits a weight
=========  ==================================================================  ======================
2bit       a bit map of the nonzero and one of the negative                    2
trit       five weights a byte, Σ 3^i t_i with t = 0, 1, 2 for 0, 1, −1        1.6
bitmap     a bit map of the nonzero, and k signs                               1 + k/m
entropy    the zeros entropy-coded (:mod:`rmtntk.packing.entropy`), k signs    H(k/m) + k/m and < 3 %
seed       key, layer, P(0) (:mod:`rmtntk.packing.sampling`)                    32 bytes a layer
=========  ==================================================================  ======================

Rows are coded in blocks (`planes.block_rows`), each of them on its own, so that at most some four million weights are
unpacked at a time. Bits are taken lowest first, numbers are little-endian. Before the blocks: one byte for the
packing, and rows and columns in 8 bytes each.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmtntk._memory import check_memory
from rmtntk._validation import check_choice
from rmtntk.packing.entropy import decode_mask, encode_mask, unpack_bits
from rmtntk.packing.planes import Masks, PackedTernary, assemble, block_rows, masks
from rmtntk.packing.sampling import LAYER_BITS, UNITS, Recipe, WeightKey, make_masks

__all__ = ["CODED", "PACKINGS", "decode", "encode", "packing_of", "recipe_of"]

CODED = ("2bit", "trit", "bitmap", "entropy")
"""Packings that hold the weights; "auto" takes the smallest of them."""
PACKINGS = ("auto", *CODED, "seed")
_HEAD = struct.Struct("<BQQ")
_SEED = struct.Struct("<16sQQ")
_NUMBERS = {name: k for k, name in enumerate((*CODED, "seed"), start=1)}
_NAMES = {k: name for name, k in _NUMBERS.items()}
_LARGEST = 1 << 26  # columns: a block of rows must not have 2^32 weights, the range of the entropy coder's counts
_POWERS = 3 ** np.arange(5, dtype=np.uint8)
_DIGITS = ((np.arange(3**5)[:, None] // _POWERS) % 3).astype(np.uint8)  # the five trits of every byte


class _Codec(NamedTuple):
    encode: Callable[[NDArray[np.bool_], NDArray[np.bool_]], bytes]
    decode: Callable[[memoryview, int], tuple[Masks, int]]


def encode(weights: PackedTernary, packing: str = "auto", *, recipe: Recipe | None = None) -> bytes:
    """Code a matrix in bytes that :func:`decode` reads.

    Parameters
    ----------
    weights : PackedTernary
        The matrix.
    packing : {"auto", "2bit", "trit", "bitmap", "entropy", "seed"}
        "auto" codes in every way that holds the weights and keeps the shortest. "seed" stores how they were made.
    recipe : Recipe, optional
        For "seed": how they were made. They are made again and compared before it is trusted.

    Returns
    -------
    bytes
        As many as are reported and stored.

    Raises
    ------
    ValueError
        If the packing is unknown, or "seed" without a recipe or with one of other weights.
    """
    check_choice(packing, "packing", PACKINGS)
    if weights.columns >= _LARGEST:
        raise ValueError(f"`weights` must have fewer than 2**26 columns to be coded, got {weights.columns}")
    if packing == "auto":
        return min((encode(weights, name) for name in CODED), key=len)
    head = _HEAD.pack(_NUMBERS[packing], *weights.shape)
    if packing == "seed":
        return head + _encode_recipe(weights, recipe)
    codec = _CODECS[packing]
    return b"".join([head, *(codec.encode(nonzero, negative) for nonzero, negative in masks(weights))])


def decode(content: bytes) -> PackedTernary:
    """Read what :func:`encode` wrote.

    Raises
    ------
    ValueError
        If `content` is not a matrix coded by :func:`encode`: damaged, shortened or continued.
    MemoryLimitError
        If the matrix would not fit into memory.
    """
    name, rows, columns, body = _split(content)
    if name in ("2bit", "trit", "bitmap") and rows * columns > 8 * len(body):
        raise ValueError("coded weights end early")
    check_memory(
        16 * rows * -(-columns // 64),
        f"a ternary layer of shape {(rows, columns)}",
        "read it where there is more memory",
    )
    if name == "seed":
        return assemble(rows, columns, make_masks(_decode_recipe(body), range(rows), columns))
    return assemble(rows, columns, _decode_blocks(_CODECS[name], rows, columns, body))


def packing_of(content: bytes) -> str:
    """Return the packing of coded weights."""
    return _split(content)[0]


def recipe_of(content: bytes) -> Recipe | None:
    """Return how weights coded by "seed" are made, None for other packings."""
    name, _, _, body = _split(content)
    return _decode_recipe(body) if name == "seed" else None


def _split(content: bytes) -> tuple[str, int, int, memoryview]:
    if len(content) < _HEAD.size:
        raise ValueError("coded weights end early")
    number, rows, columns = _HEAD.unpack_from(content)
    if number not in _NAMES or rows < 1 or not 1 <= columns < _LARGEST:
        raise ValueError("coded weights have an impossible packing or shape")
    return _NAMES[number], rows, columns, memoryview(content)[_HEAD.size :]


def _decode_blocks(codec: _Codec, rows: int, columns: int, body: memoryview) -> Iterator[Masks]:
    step = block_rows(columns)
    for start in range(0, rows, step):
        block, used = codec.decode(body, columns * min(step, rows - start))
        yield block
        body = body[used:]
    if len(body):
        raise ValueError("coded weights go on past their end")


def _take(content: memoryview, count: int) -> NDArray[np.uint8]:
    if len(content) < count:
        raise ValueError("coded weights end early")
    return np.frombuffer(content[:count], dtype=np.uint8)


def _bytes_of(mask: NDArray[np.bool_]) -> bytes:
    return np.packbits(mask, bitorder="little").tobytes()


def _read_signs(nonzero: NDArray[np.bool_], content: memoryview) -> tuple[NDArray[np.bool_], int]:
    count = int(np.count_nonzero(nonzero))
    used = -(-count // 8)
    negative = np.zeros(len(nonzero), dtype=np.bool_)
    negative[nonzero] = unpack_bits(_take(content, used), count)
    return negative, used


def _encode_planes(nonzero: NDArray[np.bool_], negative: NDArray[np.bool_]) -> bytes:
    return _bytes_of(nonzero) + _bytes_of(negative)


def _decode_planes(content: memoryview, size: int) -> tuple[Masks, int]:
    width = -(-size // 8)
    both = _take(content, 2 * width)
    nonzero, negative = unpack_bits(both[:width], size), unpack_bits(both[width:], size)
    if (negative > nonzero).any():
        raise ValueError("coded weights have a sign without a weight")
    return (nonzero, negative), 2 * width


def _encode_trits(nonzero: NDArray[np.bool_], negative: NDArray[np.bool_]) -> bytes:
    digits = np.zeros(5 * -(-len(nonzero) // 5), dtype=np.uint8)
    np.add(nonzero.view(np.uint8), negative.view(np.uint8), out=digits[: len(nonzero)])
    columns = digits.reshape(-1, 5)
    out = columns[:, 0].copy()
    for k in range(1, 5):
        out += columns[:, k] * _POWERS[k]
    return out.tobytes()


def _decode_trits(content: memoryview, size: int) -> tuple[Masks, int]:
    used = -(-size // 5)
    packed = _take(content, used)
    if packed.max() >= len(_DIGITS):
        raise ValueError("coded weights have a byte that is not five trits")
    digits = _DIGITS[packed].reshape(-1)
    if digits[size:].any():
        raise ValueError("coded weights have trits set past their end")
    digits = digits[:size]
    return (digits > 0, digits > 1), used


def _encode_bitmap(nonzero: NDArray[np.bool_], negative: NDArray[np.bool_]) -> bytes:
    return _bytes_of(nonzero) + _bytes_of(negative[nonzero])


def _decode_bitmap(content: memoryview, size: int) -> tuple[Masks, int]:
    width = -(-size // 8)
    nonzero = unpack_bits(_take(content, width), size)
    negative, used = _read_signs(nonzero, content[width:])
    return (nonzero, negative), width + used


def _encode_entropy(nonzero: NDArray[np.bool_], negative: NDArray[np.bool_]) -> bytes:
    return encode_mask(nonzero) + _bytes_of(negative[nonzero])


def _decode_entropy(content: memoryview, size: int) -> tuple[Masks, int]:
    nonzero, width = decode_mask(content, size)
    negative, used = _read_signs(nonzero, content[width:])
    return (nonzero, negative), width + used


_CODECS = {
    "2bit": _Codec(_encode_planes, _decode_planes),
    "trit": _Codec(_encode_trits, _decode_trits),
    "bitmap": _Codec(_encode_bitmap, _decode_bitmap),
    "entropy": _Codec(_encode_entropy, _decode_entropy),
}


def _encode_recipe(weights: PackedTernary, recipe: Recipe | None) -> bytes:
    if recipe is None:
        raise ValueError(
            '`packing` "seed" needs weights made from a key, and these were not: make them by sample_keyed or '
            'sample_packed, or take packing="auto"'
        )
    rows, columns = weights.shape
    made = make_masks(recipe, range(rows), columns)
    for (nonzero, negative), (at, below) in zip(masks(weights), made, strict=True):
        if not (np.array_equal(nonzero, at) and np.array_equal(negative, below)):
            raise ValueError(
                f'`packing` "seed" needs the weights that key {recipe.key} makes for layer {recipe.layer}, and these '
                'differ: take packing="auto"'
            )
    return _SEED.pack(recipe.key.key.to_bytes(16, "little"), recipe.layer, recipe.units)


def _decode_recipe(body: memoryview) -> Recipe:
    if len(body) != _SEED.size:
        raise ValueError("coded weights have a seed of the wrong length")
    key, layer, units = _SEED.unpack(body)
    if units >= UNITS or layer >> LAYER_BITS:
        raise ValueError("coded weights have an impossible seed")
    return Recipe(WeightKey(int.from_bytes(key, "little")), layer, units)
