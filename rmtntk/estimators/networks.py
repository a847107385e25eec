"""From an estimator's parameters to a network, and from a network to its kernel."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from rmtntk._memory import check_memory
from rmtntk._typing import FloatArray
from rmtntk._validation import check_choice, check_integer
from rmtntk.activations import Activation, parse
from rmtntk.errors import InfiniteDiagonalError
from rmtntk.kernels import ck, kernel_diagonals, nngp, ntk
from rmtntk.moments import has_jump
from rmtntk.network import Network

__all__ = [
    "KINDS",
    "KernelKind",
    "build_layers",
    "build_network",
    "check_fit_memory",
    "diagonal",
    "evaluate",
    "row_blocks",
]

KernelKind = Literal["ntk", "ck", "nngp"]
KINDS = ("ntk", "ck", "nngp")

_BLOCK_BYTES = 1 << 27  # of a cross kernel at a time
_ADVICE = (
    "take fewer rows, TernaryFeatures with a linear model (memory grows with n, not n²), rn.KernelMatrix, whose "
    "ridge_solve works from the disk, or rn.equivalent with rn.ridge_solve"
)


def build_layers(activations: Any, depth: Any) -> tuple[Activation, ...]:
    """Return the activations of all layers: one name or Activation, `depth` times, or a list as it is.

    Raises
    ------
    TypeError, ValueError
        If something is not an activation or the name of one, the list is empty, or `depth` is not a positive integer.
    """
    if isinstance(activations, Activation):
        one: tuple[Activation, ...] = (activations,)
    elif isinstance(activations, str):
        one = parse(activations)
    else:
        if not isinstance(activations, list | tuple | np.ndarray):
            raise TypeError(f"`activations` must be a name, an Activation or a list of them, got {activations!r}")
        layers: list[Activation] = []
        for k, item in enumerate(activations):
            found = parse(item) if isinstance(item, str) else (item,)
            if len(found) != 1 or not isinstance(found[0], Activation):
                raise TypeError(f"`activations[{k}]` must be an Activation or the name of one, got {item!r}")
            layers.append(found[0])
        if not layers:
            raise ValueError("`activations` must hold one activation a layer, got an empty list")
        return tuple(layers)
    return one * check_integer(depth, "depth", low=1) if len(one) == 1 else one


def build_network(estimator: Any, kind: str | None = None) -> Network:
    """Return the network of an estimator's parameters; `kind` is the kernel it must have.

    Raises
    ------
    TypeError, ValueError
        If a parameter is outside its domain.
    InfiniteDiagonalError
        If the NTK is wanted of an activation that jumps.
    """
    net = Network(
        build_layers(estimator.activations, estimator.depth),
        weight_std=estimator.weight_std,
        bias_std=estimator.bias_std,
        centered=estimator.centered,
    )
    if kind is not None:
        check_choice(kind, "kernel", KINDS)
        jumping = [str(act) for act in net.activations if has_jump(act)]
        if kind == "ntk" and jumping:
            raise InfiniteDiagonalError(
                f"`kernel` 'ntk' is infinite on the diagonal for activations that jump, as {jumping[0]} does: "
                "take kernel='ck' or 'nngp'"
            )
    return net


def evaluate(net: Network, kind: str, x: FloatArray, y: FloatArray | None = None) -> FloatArray:
    """Return the kernel (n, m) of a network whose τ_0 is set."""
    function = {"ntk": ntk, "ck": ck, "nngp": nngp}[kind]
    return np.asarray(function(net, x, y))


def diagonal(net: Network, kind: str, x: FloatArray) -> FloatArray:
    """Return the diagonal (n,) of the kernel in O(n)."""
    both = kernel_diagonals(net, x)
    if kind == "ntk":
        return both.ntk
    return both.ck if kind == "ck" else net.weight_std**2 * both.ck + net.bias_std**2


def check_fit_memory(n: int, arrays: int) -> None:
    """Raise if `arrays` matrices of n × n numbers do not fit."""
    check_memory(8 * arrays * n * n, f"a fit on the kernel of {n} rows", _ADVICE)


def row_blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Cut rows so that a block of the cross kernel stays below 128 MiB, or is one row."""
    step = max(1, _BLOCK_BYTES // (8 * n_columns))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
