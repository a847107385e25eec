r"""Networks of finite width and their empirical kernels, by layerwise back-propagation.

Weights have unit variance and enter as u_l = w W_l f_{l−1} + b β_l with f_0 the (scaled) input and
f_l = (σ_l(u_l) − centre_l)/√d_l, so that f_L f_Lᵀ → CK and the gradient kernel → NTK as the widths grow.

No Jacobian is formed: the gradient of the output in W_l is an outer product δ_l ⊗ w f_{l−1} for every sample, and
the Gram matrix of outer products is the entrywise product of two Gram matrices. Both dtypes run in their own
arithmetic from the first product to the last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rmtntk._backprop import (
    ADVICE,
    Layers,
    Plan,
    assemble,
    batches,
    default_batch,
    last_features,
    layers,
    require_finite,
    tile_buffers,
)
from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray, Seed
from rmtntk._validation import (
    as_generator,
    check_array,
    check_choice,
    check_data,
    check_dtype,
    check_integer,
    check_pair,
    check_real,
    check_widths,
    squared_norms,
)
from rmtntk.moments import has_jump
from rmtntk.network import Network, check_functions, layer_scales, tau0_of

__all__ = ["LAWS", "FiniteNetwork"]

LAWS = ("gaussian", "ternary", "student", "bernoulli")
STUDENT_FREEDOM = 6.0  # finite fourth moment, visibly heavy tails
DRAWN_AT_ONCE = 2**15  # entries; the stream of random numbers does not depend on it


@dataclass(frozen=True, eq=False)
class FiniteNetwork:
    """A network with given weights; make one with :meth:`sample` or :meth:`from_arrays`.

    Attributes
    ----------
    net : Network
        What it is a finite version of.
    weights : tuple of ndarray, shapes (d_l, d_{l−1})
        Unit-variance weights; the 1/√width is applied in the forward pass. float64 or float32.
    biases : tuple of ndarray, shapes (d_l,)
        Unit-variance biases; they enter times the network's `bias_std`.
    readout : ndarray, shape (d_L,), or None
        Unit-variance weights of the one output whose gradient kernel :meth:`ntk` is.

    Notes
    -----
    *Cost.* A product of a layer takes 2 n d_l d_{l−1} operations, a Gram matrix n² d_l (half, if `y` is None): for
    n = 400, p = 784 and widths 1000, 1000, 1000 that is 3.8 billion in the layers and 1.1 billion in the Gram
    matrices of :meth:`ntk`, against 23 MB of weights and 11 MB of features in float32. Matrix products are the
    floor, and the rest is kept out of their way: activations are applied to pieces that fit the cache, scales are
    folded into arrays that are written anyway. ``validation/bench_finite.py`` measures the distance.

    *Sparse and ternary weights* are multiplied densely. SciPy's CSR product, which runs on one core, is slower than
    a dense float32 one at sparsity 0.9 (3.2 against 1.7 ms for a layer of 1000 × 1000 and 400 samples on two
    cores; in float64 6.4 against 3.7 ms) and overtakes it near 0.95.

    *Memory.* The result, the data in float64, the weights in the dtype asked for, and a workspace of at most
    256 MiB or four times the weights, whichever is more, whatever n: samples are taken in batches, and the layers
    of a batch are computed again for each batch it meets. `batch_size` sets another size.

    *Accuracy.* float64: rounding. float32: the data and the weights are rounded once, all arithmetic is float32
    (polynomials and custom functions are evaluated in float64 and rounded), and entries are within 4e-6 of those in
    float64, in units of the largest diagonal entry, for widths of 200 to 2000 and depth 3 (2e-7 to 2e-6 found).
    Where the function jumps (:meth:`ck`) or its slope does (:meth:`ntk`), a neuron whose argument is within rounding
    of the point may come to lie on the other side, and then the entries of its sample move by O(1/d_l): among a
    million ReLU neurons one or two do, and moved diagonal entries by 1e-4 to 4e-3 at widths of 1000.
    """

    net: Network
    weights: tuple[AnyArray, ...]
    biases: tuple[AnyArray, ...]
    readout: AnyArray | None

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
        dtype: DTypeLike = np.float64,
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
        dtype : dtype
            How the weights are kept. float32 rounds the draws of float64, so that the same seed gives the same
            network, in half the memory.

        Raises
        ------
        TypeError, ValueError
            If an argument is outside its domain.
        """
        _check_net(net)
        sizes = check_widths(widths, net.depth)
        n_features = check_integer(n_features, "n_features", low=1)
        generator = as_generator(rng)
        check_choice(law, "law", LAWS)
        sparsity = check_real(sparsity, "sparsity", low=0.0, high=1.0, open_high=True)
        kind = check_dtype(dtype)
        shapes = list(zip(sizes, (n_features, *sizes[:-1]), strict=True))
        weights = tuple(_draw(shape, law, sparsity, generator, kind) for shape in shapes)
        biases = tuple(_draw((width,), law, 0.0, generator, kind) for width in sizes)
        return cls(net, weights, biases, _draw((sizes[-1],), law, 0.0, generator, kind))

    @classmethod
    def from_arrays(
        cls,
        net: Network,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike] | None = None,
        readout: ArrayLike | None = None,
    ) -> "FiniteNetwork":
        r"""Take weights from elsewhere, a trained network for example.

        Parameters
        ----------
        net : Network
            Activations, scales and centring. Layer l computes :math:`u_l = w W_l f_{l-1} + b \beta_l` and
            :math:`f_l = (\sigma_l(u_l) - c_l)/\sqrt{d_l}`: weights of a framework without the 1/√width go in times
            √d_{l−1} (not the first layer's, under "unit" scaling), biases over b.
        weights : sequence of array_like, shapes (d_l, d_{l−1})
            One matrix a layer; d_0 is the number of features.
        biases : sequence of array_like, shapes (d_l,), optional
            One vector a layer, in units of the network's `bias_std`; zeros if not given. Their gradients count in
            :meth:`ntk` either way, if `bias_std` is not 0.
        readout : array_like, shape (d_L,), optional
            Needed by :meth:`ntk` only.

        Returns
        -------
        FiniteNetwork
            With copies of the arrays, float32 where they were, else float64.

        Raises
        ------
        TypeError, ValueError
            If an array is not finite and real, or its shape does not fit the layer below.
        """
        _check_net(net)
        matrices: list[AnyArray] = []
        for k, value in enumerate(_per_layer(weights, "weights", net.depth)):
            matrix = _own(value, f"weights[{k}]", 2)
            if k and matrix.shape[1] != len(matrices[-1]):
                raise ValueError(
                    f"`weights[{k}]` must have {len(matrices[-1])} columns, one for every row of `weights[{k - 1}]`, "
                    f"got shape {matrix.shape}"
                )
            matrices.append(matrix)
        if biases is None:
            vectors = [np.zeros(len(matrix), dtype=matrix.dtype) for matrix in matrices]
        else:
            vectors = [
                _vector(value, f"biases[{k}]", len(matrices[k]), f"weights[{k}]")
                for k, value in enumerate(_per_layer(biases, "biases", net.depth))
            ]
        last = None if readout is None else _vector(readout, "readout", len(matrices[-1]), f"weights[{net.depth - 1}]")
        return cls(net, tuple(matrices), tuple(vectors), last)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of every layer."""
        return tuple(len(layer) for layer in self.weights)

    @property
    def n_features(self) -> int:
        """Input dimension p."""
        return int(self.weights[0].shape[1])

    def features(self, x: ArrayLike, *, dtype: DTypeLike = np.float64, batch_size: int | None = None) -> AnyArray:
        """Return f_L, whose Gram matrix is the empirical CK.

        Parameters
        ----------
        x : array_like, shape (n, p)
            Samples in rows; they set tau0 and so the centring, unless the network has a tau0.
        dtype : dtype
            float64 or float32, of the arithmetic and the result.
        batch_size : int, optional
            Samples at a time; what fits the workspace if not given (see the class).

        Returns
        -------
        ndarray, shape (n, widths[-1])

        Raises
        ------
        TypeError, ValueError
            If the data is not a finite matrix with the network's features, or a feature overflows.
        """
        kind = check_dtype(dtype)
        data = check_data(x)
        plan = self._plan(data, None, kind, batch_size, gradients=False)
        shape = (len(data), self.widths[-1])
        check_memory(shape[0] * shape[1] * kind.itemsize, f"features of shape {shape}", ADVICE)
        result = np.empty(shape, dtype=kind)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in batches(len(data), plan.batch):
                result[rows] = last_features(self.net, plan, data[rows])
                require_finite(result[rows], "features", kind)
        return result

    def ck(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        dtype: DTypeLike = np.float64,
        batch_size: int | None = None,
    ) -> AnyArray:
        """Return the empirical conjugate kernel f_L(x) f_L(y)ᵀ.

        Parameters
        ----------
        x : array_like, shape (n, p)
            Samples in rows; they set tau0 and so the centring, unless the network has a tau0.
        y : array_like, shape (m, p), optional
            Other samples; `x` if not given.
        dtype : dtype
            float64 or float32, of the arithmetic and the result.
        batch_size : int, optional
            Samples at a time; what fits the workspace if not given (see the class).

        Returns
        -------
        ndarray, shape (n, m)
            Exactly symmetric if `y` is None.

        Raises
        ------
        TypeError, ValueError
            If the data is not a finite matrix with the network's features, or an entry overflows.

        Notes
        -----
        Takes 2 (n + m) Σ d_l d_{l−1} + 2 n m d_L operations.
        """
        kind = check_dtype(dtype)
        x_data, y_data = check_pair(x, y)
        plan = self._plan(x_data, y_data, kind, batch_size, gradients=False)

        def compute(data: FloatArray) -> Layers:
            return Layers([last_features(self.net, plan, data)], [])

        def fill(out: AnyArray, first: Layers, rows: slice, second: Layers, columns: slice) -> None:
            np.matmul(first.features[0][rows], second.features[0][columns].T, out=out)
            require_finite(out, "CK", kind)

        return assemble(x_data, y_data, plan, compute, fill)

    def ntk(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        dtype: DTypeLike = np.float64,
        batch_size: int | None = None,
    ) -> AnyArray:
        r"""Return the empirical NTK, the Gram matrix of the output's gradient in all parameters.

        .. math:: \Theta = \sum_l (w^2 F_{l-1} F_{l-1}^T + b^2) \circ \Delta_l \Delta_l^T + w^2 F_L F_L^T + b^2

        Δ_l is the gradient of the output in u_l. Parameters are the unit-variance weights, biases and readout, and
        a bias of the output.

        Parameters
        ----------
        x : array_like, shape (n, p)
            Samples in rows; they set tau0 and so the centring, unless the network has a tau0.
        y : array_like, shape (m, p), optional
            Other samples; `x` if not given.
        dtype : dtype
            float64 or float32, of the arithmetic and the result.
        batch_size : int, optional
            Samples at a time; what fits the workspace if not given (see the class).

        Returns
        -------
        ndarray, shape (n, m)
            Exactly symmetric if `y` is None.

        Raises
        ------
        ValueError
            If an activation jumps (its gradient is zero almost everywhere and says nothing of the kernel), a
            custom one has no derivative, the network has no readout, or an entry overflows.
        TypeError, ValueError
            If the data is not a finite matrix with the network's features.

        Notes
        -----
        Takes 4 (n + m) Σ d_l d_{l−1} + 2 n m (p + d_L + 2 Σ d_l) operations, about half the latter if `y` is None.
        """
        kind = check_dtype(dtype)
        self._check_differentiable()
        x_data, y_data = check_pair(x, y)
        plan = self._plan(x_data, y_data, kind, batch_size, gradients=True)
        spare = tile_buffers(len(x_data), len(x_data if y_data is None else y_data), kind)
        b2 = self.net.bias_std**2

        def compute(data: FloatArray) -> Layers:
            return layers(self.net, plan, data)

        def fill(out: AnyArray, first: Layers, rows: slice, second: Layers, columns: slice) -> None:
            inner, outer = (buffer[: out.size].reshape(out.shape) for buffer in spare)
            np.matmul(first.features[-1][rows], second.features[-1][columns].T, out=out)
            for k in range(self.net.depth):
                np.matmul(first.features[k][rows], second.features[k][columns].T, out=inner)
                np.matmul(first.gradients[k][rows], second.gradients[k][columns].T, out=outer)
                if b2:
                    inner += b2
                inner *= outer
                out += inner
            if b2:
                out += b2
            require_finite(out, "NTK", kind)

        return assemble(x_data, y_data, plan, compute, fill)

    def _check_differentiable(self) -> None:
        for act in self.net.activations:
            if has_jump(act):
                raise ValueError(f"the empirical NTK needs activations without jumps, got {act}: use rmtntk.ntk")
            if act.derivative_function is None:
                raise ValueError(
                    f"the empirical NTK needs the `derivative` of the activation {act}: "
                    "pass derivative=... to activations.custom"
                )
        if self.readout is None:
            raise ValueError("the empirical NTK is that of one output: pass `readout` to FiniteNetwork.from_arrays")

    def _plan(
        self, x: FloatArray, y: FloatArray | None, kind: np.dtype[Any], batch_size: int | None, *, gradients: bool
    ) -> Plan:
        if x.shape[1] != self.n_features:
            raise ValueError(f"`x` must have the {self.n_features} features of the network's weights, got {x.shape[1]}")
        squared = self.net.input_factor(self.n_features) * squared_norms(x, "x")
        if y is not None:
            squared_norms(y, "y")
        if batch_size is not None:
            batch_size = check_integer(batch_size, "batch_size", low=1)
        scales = layer_scales(self.net, tau0_of(self.net, squared))
        w, b = self.net.weight_std, self.net.bias_std
        return Plan(
            kind,
            w if self.net.input_scaling == "unit" else w / math.sqrt(self.n_features),
            [matrix.astype(kind, copy=False) for matrix in self.weights],
            [(b * vector).astype(kind, copy=False) for vector in self.biases] if b else None,
            None if self.readout is None else self.readout.astype(kind, copy=False),
            scales.centre,
            batch_size or default_batch((self.n_features, *self.widths), kind, gradients=gradients),
        )


def _check_net(net: Any) -> None:
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    check_functions(net, "there is nothing to sample")


def _per_layer(value: Any, name: str, depth: int) -> Sequence[ArrayLike]:
    if isinstance(value, str | np.ndarray) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must be a sequence of {depth} arrays, one a layer, got {type(value).__name__}")
    if len(value) != depth:
        raise ValueError(f"`{name}` must have one array a layer, {depth}, got {len(value)}")
    return value


def _own(value: ArrayLike, name: str, ndim: int) -> AnyArray:
    array = check_array(value, name, ndim)
    single = getattr(value, "dtype", None) == np.float32
    return np.array(array, dtype=np.float32 if single else np.float64, order="C")


def _vector(value: ArrayLike, name: str, size: int, of: str) -> AnyArray:
    vector = _own(value, name, 1)
    if len(vector) != size:
        raise ValueError(f"`{name}` must have {size} entries, one for every row of `{of}`, got {len(vector)}")
    return vector


def _draw(
    shape: tuple[int, ...], law: str, sparsity: float, generator: np.random.Generator, kind: np.dtype[Any]
) -> AnyArray:
    """Draw in float64, rows at a time, so that float32 costs no float64 copy of the whole."""
    values = np.empty(shape, dtype=kind)
    step = max(1, DRAWN_AT_ONCE // math.prod(shape[1:]))
    parts = [values[start : start + step] for start in range(0, shape[0], step)]
    for part in parts:
        if law == "gaussian":
            part[...] = generator.standard_normal(part.shape)
        elif law == "student":
            spread = math.sqrt((STUDENT_FREEDOM - 2.0) / STUDENT_FREEDOM)
            part[...] = generator.standard_t(STUDENT_FREEDOM, part.shape) * spread
        else:
            part[...] = 2.0 * generator.integers(0, 2, part.shape) - 1.0
    if sparsity > 0.0:
        for part in parts:
            part *= (generator.random(part.shape) >= sparsity) / np.sqrt(1.0 - sparsity)
    return values
