"""Step activations with the same asymptotic kernels as a dense network's."""

from typing import Literal

from rmtntk._validation import check_choice, check_integer, check_real
from rmtntk.matching.layerwise import match_layerwise
from rmtntk.matching.problem import Match, infeasible, target_of
from rmtntk.matching.published import match_paper
from rmtntk.matching.tight import match_tight
from rmtntk.network import Network

__all__ = ["METHODS", "Match", "match"]

METHODS = ("tight", "layerwise", "paper")


def match(
    net: Network,
    tau0: float | None = None,
    *,
    method: Literal["tight", "layerwise", "paper"] = "tight",
    levels: int = 3,
    objective: Literal["ck", "ntk"] = "ck",
    n_starts: int = 100,
    seed: int = 0,
) -> Match:
    r"""Find step activations whose CK (and NTK) have the dense network's asymptotic coefficients.

    Parameters
    ----------
    net : Network
        Centred, without biases.
    tau0 : float, optional
        Scale of the inputs; the network's own if not given.
    method : {"tight", "layerwise", "paper"}
        "tight": match α2/α1, α3/α1 of the whole network and minimise the excess. "layerwise": match α1, α2, α3
        after every layer, by complete root finding on a grid. "paper": the published algorithm, which may fail.
        All but "paper" are free of random numbers.
    levels : int
        Number of distinct levels; 3 is what is implemented.
    objective : {"ck", "ntk"}
        Whose coefficients "tight" matches; "layerwise" matches both whenever it succeeds.
    n_starts, seed : int
        Random starts per layer and their seed, for "paper" only (the publication used 1000).

    Returns
    -------
    Match
        With ``feasible=False`` and the reason in ``message`` if the network cannot be matched.

    Raises
    ------
    ValueError
        If an argument is outside its domain.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), Algorithm 1, is "paper"; the others are this library's.

    Examples
    --------
    >>> import rmtntk as rn
    >>> m = rn.match(rn.Network(["tanh"]), 1.0, method="layerwise")
    >>> m.feasible, [round(float(s), 3) for s in m.activations[0].thresholds]
    (True, [-0.612, 0.612])
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    if not net.centered or net.bias_std != 0.0:
        raise ValueError(
            f"`net` must have centered=True and bias_std=0 to be matched, got centered={net.centered}, "
            f"bias_std={net.bias_std:g}"
        )
    check_choice(method, "method", METHODS)
    check_choice(objective, "objective", ("ck", "ntk"))
    check_integer(levels, "levels", low=3, high=3)
    scale = tau0 if tau0 is not None else net.tau0
    if scale is None:
        raise ValueError("`tau0` must be given, or set on the network: Network(..., tau0=sqrt(mean ‖x‖²))")
    target = target_of(net, check_real(scale, "tau0", low=0.0, open_low=True))
    if target.silent_layer is not None:
        act = net.activations[target.silent_layer]
        reason = (
            f"layer {target.silent_layer + 1} ({act}) has E[σ'] = E[σ''] = 0: the kernel is asymptotically a "
            "multiple of the identity and there is nothing to match"
        )
        return infeasible(target, method, objective, reason)
    if method == "layerwise":
        return match_layerwise(target, objective)
    if method == "tight":
        return match_tight(target, objective)
    n_starts = check_integer(n_starts, "n_starts", low=1)
    return match_paper(target, objective, n_starts=n_starts, seed=check_integer(seed, "seed", low=0))
