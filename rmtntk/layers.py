"""Networks written as a list of layers, as in neural-tangents; see :meth:`rmtntk.Network.from_layers`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rmtntk import activations as named
from rmtntk._validation import check_integer, check_real
from rmtntk.activations import Activation

__all__ = ["Dense", "resolve_layers"]


@dataclass(frozen=True)
class Dense:
    r"""Fully connected layer, with the arguments of neural-tangents' ``stax.Dense``.

    .. math:: z_i = \frac{w}{\sqrt{d}} \sum_{j \le d} W_{ij} x_j + b \beta_i, \qquad W_{ij}, \beta_i \sim N(0, 1)

    Parameters
    ----------
    out_dim : int
        Width of the layer; kernels of infinite width do not depend on it.
    W_std : float
        Weight scale w > 0.
    b_std : float, optional
        Bias scale b ≥ 0; None, as 0, is a layer without biases.
    parameterization : {"ntk"}
        The NTK of neural-tangents' "standard" parameterization weights layers by their finite widths and is not
        offered.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain.
    """

    out_dim: int
    W_std: float = 1.0
    b_std: float | None = None
    parameterization: str = "ntk"

    def __post_init__(self) -> None:
        if isinstance(self.out_dim, float):
            raise TypeError(
                f"`out_dim` must be an integer, got {self.out_dim!r}: the order is Dense(out_dim, W_std, b_std)"
            )
        check_integer(self.out_dim, "out_dim", low=1)
        check_real(self.W_std, "W_std", low=0.0, open_low=True)
        if self.b_std is not None:
            check_real(self.b_std, "b_std", low=0.0)
        if self.parameterization != "ntk":
            raise ValueError(
                f"`parameterization` must be 'ntk', got {self.parameterization!r}: the NTK of the standard "
                "parameterization weights every layer by its width (the NNGP is the same in both)"
            )


def resolve_layers(layers: Any) -> tuple[tuple[Activation, ...], float, float]:
    """Return activations, weight scale and bias scale of a list Dense, activation, Dense, …, Dense.

    The weight scale is that of the first Dense; where a later one differs, the ratio goes into the activation
    before it, which changes neither NNGP nor NTK.

    Raises
    ------
    TypeError
        If `layers` or one of its items is of the wrong kind.
    ValueError
        If the list does not begin and end with a Dense, has activations in a row or none, or the layers' scales
        cannot be those of one network.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"`layers` must be a list such as [Dense(1), 'relu', Dense(1)], got {layers!r}")
    dense: list[tuple[int, Dense]] = []
    between: list[Activation] = []
    for k, item in enumerate(layers):
        if isinstance(item, Dense):
            if len(between) < len(dense):  # two in a row: a linear layer of infinite width
                between.append(named.identity)
            dense.append((k, item))
        elif isinstance(item, Activation | str):
            if len(between) == len(dense):
                raise ValueError(
                    f"`layers[{k}]` ({item}) must come after a Dense: the argument of an activation must be Gaussian"
                )
            between.append(named.get(item) if isinstance(item, str) else item)
        else:
            raise TypeError(f"`layers[{k}]` must be a Dense, an Activation or the name of one, got {item!r}")
    if len(dense) < 2:
        raise ValueError(f"`layers` must have two Dense or more, around activations, got {len(dense)}")
    if len(between) == len(dense):
        raise ValueError(
            f"`layers` must end with a Dense, the readout, got {between[-1]}: append Dense(1), and take rn.ck for the "
            "kernel of what comes before it"
        )
    first = dense[0][1]
    activations = [_scaled(act, first.W_std, k, d) for act, (k, d) in zip(between, dense[1:], strict=True)]
    bias = first.b_std or 0.0
    for k, layer in dense[1:]:
        if (layer.b_std or 0.0) != bias:
            hint = (
                ": the readout's only adds its square to NNGP and NTK, so make it equal and add the difference"
                if k == len(layers) - 1
                else ""
            )
            raise ValueError(
                f"`layers[{k}]` must have the b_std of the first Dense, {bias:g}, got {layer.b_std or 0.0:g}: "
                f"a Network has one bias scale{hint}"
            )
    return tuple(activations), float(first.W_std), float(bias)


def _scaled(act: Activation, weight_std: float, k: int, layer: Dense) -> Activation:
    """Return the activation times what the W_std of the Dense after it, `layers[k]`, is over `weight_std`."""
    if layer.W_std == weight_std:
        return act
    r = layer.W_std / weight_std
    c = act.constants
    match act.family:
        case "homogeneous":
            return named.ab_relu(0.0 - r * c[1], r * c[0])  # not -0: names are shown
        case "erf":
            return named.erf_with(r * c[0], c[1], r * c[2])
        case "trig":
            return named.sin_with(r * c[0], c[1], c[2])
        case "exponential":
            return named.exp(c[1], r * c[0])
        case "gaussian":
            return named.exp_square(c[1], r * c[0])
        case "polynomial":
            return named.polynomial([r * value for value in c])
        case "step":
            return named.step(act.thresholds, r * act.levels)
    raise ValueError(
        f"`layers[{k}]` must have the W_std of the first Dense, {weight_std:g}, got {layer.W_std:g}: a Network has one "
        f"weight scale, and the ratio cannot go into {act} exactly; activations.custom can hold the multiple"
    )
