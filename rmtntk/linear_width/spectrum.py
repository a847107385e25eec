r"""Limiting spectra of the empirical CK and NTK of networks as wide as the data is long (linear width).

The equations, how they are solved and why a solution is the solution: ``equations.py``. Here a network, its widths
and the law of its input are turned into them.

Source: Fan and Wang, "Spectra of the conjugate kernel and neural tangent kernel for linear-width neural networks",
NeurIPS 2020, Theorems 3.4 (CK) and 3.7 (NTK).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_choice, check_integer, check_real, check_widths
from rmtntk.errors import ConvergenceError, InfiniteDiagonalError
from rmtntk.finite import FiniteNetwork
from rmtntk.linear_width.equations import ComplexArray, System, above_rounding, distribution, off_holes, solve, support
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network, check_functions, layer_scales
from rmtntk.stieltjes import Bulk

__all__ = ["LinearWidthSpectrum", "linear_width_spectrum"]

_SAME = 1e-9  # eigenvalues of the input closer than this, relative to the largest, are one atom


@dataclass(frozen=True, eq=False)
class LinearWidthSpectrum:
    r"""Limiting spectrum of an empirical kernel; made by :func:`linear_width_spectrum`.

    Attributes
    ----------
    kind : {"ck", "ntk"}
        Which kernel.
    ratios : ndarray, shape (L,)
        n/d_l.
    linear : ndarray, shape (L,)
        a_l = (w h1 τ_{l−1}/τ_l)², the linear share of layer l: 1 for the identity, 0 for an even function, below which
        nothing of the lower layers is left in the spectrum.
    weights : ndarray, shape (L + 1,)
        q_l of G_l; (0, …, 0, 1) for the CK.
    shift : float
        r, of the identity; 0 for the CK.
    mean, variance : float
        Of the law.

    Notes
    -----
    *Accuracy.* Equations are solved to rounding (residuals about 1e-15), on the real axis itself. Density against
    Marchenko–Pastur 1e-14, edges 1e-12 of the span; next to an edge m, which has a square root there, is good to 1e-8.
    *Speed.* A few milliseconds for a hundred points and an input law of one atom, in proportion to points times
    distinct input eigenvalues.
    """

    kind: str
    ratios: FloatArray
    linear: FloatArray
    weights: FloatArray
    shift: float
    mean: float
    variance: float
    _system: System
    _unit: float
    _atoms: tuple[tuple[float, float], ...]  # scaled

    def stieltjes(self, z: ArrayLike) -> ComplexArray:
        """Return m(z) = ∫ dF(x)/(x − z).

        Parameters
        ----------
        z : array_like of complex
            Points; on the real axis the limit from above is returned.

        Returns
        -------
        ndarray of complex, shape of z

        Raises
        ------
        ValueError
            If a point is not finite, or is an atom or the point `shift`, where m may be infinite.
        ConvergenceError
            If a solution is not found or is not the one.
        """
        points = np.asarray(z)
        if points.dtype.kind not in "fciu" or not np.isfinite(points).all():
            raise ValueError(f"`z` must hold finite complex numbers, got {z!r}")
        flat = points.astype(complex).ravel() / self._unit
        bad = (np.abs(flat[:, None] - self._holes) <= 1e-13 * self._span).any(axis=1)
        if bad.any():
            where = flat[bad][0] * self._unit
            raise ValueError(f"`z` must keep off the atoms and the smallest possible eigenvalue, got {where:.6g}")
        upper = np.where(flat.imag < 0.0, flat.conj(), flat)
        m = solve(self._system, upper).m / self._unit
        return np.where(flat.imag < 0.0, m.conj(), m).reshape(points.shape)

    def density(self, grid: ArrayLike) -> FloatArray:
        """Return the density of the continuous part; it integrates to 1 minus the masses of the atoms.

        Parameters
        ----------
        grid : array_like
            Eigenvalues.

        Returns
        -------
        ndarray, shape of grid
            Exactly 0 outside the support, inf at a hard edge (`shift`, if the support reaches it).

        Raises
        ------
        ConvergenceError
            If a solution is not found or is not the one.
        """
        x, shape = self._grid(grid)
        result = np.zeros(len(x))
        above = x > self._system.shift + 1e-13 * self._span
        state = solve(self._system, off_holes(x[above], self._holes, self._span).astype(complex))
        result[above] = above_rounding(state.m) / (np.pi * self._unit)
        lowest = np.abs(x - self._system.shift) <= 1e-13 * self._span
        if lowest.any() and (self._scaled_edges[:1, 0] <= self._system.shift + 1e-12 * self._span).any():
            result[lowest] = np.inf
        return result.reshape(shape)

    def cdf(self, grid: ArrayLike) -> FloatArray:
        """Return the distribution function, atoms included, continuous from the right.

        Parameters
        ----------
        grid : array_like
            Eigenvalues.

        Returns
        -------
        ndarray, shape of grid
            Each value from its own point: no density is integrated.

        Raises
        ------
        ConvergenceError
            If a solution is not found or is not the one.
        """
        x, shape = self._grid(grid)
        result = np.zeros(len(x))
        above = x > self._system.shift + 1e-13 * self._span
        points = off_holes(x[above], self._holes, self._span)
        result[above] = distribution(self._system, solve(self._system, points.astype(complex)))
        lowest = [mass for where, mass in self._atoms if where <= self._system.shift]
        if lowest:
            result[np.abs(x - self._system.shift) <= 1e-13 * self._span] = lowest[0]
        return result.reshape(shape)

    @cached_property
    def edges(self) -> FloatArray:
        """Intervals that carry the continuous part, shape (m, 2), ascending.

        Edges are bisected, to about 1e-12 of the span. Gaps are found where the density dips at a resolution of 1/250
        of the mass; intervals with narrower gaps may be joined, and lighter ones missed.
        """
        return self._scaled_edges * self._unit

    @property
    def atoms(self) -> list[tuple[float, float]]:
        """Locations and masses of the atoms, [] if there are none."""
        return [(where * self._unit, mass) for where, mass in self._atoms]

    @cached_property
    def _scaled_edges(self) -> FloatArray:
        return support(self._system, self._holes)

    @property
    def _holes(self) -> FloatArray:
        return np.array([self._system.shift] + [where for where, _ in self._atoms])

    @property
    def _span(self) -> float:
        return 1.0 + float(self._system.nodes.max())

    def _grid(self, grid: ArrayLike) -> tuple[FloatArray, tuple[int, ...]]:
        values = np.asarray(grid, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("`grid` must be finite, got NaN or infinity")
        return values.ravel() / self._unit, values.shape


def linear_width_spectrum(
    net: Network,
    widths: Sequence[int],
    n: int,
    input_spectrum: ArrayLike | GaussianMixture,
    *,
    kind: Literal["ck", "ntk"] = "ck",
    tau0: float | None = None,
    network: FiniteNetwork | None = None,
) -> LinearWidthSpectrum:
    r"""Return the limiting spectrum of the kernels of :class:`rmtntk.FiniteNetwork` at these widths.

    .. math::
                ext{CK} \to G_L, \qquad
                ext{NTK} \to r I + \sum_{l=0}^L q_l G_l, \quad q_l = w^2 \prod_{k>l} w^2 h_{1,k}^2, \quad
        r = w^2 \sum_{l<L} \tau_l^2 \Big(\prod_{k>l} w^2 s_k - \prod_{k>l} w^2 h_{1,k}^2\Big)

    with s = E[σ'²], and G_l a sample covariance matrix of d_l samples with population
    w² h1² G_{l−1} + (τ_l² − w² h1² τ_{l−1}²) I.

    Parameters
    ----------
    net : Network
        Centred, without biases: else features have a common mean, rows are not nearly orthogonal, and the theorem
        does not hold.
    widths : sequence of int
        d_1 … d_L.
    n : int
        Number of samples.
    input_spectrum : array_like, shape (n,), or GaussianMixture
        Eigenvalues of K_0 (X Xᵀ, or X Xᵀ/p under "fan_in"); or the data's model, whose means do not matter here. A
        mixture with one multiple of the identity as the covariance of all classes is an exact layer of the equations,
        any other is a quadrature rule for its density (mass right to 1e-10 unless a gap is nearly closed).
    kind : {"ck", "ntk"}
        Which kernel.
    tau0 : float, optional
        Scale of the rows in units of K_0; the network's, or sqrt(mean eigenvalue) if not given.
    network : FiniteNetwork, optional
        Take q_l and r of these very weights instead of their means over all draws: the law given the network. It
        matters for the NTK only, whose q_l differ between draws by about sqrt(2/d) relatively.

    Returns
    -------
    LinearWidthSpectrum

    Raises
    ------
    ValueError
        If the network is not centred or has biases, the spectrum is not one of a Gram matrix of n rows, or its mean
        is more than 10 % off the square of `tau0`.
    InfiniteDiagonalError
        If the NTK of an activation with jumps is asked for.

    Notes
    -----
    Convergence, measured (``validation/linear_width.py``): the Kolmogorov distance to sampled CKs is .003 to .005 at
    n = 1000 and falls with slopes of −.7 to −.9 over n = 250 … 1000; so does that of the NTK's limiting form,
    r I + Σ q_l G_l with sampled G_l. The sampled NTK itself is only within .02 to .1 there, with slopes about −½ (given
    the weights −.5 to −.7), for two reasons: its q_l differ from draw to draw (see `network`), and what is dropped, the
    fluctuations of the entrywise products, has norm O(n^-1/2). It blurs the eigenvalues crowded at the lower edge, so
    that the distance is largest where the sum of p and the widths is near n and for deep ReLU networks.
    Eigenvalues outside the bulk (means, norm fluctuations of ReLU features) are O(1) in number and not in the limit.

    References
    ----------
    Fan and Wang (NeurIPS 2020), Theorems 3.4 and 3.7.

    Examples
    --------
    >>> import numpy as np, rmtntk as rn
    >>> from rmtntk.linear_width import linear_width_spectrum
    >>> law = linear_width_spectrum(rn.Network("tanh"), (250,), 1000, np.ones(1000))
    >>> law.atoms
    [(0.0, 0.75)]
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    check_functions(net, "the theorem's numbers do not follow from it")
    sizes = check_widths(widths, net.depth)
    n = check_integer(n, "n", low=1)
    check_choice(kind, "kind", ("ck", "ntk"))
    if not net.centered or net.bias_std != 0.0:
        raise ValueError(
            f"`net` must have centered=True and bias_std=0 for the linear-width limit, got centered={net.centered}, "
            f"bias_std={net.bias_std:g}"
        )
    if tau0 is not None:
        tau0 = check_real(tau0, "tau0", low=0.0, open_low=True)
    law = _input_law(net, n, input_spectrum)
    tau0 = tau0 or net.tau0 or float(np.sqrt(law.mean))
    if abs(law.mean / tau0**2 - 1.0) > 0.1:
        raise ValueError(
            f"`tau0` must be the scale of the rows, sqrt(mean eigenvalue) = {np.sqrt(law.mean):.4g}, got {tau0:.4g}: "
            "leave it out, or check the units of `input_spectrum` (those of K_0)"
        )
    if network is not None:
        if not isinstance(network, FiniteNetwork):
            raise TypeError(f"`network` must be an rmtntk.FiniteNetwork, got {network!r}")
        if network.widths != sizes or network.net.activations != net.activations:
            raise ValueError(
                f"`network` must be one of `net` with `widths` {sizes}, got {network.net} with {network.widths}"
            )
        if kind == "ntk" and network.readout is None:
            raise ValueError("`network` must have a readout for the NTK: pass `readout` to FiniteNetwork.from_arrays")
    return _assemble(net, np.array(sizes) / n, law, kind, tau0, network)


class _Law(NamedTuple):
    """μ_0: either nodes and masses or, with `ratio` > 0, Marchenko–Pastur of that ratio n/p and this mean."""

    nodes: FloatArray
    masses: FloatArray
    ratio: float
    mean: float
    variance: float


def _input_law(net: Network, n: int, given: Any) -> _Law:
    if isinstance(given, GaussianMixture):
        return _mixture_law(given, n, net.input_factor(given.n_features))
    values = check_array(given, "input_spectrum", 1)
    if len(values) != n:
        raise ValueError(
            f"`input_spectrum` must hold the n = {n} eigenvalues of K_0, zeros included, got {len(values)}"
        )
    rounding = 16.0 * n * np.finfo(float).eps * float(np.abs(values).max())
    if values.min() < -rounding or values.max() <= 0.0:
        raise ValueError(
            f"`input_spectrum` must be eigenvalues of a Gram matrix, non-negative and not all 0, got a smallest of "
            f"{values.min():.4g} and a largest of {values.max():.4g}"
        )
    values = np.where(values <= rounding, 0.0, values)  # what eigvalsh gives for an exact zero
    nodes, counts = np.unique(values, return_counts=True)
    return _Law(nodes, counts / n, 0.0, float(values.mean()), float(values.var()))


def _mixture_law(mixture: GaussianMixture, n: int, factor: float) -> _Law:
    cov, p = mixture.covariances, mixture.n_features
    scales = mixture.traces
    if (cov.ndim == 1 or (cov.ndim == 2 and not np.ptp(cov, axis=1).any())) and not np.ptp(scales):
        mean = factor * float(scales[0])
        return _Law(np.ones(1), np.ones(1), n / p, mean, n / p * mean**2)
    bulk = Bulk.from_mixture(mixture, n)
    atom, size, error = bulk.atom, 100, np.inf
    while error > 1e-10 and size < 3200:  # midpoint rule in the angle, exponentially accurate between square-root edges
        size *= 2
        angle = (np.arange(size) + 0.5) * np.pi / size
        low, high = bulk.edges[:, :1], bulk.edges[:, 1:]
        x = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)
        masses = 0.5 * (high - low) * np.sin(angle) * np.pi / size * bulk.density(x)
        error = abs(float(masses.sum()) + atom - 1.0)
    if error > 1e-6:
        raise ConvergenceError(
            f"the law of `input_spectrum`, a mixture, was found to {error:.2g} of its mass only: "
            "pass the eigenvalues of a sample instead",
            error,
        )
    nodes, masses = factor * x.ravel(), masses.ravel()
    if atom > 0.0:
        nodes, masses = np.append(0.0, nodes), np.append(atom, masses)
    mean = float(nodes @ masses)
    return _Law(nodes, masses, 0.0, mean, float((nodes - mean) ** 2 @ masses))


