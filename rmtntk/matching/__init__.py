"""Step activations with the same asymptotic kernels as a dense network's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray
from rmtntk._validation import check_choice, check_data, check_integer, check_real, check_widths
from rmtntk.matching.data import match_data
from rmtntk.matching.families import FAMILIES, Family, family_of
from rmtntk.matching.gauss import LEAST_LEVELS, match_moments
from rmtntk.matching.layerwise import match_layerwise
from rmtntk.matching.problem import Match, Objective, Target, infeasible, target_of
from rmtntk.matching.published import match_paper
from rmtntk.matching.tight import match_tight
from rmtntk.network import Network, input_rows

__all__ = ["FAMILIES", "METHODS", "Match", "match"]


@dataclass(frozen=True)
class _Request:
    """What a method is given."""

    target: Target
    objective: Objective
    family: Family
    n_starts: int
    seed: int
    x: FloatArray | None
    widths: tuple[float, ...]


def _paper(request: _Request) -> Match:
    return match_paper(request.target, request.objective, n_starts=request.n_starts, seed=request.seed)


def _data(request: _Request) -> Match:
    assert request.x is not None
    return match_data(request.target, request.objective, request.family, request.x, request.widths)


_DISPATCH: dict[str, Callable[[_Request], Match]] = {
    "tight": lambda request: match_tight(request.target, request.objective, request.family),
    "layerwise": lambda request: match_layerwise(request.target, request.objective, request.family),
    "data": _data,
    "paper": _paper,
    "moments": lambda request: match_moments(request.target, request.objective, request.family.levels),
}
METHODS = tuple(_DISPATCH)


def match(
    net: Network,
    tau0: float | None = None,
    *,
    method: Literal["tight", "data", "layerwise", "paper", "moments"] = "tight",
    levels: int | None = None,
    spacing: Literal["equal", "free"] = "equal",
    family: str | Sequence[float] | None = None,
    objective: Literal["ck", "ntk", "both"] = "ck",
    x: ArrayLike | None = None,
    widths: Sequence[int] | None = None,
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
    method : {"tight", "data", "layerwise", "paper", "moments"}
        "tight": match α2/α1, α3/α1 of the whole network and minimise the excess. "data": the same equations, but
        of all their solutions the one that predicts best over the samples `x` (:mod:`rmtntk.matching.risk`); takes
        seconds. "layerwise": match α1, α2, α3
        after every layer, by complete root finding on a grid. "paper": the published algorithm, which may fail.
        "moments": the first 2(levels − 1) moments E[σ⁽ʲ⁾] of every layer, by steps of free levels
        (:mod:`rmtntk.matching.gauss`): one layer's kernels then differ by 1/n instead of n^-1/2; for one layer, and
        deep networks in which no later layer needs g (E[σ''] = 0 after the first).
        All but "paper" are free of random numbers.
    levels : int, optional
        Pieces of every step function, 2 to 8 (from 3 on for "moments"); 3 if not given.
    spacing : {"equal", "free"}
        Whether the levels are equally spaced (rising, or falling and then rising) or sought as well; "moments"
        always seeks them.
    family : str or sequence of float, optional
        "{-1,0,1}", "{1,0,1}", "{0,1}" or any other levels from left to right, up to an amplitude and a constant; None
        or "mixed" for all of the given number.
    objective : {"ck", "ntk", "both"}
        Whose coefficients "tight" matches; "layerwise" matches both whenever it succeeds.
    x : array_like, shape (n, p), optional
        For "data": samples, n ≥ 20, in the units of the network; at most 200 of them are used.
    widths : sequence of int, optional
        For "data": widths of the finite network to be built; as wide as the samples if not given.
    n_starts, seed : int
        Random starts per layer and their seed, for "paper" only (the publication used 1000).

    Returns
    -------
    Match
        With ``feasible=False`` and the reason in ``message`` if the network cannot be matched.

    Raises
    ------
    TypeError, ValueError
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
    check_choice(objective, "objective", ("ck", "ntk", "both"))
    chosen = family_of(levels, spacing, family)
    if method == "paper" and (levels not in (None, 3) or spacing != "equal" or family is not None):
        raise ValueError('`levels`, `spacing` and `family` must be left alone with method="paper", which has its own')
    if method == "moments" and family is not None:
        raise ValueError(
            f'`family` must be None with method="moments" (the levels are what is sought), got {family!r}; '
            'try method="tight"'
        )
    if method == "moments" and chosen.levels < LEAST_LEVELS:
        raise ValueError(
            f'`levels` must be {LEAST_LEVELS} to 8 with method="moments" (two thresholds at least), got {levels}'
        )
    n_starts = check_integer(n_starts, "n_starts", low=1)
    seed = check_integer(seed, "seed", low=0)
    rows: FloatArray | None = None
    if method == "data":
        if x is None:
            raise ValueError('`x` must be given for method="data": the samples over which kernels are compared')
        rows = check_data(x)
        if len(rows) < 20:
            raise ValueError(f'`x` must have at least 20 samples for method="data", got {len(rows)}')
    elif x is not None or widths is not None:
        raise ValueError(f'`x` and `widths` are for method="data" only, got method={method!r}')
    if widths is not None:
        sizes = tuple(float(width) for width in check_widths(widths, net.depth))
    else:
        sizes = (float("inf") if rows is None else float(rows.shape[1]),) * net.depth
    scale = tau0 if tau0 is not None else net.tau0
    if scale is not None:
        scale = check_real(scale, "tau0", low=0.0, open_low=True)
    if rows is not None:
        norm = float(np.sqrt((input_rows(net, rows) ** 2).sum() / len(rows)))
        scale = norm if scale is None else scale
        if not 0.5 * scale <= norm <= 2.0 * scale:
            raise ValueError(
                f"`x` must have a root mean squared norm near tau0 = {scale:g} (within a factor of 2), got {norm:g}: "
                "centre and scale it as the network's inputs"
            )
    if scale is None:
        raise ValueError("`tau0` must be given, or set on the network: Network(..., tau0=sqrt(mean ‖x‖²))")
    target = target_of(net, scale)
    if target.silent_layer is not None:
        act = net.activations[target.silent_layer]
        reason = (
            f"layer {target.silent_layer + 1} ({act}) has E[σ'] = E[σ''] = 0: the kernel is asymptotically a "
            "multiple of the identity and there is nothing to match"
        )
        return infeasible(target, method, objective, reason, levels=chosen.levels)
    return _DISPATCH[method](_Request(target, objective, chosen, n_starts, seed, rows, sizes))
