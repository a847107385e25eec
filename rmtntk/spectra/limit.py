r"""Limiting spectra of CK and NTK on a Gaussian mixture, without any n×n matrix.

.. math:: \tilde K = c_1 X X^T + V A V^T + c I

has the bulk c + c1·spec(Z Zᵀ), Z the noise of the data, an atom at c where p < n, and outliers from the class means,
the covariances and the norms of the samples.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray, IntArray
from rmtntk._validation import check_array, check_choice, check_integer
from rmtntk.coefficients import Coefficients, coefficients
from rmtntk.errors import InfiniteDiagonalError
from rmtntk.mixture import GaussianMixture
from rmtntk.moments import has_jump
from rmtntk.network import Network
from rmtntk.spectra.figure import draw_spectrum
from rmtntk.spectra.norm_law import NormLaw
from rmtntk.spectra.spikes import Spiked, find_outliers
from rmtntk.stieltjes import Bulk

__all__ = ["Kind", "LimitingSpectrum", "check_arguments", "kernel_numbers", "limiting_spectrum", "over", "size_of"]

Kind = Literal["ck", "ntk"]

_LOW, _HIGH = 1e-70, 1e70  # of τ_l and weight_std: coefficients are made of their fourth powers
_ZERO = 1e-14  # c1 τ_0² below this share of the diagonal is the rounding of an even activation's E[σ'] = 0


@dataclass(frozen=True, eq=False)
class LimitingSpectrum:
    r"""Spectrum of a kernel's equivalent K̃ as n, p → ∞ with p/n fixed; made by :func:`limiting_spectrum`.

    Attributes
    ----------
    edges : ndarray, shape (m, 2)
        Intervals of the continuous part, ascending; none where c1 = 0.
    atoms : list of (float, float)
        Locations and masses of multiple eigenvalues: c, with mass 1 − p/n where p < n, or 1 where c1 = 0.
    outliers : ndarray, shape (k,)
        Eigenvalues outside every interval and distinct from the atoms, descending, repeated by multiplicity. They may
        also lie between intervals, or between the atom and the bulk.
    alignments : ndarray, shape (k, K + 1)
        Squared cosines of each outlier's eigenvector (of a multiple one, the projection on its eigenspace) with the
        class indicators j_a/√n_a and, last, with ψ/‖ψ‖.
    spread : ndarray, shape (k,)
        Standard deviation of each outlier over draws of n samples, to leading order in n^{-1/2}; of a multiple one the
        root mean square deviation of its eigenvalues from the limit.
    multiplicity : ndarray of int, shape (k,)
        Of each outlier.
    coefficients : Coefficients
        Of the network, layer by layer.
    kind : {"ck", "ntk"}
        Which kernel.
    n : int
        Number of samples.
    shift, slope : float
        c and c1.
    bulk : Bulk or None
        Of the noise, in units of ζ = (z − c)/c1; None where c1 = 0.
    net, mixture
        As given.
    """

    edges: FloatArray
    atoms: list[tuple[float, float]]
    outliers: FloatArray
    alignments: FloatArray
    spread: FloatArray
    multiplicity: IntArray
    coefficients: Coefficients
    kind: Kind
    n: int
    shift: float
    slope: float
    bulk: Bulk | None
    net: Network
    mixture: GaussianMixture

    def density(self, grid: ArrayLike, *, finite_size: bool = False) -> FloatArray:
        r"""Density of the continuous part, which with the atoms' masses integrates to 1.

        Parameters
        ----------
        grid : array_like
            Points.
        finite_size : bool
            Of the exact kernel at this n instead: the limit with the samples' own norms and the quadratic Hermite part
            of the kernel put back, both of which are O(n^{-1/2}) (``spectra/norm_law.py``). Atoms become bumps, so it
            integrates to 1 by itself; it is smoothed over a fiftieth of their width.

        Returns
        -------
        ndarray
            Of the shape of `grid`.

        Raises
        ------
        ValueError
            If `finite_size` and the covariances do not commute.
        ConvergenceError
            If the equations do not settle.
        """
        x = check_array(grid, "grid", np.ndim(grid))
        if finite_size:
            return np.reshape(self._law.density(np.ravel(x)), x.shape)
        if self.bulk is None:
            return np.zeros(x.shape)
        zeta = np.ravel((x - self.shift) / self.slope)
        return np.reshape(np.asarray(self.bulk.density(zeta)) / self.slope, x.shape)

    def cdf(self, grid: ArrayLike, *, finite_size: bool = False) -> FloatArray:
        """Share of eigenvalues not above the points of `grid`, atoms included; arguments as of :meth:`density`.

        Where there is an atom, the Kolmogorov–Smirnov distance between the limit and an exact kernel's spectrum does
        not go to 0, although one converges to the other weakly; that to ``finite_size=True`` does.
        """
        x = check_array(grid, "grid", np.ndim(grid))
        if finite_size:
            return np.reshape(self._law.cdf(np.ravel(x)), x.shape)
        if self.bulk is None:
            return np.where(x >= self.shift, 1.0, 0.0)
        zeta = np.ravel((x - self.shift) / self.slope)
        return np.reshape(np.asarray(self.bulk.cdf(zeta)), x.shape)

    @cached_property
    def _law(self) -> NormLaw:
        seen, table, constants, shift = kernel_numbers(self.net, self.mixture, self.kind)
        ends = [shift, *self.edges.ravel()]
        support = (float(min(ends)), float(max(ends)))
        counts = seen.weights * self.n
        return NormLaw.of(self.net, float(table.tau[0]), seen, counts, self.kind, constants[2], support, shift)

    def plot(
        self, ax: Any = None, *, eigenvalues: ArrayLike | None = None, bins: int = 80, finite_size: bool = False
    ) -> Any:
        """Draw density, atoms and outliers, over a histogram of eigenvalues if given.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where; a new figure's if not given.
        eigenvalues : array_like, shape (n,), optional
            Of a sampled kernel.
        bins : int
            Of the histogram.
        finite_size : bool
            Draw the density of :meth:`density` with this option, too.

        Returns
        -------
        Axes

        Raises
        ------
        MissingExtraError
            Without matplotlib.
        """
        values = None if eigenvalues is None else check_array(eigenvalues, "eigenvalues", 1)
        bins = check_integer(bins, "bins", low=1)
        return draw_spectrum(self, ax, values, bins, finite_size=finite_size)


def limiting_spectrum(
    net: Network, mixture: GaussianMixture, n: int, *, kind: Kind = "ck", stratified: bool = False
) -> LimitingSpectrum:
    r"""Return the limiting spectrum of a kernel on n samples of a mixture.

    Outliers z of K̃ = c1 Z Zᵀ + c I + U Ω Uᵀ, U = [J/√p, Z M, ψ], solve det(I + Ω B(ζ)/c1) = 0 with ζ = (z − c)/c1 and
    B = lim Uᵀ(Z Zᵀ − ζ)⁻¹U block diagonal:

    .. math:: \frac{n_a}{p} q_a \ (J), \qquad M^T(I + \zeta \tilde Q) M \ (ZM), \qquad
              \sum_a n_a \frac{2\, \mathrm{tr} C_a^2}{p^2} q_a \ (\psi)

    Parameters
    ----------
    net : Network
        Without a constant part: no biases, and centred or odd. If its tau0 is None it is the mixture's.
    mixture : GaussianMixture
        Population, on the scale the network sees.
    n : int
        Number of samples; class a has weights_a n of them.
    kind : {"ck", "ntk"}
        Which kernel.
    stratified : bool
        Whether the draws that `spread` is about have fixed class counts.

    Returns
    -------
    LimitingSpectrum

    Raises
    ------
    InfiniteDiagonalError
        If `kind` is "ntk" and an activation jumps.
    ValueError
        If the kernel has a constant part or a size beyond float64, or an argument is outside its domain.
    ConvergenceError
        If the bulk equation or the search for an outlier does not settle.

    Warns
    -----
    AssumptionWarning
        If the mixture is far from the theorem's assumptions (:meth:`GaussianMixture.check_assumptions`).

    Notes
    -----
    The number of outliers is exact (inertia of a symmetric matrix increasing with ζ at both ends of each gap), except
    that those within 1e-9 of the support's size from an edge are not told from the bulk, nor those within 1e-13 from an
    atom (1e-7 where full covariances do not commute).

    `spread` is that of K̃ and K alike; where it is far smaller than the distances to other outliers over √n, the
    fluctuations of order 1/n matter more. K and K̃ differ by O(n^{-1/2}), which moves the exact kernel's outliers and
    turns their eigenvectors: for tr(C_a − C°) = ±8√p and one ReLU layer at n = 2000 by 1.6 % and .07 in the squared
    cosines, both falling with n.

    Cost: that of :class:`Bulk` at some tens of points; no n×n matrix.

    References
    ----------
    Benaych-Georges and Couillet (2016), Spectral analysis of the Gram matrix of mixture models, for the bulk.
    NTK-LC (Gu et al., NeurIPS 2022), Theorems 1 and 2, corrected (docs/errata.md), for K̃.
    """
    n = check_arguments(net, mixture, n, kind)
    if not isinstance(stratified, bool):
        raise TypeError(f"`stratified` must be True or False, got {stratified!r}")
    mixture.check_assumptions(n, stacklevel=3)
    seen, table, constants, shift = kernel_numbers(net, mixture, kind)
    counts = mixture.weights * n
    bulk = None if constants[0] == 0.0 else Bulk(seen.covariances, counts, seen.n_features)
    unit = size_of(table, constants, shift)
    spiked = Spiked.of(seen, counts, bulk, over(constants, unit))
    found = find_outliers(spiked, stratified=stratified)
    if bulk is None:
        edges, atoms = np.zeros((0, 2)), [(shift, 1.0)]
    else:
        edges = shift + constants[0] * np.asarray(bulk.edges)
        atoms = [(shift, float(bulk.atom))] if bulk.atom > 0.0 else []
    return LimitingSpectrum(
        edges=edges,
        atoms=atoms,
        outliers=shift + unit * spiked.slope * found.zeta,
        alignments=found.alignments,
        spread=unit * np.sqrt(found.variance),
        multiplicity=found.multiplicity,
        coefficients=table,
        kind=kind,
        n=n,
        shift=shift,
        slope=constants[0],
        bulk=bulk,
        net=net,
        mixture=mixture,
    )


def check_arguments(net: Any, mixture: Any, n: Any, kind: Any) -> int:
    """Check what every function of the spectrum takes; return n."""
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    if not isinstance(mixture, GaussianMixture):
        raise TypeError(f"`mixture` must be a GaussianMixture, got {mixture!r}")
    check_choice(kind, "kind", ("ck", "ntk"))
    return check_integer(n, "n", low=1)


def kernel_numbers(
    net: Network, mixture: GaussianMixture, kind: Kind
) -> tuple[GaussianMixture, Coefficients, tuple[float, float, float], float]:
    """Mixture on the scale of K_0, coefficients, (c1, c2, c3) and c."""
    p = mixture.n_features
    seen = mixture
    if net.input_scaling == "fan_in":
        seen = GaussianMixture(
            mixture.means / np.sqrt(p),
            mixture.covariances / p,
            mixture.weights,
            classes=mixture.classes,
            trace_products=mixture.trace_products / p**2,
        )
    tau0 = seen.tau0 if net.tau0 is None else net.tau0
    if not _LOW <= tau0 <= _HIGH:
        raise ValueError(f"`mixture` must have norms whose fourth powers fit float64, got {tau0:.3g}: rescale it")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            table = coefficients(net, tau0)
    except OverflowError:
        table = None
    if table is None or not _usable(net, table, kind):
        sizes = "overflow" if table is None else f"tau_l = {', '.join(f'{tau:.3g}' for tau in table.tau)}"
        raise ValueError(
            f"`net` must have layers whose scales' fourth powers fit float64, got {sizes} with weight_std = "
            f"{net.weight_std:.3g}: rescale weights, activations or data"
        )
    jumps = kind == "ntk" and any(map(has_jump, net.activations))
    if table.has_offset:
        raise ValueError(
            "`net` must be centred and without biases (or odd): otherwise its kernel has a constant part, an "
            "eigenvalue of order n that the limit does not describe; "
            f"got centered={net.centered}, bias_std={net.bias_std:g}"
        )
    c1, c2, c3 = table.linear(kind)
    shift = table.shift(kind)
    if jumps:
        raise InfiniteDiagonalError(
            "the NTK of a network with jumps (steps, sign, heaviside) has an infinite diagonal and no limiting "
            "spectrum: use kind='ck'"
        )
    total = shift + c1 * table.tau[0] ** 2
    return seen, table, (0.0 if c1 * table.tau[0] ** 2 <= _ZERO * total else c1, c2, c3), shift


def _usable(net: Network, table: Coefficients, kind: Kind) -> bool:
    """Whether nothing the coefficients are made of has left float64's range, silently if it was downwards."""
    scales = np.array([*table.tau, net.weight_std])
    finite = np.isfinite([*table.linear(kind), *table.offset(kind)]).all()
    return bool(finite and (scales >= _LOW).all() and (scales <= _HIGH).all())


def size_of(table: Coefficients, constants: tuple[float, float, float], shift: float) -> float:
    """Power of 2 next to the diagonal: dividing by it loses no digits, and squares then fit float64."""
    return float(2.0 ** np.frexp(shift + constants[0] * float(table.tau[0]) ** 2)[1])


def over(constants: tuple[float, float, float], unit: float) -> tuple[float, float, float]:
    """(c1, c2, c3)/unit."""
    return constants[0] / unit, constants[1] / unit, constants[2] / unit