def _assemble(
    net: Network, relative: FloatArray, law: _Law, kind: str, tau0: float, network: FiniteNetwork | None
) -> LinearWidthSpectrum:
    """Scale the equations; `relative` is d_l/n."""
    scales, depth, w2 = layer_scales(net, tau0), net.depth, net.weight_std**2
    tau_sq = scales.tau**2
    h1_sq = np.array([float(m.d1[0]) ** 2 for m in scales.moments])
    linear = w2 * h1_sq * tau_sq[:-1] / tau_sq[1:]
    for k, m in enumerate(scales.moments):  # 0 and 1 are exact statements that rounding must not blur
        if linear[k] > 1.0 - 16.0 * max(float(m.error[0]), np.finfo(float).eps):
            linear[k] = 1.0
        elif linear[k] < 1e-24:
            linear[k] = 0.0
    weights, shift = np.zeros(depth + 1), 0.0
    weights[-1] = 1.0
    if kind == "ntk":
        slopes = np.array([float(m.d1_squared[0]) for m in scales.moments])
        if not np.isfinite(slopes).all():
            k = int(np.argmin(np.isfinite(slopes)))
            raise InfiniteDiagonalError(f"the NTK of {net.activations[k]} (layer {k + 1}) is infinite on the diagonal")
        if network is None:
            plain = w2 * np.append(np.cumprod((w2 * h1_sq)[::-1])[::-1], 1.0)
            full = w2 * np.append(np.cumprod((w2 * slopes)[::-1])[::-1], 1.0)
        else:
            plain, full = _gradient_norms(network, np.sqrt(h1_sq), slopes, w2)
        weights = plain
        excess = full - plain
        excess[excess <= 1e-14 * full] = 0.0  # E[σ'²] = E[σ']² for a linear function only
        shift = float(tau_sq @ excess)
    base = law.mean / tau_sq[0]  # of G_0 in units of τ_0²; 1 unless tau0 was given
    means, spreads = np.empty(depth + 1), np.empty(depth + 1)
    means[0], spreads[0] = base, law.variance / tau_sq[0] ** 2
    for k in range(depth):
        means[k + 1] = linear[k] * means[k] + 1.0 - linear[k]
        spreads[k + 1] = linear[k] ** 2 * spreads[k] + means[k + 1] ** 2 / relative[k]
    amounts = weights * tau_sq
    unit = float(amounts.sum() + shift)
    cross = [
        amounts[j] * amounts[k] * spreads[min(j, k)] * np.prod(linear[min(j, k) : max(j, k)])
        for j in range(depth + 1)
        for k in range(depth + 1)
    ]
    first = int(np.max(np.flatnonzero(linear == 0.0), initial=-1))  # layers below an even function drop out
    nodes, masses = law.nodes / tau_sq[0], law.masses
    a, ratio, q = linear, 1.0 / relative, amounts / unit
    if first >= 0:
        nodes = masses = np.ones(1)
        a, ratio, q = a[first:], ratio[first:], np.append(0.0, q[first + 1 :])
    elif law.ratio > 0.0:  # Gaussian data is a layer on top of the identity
        nodes = np.array([base])
        a, ratio, q = np.append(1.0, a), np.append(law.ratio, ratio), np.append(0.0, q)
    system = System(a, ratio, q, shift / unit, nodes, masses)
    return LinearWidthSpectrum(
        kind,
        1.0 / relative,
        linear,
        weights,
        shift,
        float(amounts @ means + shift),
        float(np.sum(cross)),
        system,
        unit,
        tuple(_atoms(system)),
    )


