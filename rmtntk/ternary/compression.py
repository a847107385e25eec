"""From a dense network to a ternary one: match the activations, draw the weights."""

from collections.abc import Sequence
from typing import Literal

from numpy.typing import ArrayLike

from rmtntk._typing import Seed
from rmtntk._validation import as_generator, check_choice, check_data, check_real, check_widths
from rmtntk.errors import InfeasibleError
from rmtntk.matching import Match, match
from rmtntk.network import Network, check_functions, input_rows, resolve_tau0
from rmtntk.packing import pack, sample_ternary
from rmtntk.ternary.network import TernaryNetwork

__all__ = ["compress"]


def compress(
    net: Network,
    x: ArrayLike,
    *,
    widths: Sequence[int],
    sparsity: float = 0.0,
    rng: Seed,
    method: Literal["tight", "layerwise", "paper"] = "tight",
    activations: Literal["ternary", "dense"] = "ternary",
) -> TernaryNetwork:
    """Replace a network by a random one with ternary weights and the same asymptotic kernels.

    Parameters
    ----------
    net : Network
        Centred, without biases.
    x : array_like, shape (n, p)
        Training samples; they set τ_0 if the network has none.
    widths : sequence of int
        Width of every layer.
    sparsity : float
        Probability in [0, 1) that a weight is 0.
    rng : Generator or int
        Source of the weights.
    method : {"tight", "layerwise", "paper"}
        How step activations are matched (:func:`rmtntk.match`).
    activations : {"ternary", "dense"}
        "dense" keeps the network's own activations: ternary weights alone cost nothing asymptotically.

    Raises
    ------
    InfeasibleError
        If no step activations match; the message says why.
    TypeError, ValueError
        If an argument is outside its domain.

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
    if net.bias_std != 0.0 or not net.centered:
        raise ValueError("`net` must have centered=True and bias_std=0 to be compressed")
    check_functions(net, "there is nothing to apply to the neurons")
    dense = net.with_tau0(resolve_tau0(net, input_rows(net, data)))
    found: Match | None = None
    matched = dense
    summary: dict[str, float] = {}
    if activations == "ternary":
        found = match(dense, method=method)
        if not found.activations or (not found.feasible and method != "paper"):
            raise InfeasibleError(found.message)
        matched = dense.with_activations(found.activations)
        summary = {"residual": found.residual, "excess": found.excess}
    generator = as_generator(rng)
    layers = [
        pack(sample_ternary(rows, columns, sparsity, generator))
        for rows, columns in zip(sizes, (data.shape[1], *sizes[:-1]), strict=True)
    ]
    return TernaryNetwork(dense, matched, layers, sparsity, match=found, summary=summary)
