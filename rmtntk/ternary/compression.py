"""From a dense network to a ternary one: match the activations, draw the weights."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray, Seed
from rmtntk._validation import as_generator, check_choice, check_data, check_integer, check_real, check_widths
from rmtntk.errors import InfeasibleError
from rmtntk.matching import METHODS, Match, match
from rmtntk.network import Network, check_functions, input_rows, resolve_tau0
from rmtntk.packing import WeightKey, require_weights, sample_packed
from rmtntk.ternary.network import TernaryNetwork
from rmtntk.ternary.parts import InputQuantiser

__all__ = ["compress", "input_quantiser"]


def compress(
    net: Network,
    x: ArrayLike,
    *,
    widths: Sequence[int],
    sparsity: float = 0.0,
    rng: Seed,
    method: Literal["tight", "data", "layerwise", "moments", "paper"] = "tight",
    levels: int | None = None,
    spacing: Literal["equal", "free"] = "equal",
    activations: Literal["ternary", "dense"] = "ternary",
    input_bits: int | None = None,
) -> TernaryNetwork:
    """Replace a network by a random one with ternary weights and the same asymptotic kernels.

    Parameters
    ----------
    net : Network
        Centred, without biases.
    x : array_like, shape (n, p)
        Training samples; they set τ_0 if the network has none, and are what ``method="data"`` looks at.
    widths : sequence of int
        Width of every layer.
    sparsity : float
        Probability in [0, 1) that a weight is 0.
    rng : Generator or int
        Source of the key of the weights.
    method : {"tight", "data", "layerwise", "moments", "paper"}
        How step activations are matched (:func:`rmtntk.match`).
    levels : int, optional
        Values an activation takes, 2 to 8; 3 if not given. More cost another bit plane a doubling, and accuracy less.
    spacing : {"equal", "free"}
        Whether the levels are equally spaced.
    activations : {"ternary", "dense"}
        "dense" keeps the network's own activations: ternary weights alone cost nothing asymptotically.
    input_bits : int, optional
        Round inputs to integers of so many bits (1 to 8), over the range of `x`, so that the first layer is integer
        arithmetic too; integers that fit are taken as they are.

    Raises
    ------
    InfeasibleError
        If no step activations match; the message says why.
    TypeError, ValueError
        If an argument is outside its domain, or a layer is left without weights.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), section 4.
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    data = check_data(x)
    sizes = check_widths(widths, net.depth)
    sparsity = check_real(sparsity, "sparsity", low=0.0, high=1.0, open_high=True)
    check_choice(activations, "activations", ("ternary", "dense"))
    check_choice(method, "method", METHODS)
    if activations == "dense" and (levels is not None or spacing != "equal" or method != "tight"):
        raise ValueError(
            '`method`, `levels` and `spacing` must be left alone with activations="dense", which keeps the network\'s'
        )
    if net.bias_std != 0.0 or not net.centered:
        raise ValueError("`net` must have centered=True and bias_std=0 to be compressed")
    check_functions(net, "there is nothing to apply to the neurons")
    quantiser = None if input_bits is None else input_quantiser(data, input_bits)
    dense = net.with_tau0(resolve_tau0(net, input_rows(net, data)))
    found: Match | None = None
    matched = dense
    summary: dict[str, float] = {}
    if activations == "ternary":
        seen = {"x": data, "widths": sizes} if method == "data" else {}
        found = match(dense, method=method, levels=levels, spacing=spacing, **seen)  # type: ignore[arg-type]  # by name
        if not found.activations or (not found.feasible and method != "paper"):
            raise InfeasibleError(found.message)
        matched = dense.with_activations(found.activations)
        summary = {"residual": found.residual, "excess": found.excess}
    key = WeightKey.draw(as_generator(rng))
    layers = []
    for k, (rows, columns) in enumerate(zip(sizes, (data.shape[1], *sizes[:-1]), strict=True)):
        layers.append(sample_packed(key, k, rows, columns, sparsity))
        require_weights(layers[-1], f"layer {k + 1}", sparsity)
    return TernaryNetwork(
        dense, matched, layers, sparsity, match=found, summary=summary, quantiser=quantiser, key=key
    )  # fmt: skip


def input_quantiser(x: FloatArray, bits: int) -> InputQuantiser:
    """Integers of so many bits for the values of `x`: themselves if they are integers that fit, else evenly spaced.

    Raises
    ------
    ValueError
        If `bits` is not in 1 … 8, or all values are the same.
    """
    bits = check_integer(bits, "input_bits", low=1, high=8)
    low, high = float(x.min()), float(x.max())
    if low == high:
        raise ValueError(f"`x` must take more than one value to be quantised, got {low:g} only")
    largest = (1 << bits) - 1
    if np.array_equal(x, np.rint(x)) and high - low <= largest:
        start = 0.0 if low >= 0.0 and high <= largest else low
        return InputQuantiser(bits, start, 1.0)
    return InputQuantiser(bits, low, (high - low) / largest)