def _gradient_norms(
    network: FiniteNetwork, h1: FloatArray, slopes: FloatArray, w2: float
) -> tuple[FloatArray, FloatArray]:
    """w² δ_i·δ_j off and on the diagonal, for the gradients δ_l of the output in u_l of given weights, and w² itself.

    Means over samples: given the weights, σ_l' has mean h1 and mean square s, independently over neurons and layers to
    leading order. Below, `mean` and `variance` are those of what reaches a neuron from above.
    """
    assert network.readout is not None
    mean = network.readout.astype(np.float64)
    variance = np.zeros_like(mean)
    off, on = [w2], [w2]
    for k in range(len(h1) - 1, -1, -1):
        factor = w2 / len(mean)
        squares = mean**2
        off.append(w2 * factor * h1[k] ** 2 * float(squares.sum()))
        on.append(w2 * factor * slopes[k] * float((squares + variance).sum()))
        if k:
            weights = network.weights[k].astype(np.float64, copy=False)
            variance = (factor * (slopes[k] * (squares + variance) - h1[k] ** 2 * squares)) @ weights**2
            mean = (np.sqrt(factor) * h1[k] * mean) @ weights
    return np.array(off[::-1]), np.array(on[::-1])


def _atoms(system: System) -> list[tuple[float, float]]:
    """Eigenspaces of G_0 that meet the kernels of all G_l in the sum, by counting dimensions."""
    found = []
    depth = len(system.linear)
    if system.weight[:-1].any():
        spaces = [(system.shift + float(system.weight[0] * x), float(x), float(w)) for x, w in _clusters(system)]
        for where, x, mass in spaces:
            for k in range(depth):
                vanishes = system.linear[k] == 1.0 and (k > 0 or x == 0.0)  # the population is 0 there already
                if not vanishes:
                    mass -= 1.0 / system.ratio[k]
            found.append((where, mass))
    else:
        kernel = float(system.masses[system.nodes == 0.0].sum())
        for k in range(depth):
            kernel = max(1.0 - 1.0 / system.ratio[k], kernel if system.linear[k] == 1.0 else 0.0)
        found.append((system.shift, kernel))
    return [(float(where), float(mass)) for where, mass in found if mass > 1e-12]


def _clusters(system: System) -> list[tuple[float, float]]:
    """Distinct input eigenvalues with their masses; one point if G_0 is not in the sum."""
    if system.weight[0] == 0.0:
        return [(1.0, 1.0)]
    splits = np.flatnonzero(np.diff(system.nodes) > _SAME * system.nodes[-1]) + 1
    return [
        (float(x @ w / w.sum()), float(w.sum()))
        for x, w in zip(np.split(system.nodes, splits), np.split(system.masses, splits), strict=True)
    ]
