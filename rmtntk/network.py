"""What a wide network is: its activations, weight and bias scales, centring and input scaling."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk._validation import check_choice, check_real, squared_norms
from rmtntk.activations import Activation, get
from rmtntk.layers import Dense, resolve_layers
from rmtntk.moments import MomentArrays, moment_arrays

__all__ = ["LayerScales", "Network", "check_functions", "input_rows", "layer_scales", "resolve_tau0", "tau0_of"]

InputScaling = Literal["unit", "fan_in"]

_LARGEST = 1e150  # of standard deviations, whose squares float64 must hold


@dataclass(frozen=True)
class Network:
    r"""An infinitely wide fully connected network.

    .. math:: \Lambda_l = w^2 K_{l-1} + b^2, \qquad K_l = E[\sigma_l(u)\sigma_l(v)], \qquad
              K_0 = X X^T \text{ ("unit")  or } X X^T/p \text{ ("fan\_in")}

    Parameters
    ----------
    activations : sequence of Activation or str
        One activation a layer; its length is the depth L.
    weight_std, bias_std : float
        w > 0 and b ≥ 0. The paper has w = 1, b = 0.
    centered : bool
        Replace σ_l by σ_l − E[σ_l(λ_l ξ)], with λ_l² = w² τ_{l−1}² + b² and τ_l the scale of K_l.
    input_scaling : {"unit", "fan_in"}
        Whether K_0 is X Xᵀ (the paper) or X Xᵀ/p (neural-tangents).
    tau0 : float, optional
        Scale of the inputs in units of K_0: sqrt(mean ‖x_i‖²) under "unit". If not given it is taken from
        the training data of each call (the first array).

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), section 2, for w = 1, b = 0.
    """

    activations: tuple[Activation, ...]
    weight_std: float = 1.0
    bias_std: float = 0.0
    centered: bool = True
    input_scaling: InputScaling = "unit"
    tau0: float | None = None

    def __init__(
        self,
        activations: Sequence[Activation | str] | Activation | str,
        *,
        weight_std: float = 1.0,
        bias_std: float = 0.0,
        centered: bool = True,
        input_scaling: InputScaling = "unit",
        tau0: float | None = None,
    ) -> None:
        if not isinstance(activations, Activation | str | Sequence):
            raise TypeError(f"`activations` must be a sequence of Activations or names, got {activations!r}")
        items = (activations,) if isinstance(activations, Activation | str) else tuple(activations)
        if not items:
            raise ValueError("`activations` must hold one activation per layer, got none")
        layers = []
        for k, item in enumerate(items):
            if not isinstance(item, Activation | str):
                raise TypeError(f"`activations[{k}]` must be an Activation or a name, got {item!r}")
            layers.append(get(item) if isinstance(item, str) else item)
        if not isinstance(centered, bool):
            raise TypeError(f"`centered` must be True or False, got {centered!r}")
        check_choice(input_scaling, "input_scaling", ("unit", "fan_in"))
        fields = {
            "activations": tuple(layers),
            "weight_std": check_real(weight_std, "weight_std", low=0.0, high=_LARGEST, open_low=True),
            "bias_std": check_real(bias_std, "bias_std", low=0.0, high=_LARGEST),
            "centered": centered,
            "input_scaling": input_scaling,
            "tau0": None if tau0 is None else check_real(tau0, "tau0", low=0.0, open_low=True),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_layers(cls, layers: Sequence[Dense | Activation | str]) -> "Network":
        """Build a network from layers as neural-tangents has them: no centring, inputs over √p.

        The kernels of the result are those of ``stax.serial`` with the same layers: ``rn.nngp`` is its
        ``get="nngp"`` and ``rn.ntk`` its ``get="ntk"``, the last Dense included.

        Parameters
        ----------
        layers : sequence of Dense, Activation or str
            Dense, activation, Dense, …, Dense. Two Dense in a row have the identity between them. All have the
            b_std of the first; where a W_std differs, its ratio to the first goes into the activation before that
            Dense, and its square into `rn.ck`.

        Returns
        -------
        Network
            One layer less than there are Dense, which includes the readout.

        Raises
        ------
        TypeError, ValueError
            If the list is anything else; the message names the layer.

        Examples
        --------
        >>> import rmtntk as rn
        >>> from rmtntk.layers import Dense
        >>> net = rn.Network.from_layers([Dense(99, 1.5, 0.1), "erf", Dense(99, 1.5, 0.1), "relu", Dense(1, 1.2, 0.1)])
        >>> print(net, net.weight_std, net.bias_std)
        erf → ab_relu(a=0, b=0.8) 1.5 0.1
        """
        activations, weight_std, bias_std = resolve_layers(layers)
        return cls(activations, weight_std=weight_std, bias_std=bias_std, centered=False, input_scaling="fan_in")

    @property
    def depth(self) -> int:
        """Number of layers L."""
        return len(self.activations)

    def input_factor(self, n_features: int) -> float:
        """K_0 = factor · X Xᵀ: 1 under "unit", 1/p under "fan_in"."""
        return 1.0 if self.input_scaling == "unit" else 1.0 / n_features

    def with_tau0(self, tau0: float) -> "Network":
        """Return the same network with its input scale set."""
        return replace(self, tau0=tau0)

    def with_activations(self, activations: Sequence[Activation]) -> "Network":
        """Return the same network with other activations."""
        return replace(self, activations=tuple(activations))

    def __str__(self) -> str:
        return " → ".join(str(activation) for activation in self.activations)


class LayerScales(NamedTuple):
    """Population scales of a network at a given τ_0.

    Attributes
    ----------
    tau : ndarray, shape (L + 1,)
        τ_0, …, τ_L: K_l has diagonal τ_l² for a sample of typical norm.
    scale : ndarray, shape (L,)
        λ_l = sqrt(w² τ_{l−1}² + b²), the standard deviation of the argument of σ_l.
    centre : ndarray, shape (L,)
        What is subtracted from σ_l: its mean at λ_l, or 0 without centring.
    moments : tuple of MomentArrays
        Moments of σ_l at λ_l, arrays of shape (1,).
    """

    tau: FloatArray
    scale: FloatArray
    centre: FloatArray
    moments: tuple[MomentArrays, ...]


def layer_scales(net: Network, tau0: float) -> LayerScales:
    """Follow a sample of typical norm through the layers."""
    if any(act.name == "custom" for act in net.activations):  # a user's function may change between calls
        return _follow(net, tau0)
    return _remembered(net, tau0)


@lru_cache(maxsize=64)
def _remembered(net: Network, tau0: float) -> LayerScales:
    found = _follow(net, tau0)
    for array in (found.tau, found.scale, found.centre, *itertools.chain(*found.moments)):
        array.setflags(write=False)
    return found


def _follow(net: Network, tau0: float) -> LayerScales:
    tau, scale, centre, table = [tau0], [], [], []
    for activation in net.activations:
        argument = float(np.hypot(net.weight_std * tau[-1], net.bias_std))
        layer = moment_arrays(activation, np.array([argument]))
        scale.append(argument)
        # The mean of an odd function by quadrature is rounding; as an exact 0 it lets antipodes stay antipodes.
        odd = abs(float(layer.mean[0])) <= 1e-15 * float(np.sqrt(layer.second[0]))
        centre.append(float(layer.mean[0]) if net.centered and not odd else 0.0)
        tau.append(float(np.sqrt(layer.variance[0] if net.centered else layer.second[0])))
        table.append(layer)
        if tau[-1] == 0.0 or not np.isfinite(tau[-1]):
            raise ValueError(
                f"the features of layer {len(scale)} ({activation}) have scale {tau[-1]} at input scale "
                f"{argument:.3g}: the network carries no signal (thresholds far outside the data's scale?)"
            )
    return LayerScales(np.array(tau), np.array(scale), np.array(centre), tuple(table))


def check_functions(net: Network, why: str) -> None:
    """Raise if an activation is known by its kernel only; `why` says what is missing."""
    for act in net.activations:
        if not act.is_function:
            raise ValueError(
                f"`net` must have activations that are functions, got {act}, which is known by its kernel only: {why}"
            )


def input_rows(net: Network, x: FloatArray) -> FloatArray:
    """Return rows whose Gram matrix is K_0."""
    return x if net.input_scaling == "unit" else x / np.sqrt(x.shape[1])


def resolve_tau0(net: Network, rows: FloatArray) -> float:
    """Return the network's τ_0, or the one of these rows (already scaled as in :func:`input_rows`)."""
    return net.tau0 if net.tau0 is not None else tau0_of(net, squared_norms(rows, "x"))


def tau0_of(net: Network, squared: FloatArray) -> float:
    """Return the network's τ_0, or the one of rows with these squared norms in K_0, (n,)."""
    if net.tau0 is not None:
        return net.tau0
    tau0 = float(np.sqrt(squared.mean()))
    if tau0 == 0.0 or not np.isfinite(tau0):
        raise ValueError(
            f"`x` must have rows of positive finite norm to set tau0, got tau0 = {tau0}: pass Network(tau0=...)"
        )
    return tau0
