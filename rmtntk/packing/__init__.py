"""Ternary weights: in memory as bit planes, in files in several packings, from a key by a counter-based generator."""

from rmtntk.packing.codecs import CODED, PACKINGS, decode, encode, packing_of, recipe_of
from rmtntk.packing.planes import WORD, PackedTernary, pack, require_weights
from rmtntk.packing.sampling import (
    Recipe,
    WeightKey,
    sample_keyed,
    sample_packed,
    sample_ternary,
    zero_probability,
    zero_units,
)
from rmtntk.packing.sizes import bits_per_weight, entropy_bits, measure

__all__ = [
    "CODED", "PACKINGS", "PackedTernary", "Recipe", "WORD", "WeightKey",
    "bits_per_weight", "decode", "encode", "entropy_bits", "measure", "pack", "packing_of", "recipe_of",
    "require_weights", "sample_keyed", "sample_packed", "sample_ternary", "zero_probability", "zero_units",
]  # fmt: skip
