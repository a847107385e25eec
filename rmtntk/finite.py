r"""Networks of finite width and their empirical kernels, by layerwise back-propagation.

Weights have unit variance and enter as u_l = w W_l f_{l−1} + b β_l with f_0 the (scaled) input and
f_l = (σ_l(u_l) − centre_l)/√d_l, so that f_L f_Lᵀ → CK and the gradient kernel → NTK as the widths grow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rmtntk._typing import AnyArray, FloatArray, Seed
from rmtntk._validation import (
    as_generator,
    check_choice,
    check_data,
    check_dtype,
    check_integer,
    check_pair,
    check_real,
    check_widths,
)
from rmtntk.moments import has_jump
from rmtntk.network import Network, input_rows, layer_scales, resolve_tau0

__all__ = ["LAWS", "FiniteNetwork"]

LAWS = ("gaussian", "ternary", "student", "bernoulli")
STUDENT_FREEDOM = 6.0  # finite fourth moment, visibly heavy tails


class _Pass(NamedTuple):
    features: list[FloatArray]  # f_0 … f_L
    slopes: list[FloatArray]  # σ'_l(u_l)/√d_l


@dataclass(frozen=True, eq=False)
class FiniteNetwork:
    """A sampled network; make one with :meth:`sample`.

    Attributes
    ----------
    net : Network
        What it is a finite version of.
    weights : tuple of ndarray, shapes (d_l, d_{l−1})
        Unit-variance weights; the 1/√width is applied in the forward pass.
    biases : tuple of ndarray, shapes (d_l,)
        Unit-variance biases.
    readout : ndarray, shape (d_L,)
        Unit-variance weights of the one output whose gradient kernel :meth:`ntk` is.
    """

    net: Network
    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    readout: FloatArray

    @classmethod
    def sample(
        cls,
        net: Network,
        widths: Sequence[int],
        n_features: int,
        rng: Seed,
        *,
        law: Literal["gaussian", "ternary", "student", "bernoulli"] = "gaussian",
        sparsity: float = 0.0,
    ) -> "FiniteNetwork":
        """Draw the weights.

        Parameters
        ----------
        net : Network
            Activations, scales and centring.
        widths : sequence of int
            Width of every layer.
        n_features : int
            Input dimension p.
        rng : Generator or int
            Source of randomness.
        law : {"gaussian", "ternary", "student", "bernoulli"}
            Law of weights, biases and readout, always of unit variance: "ternary" and "bernoulli" are ±1
            before sparsification, "student" has six degrees of freedom.
        sparsity : float
            Probability that a weight is 0; the others are scaled by (1 − sparsity)^{-1/2}.
        """
        if not isinstance(net, Network):
            raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
        sizes = check_widths(widths, net.depth)
        n_features = check_integer(n_features, "n_features", low=1)
        generator = as_generator(rng)
        check_choice(law, "law", LAWS)
        sparsity = check_real(sparsity, "sparsity", low=0.0, high=1.0, open_high=True)
        shapes = list(zip(sizes, (n_features, *sizes[:-1]), strict=True))
        weights = tuple(_draw(shape, law, sparsity, generator) for shape in shapes)
        biases = tuple(_draw((width,), law, 0.0, generator) for width in sizes)
        return cls(net, weights, biases, _draw((sizes[-1],), law, 0.0, generator))

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of every layer."""
        return tuple(len(layer) for layer in self.weights)

    def features(self, x: ArrayLike) -> FloatArray:
        """Return f_L, shape (n, widths[-1]): its Gram matrix is the empirical CK."""
        data = check_data(x)
        tau0 = resolve_tau0(self.net, input_rows(self.net, self._checked(data)))
        return self._forward(data, tau0, want_slopes=False).features[-1]

    def ck(self, x: ArrayLike, y: ArrayLike | None = None, *, dtype: DTypeLike = np.float64) -> AnyArray:
        """Return the empirical conjugate kernel f_L(x) f_L(y)ᵀ, shape (n, m)."""
        kind = check_dtype(dtype)
        first, second = self._both(x, y, want_slopes=False)
        return np.asarray(first.features[-1] @ second.features[-1].T).astype(kind, copy=False)

    def ntk(self, x: ArrayLike, y: ArrayLike | None = None, *, dtype: DTypeLike = np.float64) -> AnyArray:
        r"""Return the empirical NTK, the Gram matrix of the output's gradient in all parameters.

        .. math:: \Theta = \sum_l (w^2 F_{l-1} F_{l-1}^T + b^2) \circ \Delta_l \Delta_l^T + w^2 F_L F_L^T + b^2

        Δ_l is the gradient of the output in u_l. Costs O(n² Σ d_l + n Σ d_l d_{l−1}); no Jacobian is formed.

        Raises
        ------
        ValueError
            If an activation jumps (its gradient is zero almost everywhere and says nothing of the kernel), or
            a custom one has no derivative.
        """
        kind = check_dtype(dtype)
        for act in self.net.activations:
            if has_jump(act):
                raise ValueError(f"the empirical NTK needs activations without jumps, got {act}: use rmtntk.ntk")
        first, second = self._both(x, y, want_slopes=True)
        w2, b2 = self.net.weight_std**2, self.net.bias_std**2
        total = w2 * (first.features[-1] @ second.features[-1].T) + b2
        gradient = [self.net.weight_std * self.readout * side.slopes[-1] for side in (first, second)]
        for layer in range(self.net.depth - 1, -1, -1):
            inner = w2 * (first.features[layer] @ second.features[layer].T) + b2
            total += inner * (gradient[0] @ gradient[1].T)
            if layer:
                gradient = [
                    self.net.weight_std * (delta @ self.weights[layer]) * side.slopes[layer - 1]
                    for delta, side in zip(gradient, (first, second), strict=True)
                ]
        return total.astype(kind, copy=False)

    def _checked(self, data: FloatArray) -> FloatArray:
        expected = self.weights[0].shape[1]
        if data.shape[1] != expected:
            raise ValueError(f"`x` must have the {expected} features the network was sampled for, got {data.shape[1]}")
        return data

    def _both(self, x: ArrayLike, y: ArrayLike | None, *, want_slopes: bool) -> tuple[_Pass, _Pass]:
        x_data, y_data = check_pair(x, y)
        tau0 = resolve_tau0(self.net, input_rows(self.net, self._checked(x_data)))
        first = self._forward(x_data, tau0, want_slopes=want_slopes)
        return first, first if y_data is None else self._forward(y_data, tau0, want_slopes=want_slopes)

    def _forward(self, data: FloatArray, tau0: float, *, want_slopes: bool) -> _Pass:
        scales = layer_scales(self.net, tau0)
        features = [input_rows(self.net, data)]
        slopes = []
        for k, act in enumerate(self.net.activations):
            u = self.net.weight_std * (features[-1] @ self.weights[k].T) + self.net.bias_std * self.biases[k]
            root = np.sqrt(u.shape[1])
            features.append((act(u) - scales.centre[k]) / root)
            if want_slopes:
                slopes.append(act.derivative(u) / root)
        return _Pass(features, slopes)


def _draw(shape: tuple[int, ...], law: str, sparsity: float, generator: np.random.Generator) -> FloatArray:
    if law == "gaussian":
        values = generator.standard_normal(shape)
    elif law == "student":
        values = generator.standard_t(STUDENT_FREEDOM, shape) * math.sqrt((STUDENT_FREEDOM - 2.0) / STUDENT_FREEDOM)
    else:
        values = np.asarray(2.0 * generator.integers(0, 2, shape) - 1.0)
    if sparsity > 0.0:
        values *= (generator.random(shape) >= sparsity) / np.sqrt(1.0 - sparsity)
    return values
