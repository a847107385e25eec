"""What ternary weights cost: by encoding them, and by the bound no encoding of independent weights beats."""

import math
from collections.abc import Sequence

import numpy as np

from rmtntk._validation import check_real
from rmtntk.packing.codecs import CODED, encode
from rmtntk.packing.planes import PackedTernary
from rmtntk.packing.sampling import Recipe

__all__ = ["bits_per_weight", "entropy_bits", "measure"]


def bits_per_weight(sparsity: float) -> dict[str, float]:
    """Bits a weight takes in each packing, for a share `sparsity` of zeros.

    ``2bit``: two planes; ``trit``: five weights a byte; ``bitmap``: one bit a weight and one a sign;
    ``entropy``: the Shannon bound no lossless code of independent weights beats. Without headers and padding: see
    :func:`measure` for what is really stored.
    """
    e = check_real(sparsity, "sparsity", low=0.0, high=1.0)
    entropy = sum(-q * math.log2(q) for q in (e, 1.0 - e) if q > 0.0) + (1.0 - e)
    return {"float32": 32.0, "2bit": 2.0, "trit": 1.6, "bitmap": 1.0 + (1.0 - e), "entropy": entropy}


def entropy_bits(layers: Sequence[PackedTernary]) -> float:
    r"""Return the Shannon bound of the layers in bits, Σ m (h(k/m) + k/m), k of a layer's m weights being nonzero.

    h is the binary entropy: the layers' own shares of zeros are taken, not the nominal one.
    """
    return sum(layer.size * bits_per_weight(1.0 - layer.n_nonzero / layer.size)["entropy"] for layer in layers)


def measure(layers: Sequence[PackedTernary], recipes: Sequence[Recipe] | None = None) -> dict[str, int]:
    """Return the bytes the layers take in every packing, by encoding them.

    Parameters
    ----------
    layers : sequence of PackedTernary
        Weights of every layer.
    recipes : sequence of Recipe, optional
        How they were made, if from a key.

    Returns
    -------
    dict
        ``float32``: as floats of four bytes; ``memory``: the bit planes that are in memory at run time; ``2bit``,
        ``trit``, ``bitmap``, ``entropy``: encoded, with the headers of the layers; ``auto``: the smallest of these,
        layer by layer; ``seed``: only with `recipes`; ``bound``: the Shannon bound, rounded up.

    Raises
    ------
    ValueError
        If the recipes are not those of the weights.

    Notes
    -----
    Takes about as long as saving the model in each of the packings; one encoded layer at a time is held.
    """
    if recipes is not None and len(recipes) != len(layers):
        raise ValueError(f"`recipes` must have one entry a layer, {len(layers)}, got {len(recipes)}")
    sizes = np.array([[len(encode(layer, name)) for name in CODED] for layer in layers])
    found = {
        "float32": sum(4 * layer.size for layer in layers),
        "memory": sum(layer.nbytes for layer in layers),
        **dict(zip(CODED, sizes.sum(axis=0).tolist(), strict=True)),
        "auto": int(sizes.min(axis=1).sum()),
    }
    if recipes is not None:
        pairs = zip(layers, recipes, strict=True)
        found["seed"] = sum(len(encode(layer, "seed", recipe=recipe)) for layer, recipe in pairs)
    found["bound"] = math.ceil(entropy_bits(layers) / 8.0)
    return found
