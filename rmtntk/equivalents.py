r"""Asymptotic equivalents of CK and NTK as linear operators in O(n p) memory.

.. math:: \tilde K = c_1 X X^T + V A V^T + c I, \qquad V = [J/\sqrt p, \psi] \in R^{n \times (K+1)}

with J the one-hot labels, ψ_i = ‖x_i − μ_a/√p‖² − tr C_a/p, t_a = tr(C_a − C°)/√p, T_ab = tr(C_a C_b)/p and
A = [[c2 t tᵀ + c3 T, c2 t], [c2 tᵀ, c2]].
"""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._memory import check_memory
from rmtntk._typing import FloatArray, IntArray
from rmtntk._validation import check_choice, check_integer, check_labels, check_pair, check_real, squared_norms
from rmtntk.coefficients import Coefficients, coefficients, coefficients_of
from rmtntk.errors import AccuracyError, InfiniteDiagonalError
from rmtntk.kernels import kernel_diagonals
from rmtntk.mixture import GaussianMixture
from rmtntk.moments import has_jump
from rmtntk.network import Network, input_rows, resolve_tau0
from rmtntk.norm_aware import Expansion, Pairs, pairs
from rmtntk.operator import Equivalent, PowerTerm, operator_norm, spectral_error

__all__ = ["Equivalent", "equivalent", "operator_norm", "spectral_error"]

Kind = Literal["ck", "ntk"]
Correction = Literal["none", "diagonal", "second_order"]
Quadratic = Literal["full", "class_means"]

_HIGHEST = 8
_AUTO_DEGREE = 4
_EXTENT = 290.0  # decades


def equivalent(
    net: Network,
    x: ArrayLike,
    labels: Any = None,
    *,
    kind: Kind = "ck",
    mixture: GaussianMixture | None = None,
    correction: Correction = "none",
    degree: int | None = None,
    quadratic: Quadratic = "full",
    y: ArrayLike | None = None,
    y_labels: Any = None,
    weight_kurtosis: float = 0.0,
) -> Equivalent:
    r"""Return the asymptotic equivalent of a kernel on given data.

    Parameters
    ----------
    net : Network
        Any weight and bias scales, centred or not. If its tau0 is None, τ_0 is the mixture's if one is given, else
        sqrt(mean ‖x_i‖²).
    x : array_like, shape (n, p)
        Samples in rows.
    labels : sequence, shape (n,), optional
        Class of each row: one of ``mixture.classes``. Without labels the data is one class.
    kind : {"ck", "ntk"}
        Which kernel.
    mixture : GaussianMixture, optional
        Population of the data, on the scale of `x` under "unit" input scaling; estimated from `x` and
        `labels` if not given.
    correction : {"none", "diagonal", "second_order"}
        "none" is the theorem's form; "diagonal" replaces its diagonal by the exact kernel's, O(n p);
        "second_order" keeps every sample's own norm and the powers of X Xᵀ up to `degree`, fitted to the correlations
        of this data, and uses neither labels nor mixture (but the mixture's τ_0 if one is given).
    degree : int, optional
        Highest power of "second_order", from 1 to 8. The default is 4 while n ≤ 8 p, where products go through
        tiles of X Xᵀ and cost the same for any degree, and 2 beyond, where they go through p × p matrices.
    quadratic : {"full", "class_means"}
        Of "second_order": whether (X Xᵀ)^{∘2} is kept, or replaced by its means over pairs of classes, so that
        products cost O(n p). The latter goes with ``degree=2``.
    y : array_like, shape (m, p), optional
        Second set of samples, for the cross kernel (n, m) as of :func:`rmtntk.ck`. Everything estimated still comes
        from `x`, so that this is the same function as without `y`. It is the one of *different* samples: where a
        row of `y` is also one of `x`, the kernel's own value is the diagonal of the symmetric form, not this one's.
    y_labels : sequence, shape (m,), optional
        Classes of the rows of `y`, which "none" and "diagonal" need where there is more than one; "second_order" only
        checks that there are m.
    weight_kurtosis : float
        Excess kurtosis E[W⁴] − 3 of the weights of the first layer, for the CK and NTK of wide networks with other
        than Gaussian weights: A gains α5 κ S on the labels, S_ab = Σ_k (C_a)_kk (C_b)_kk/p. 1/(1 − ε) − 3 for ternary
        weights with a share ε of zeros. Of "none" and "diagonal"; the diagonal stays that of Gaussian weights, from
        which others differ by O(1/p).

    Returns
    -------
    Equivalent
        A scipy LinearOperator in O(n p) memory. Products cost O(n p), those of "second_order" with the full square
        the less of O(n p²) and O(n² p).

    Raises
    ------
    InfiniteDiagonalError
        If `kind` is "ntk" and an activation jumps.
    ValueError
        If shapes or labels do not fit, or an activation is no function (``exp_normalized``), which "second_order" only
        has an answer for.
    AccuracyError
        If a base correlation is too near 1 ("none", "diagonal"; see :func:`rmtntk.coefficients`), or the norms are
        spread so wide that the kernel cannot be interpolated ("second_order").

    Warns
    -----
    AssumptionWarning
        If a `mixture` given for "none" or "diagonal" is far from the theorem's assumptions
        (:meth:`GaussianMixture.check_assumptions`).

    Notes
    -----
    ‖K − K̃‖ falls like n^{-1/2} when n and p grow in proportion; ``validation/`` measures it. On a mixture at
    n = p = 1000, three ReLU layers, the relative errors of "none" and of "second_order" of degree 2, 3, 4 are about
    8e-2, 2e-4, 1e-5, 1e-6 (docs/accuracy.md).

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), Theorems 1 and 2, corrected (docs/errata.md). Biases and uncentred
    activations, and "second_order": docs/theory.md.
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    check_choice(kind, "kind", ("ck", "ntk"))
    check_choice(correction, "correction", ("none", "diagonal", "second_order"))
    check_choice(quadratic, "quadratic", ("full", "class_means"))
    if mixture is not None and not isinstance(mixture, GaussianMixture):
        raise TypeError(f"`mixture` must be a GaussianMixture, got {mixture!r}")
    data, other = check_pair(x, y)
    if mixture is not None and mixture.n_features != data.shape[1]:
        raise ValueError(f"`mixture` must have the {data.shape[1]} features of `x`, got {mixture.n_features}")
    if y_labels is not None:
        if other is None:
            raise ValueError("`y_labels` must come with `y`, got labels only")
        check_labels(y_labels, len(other), "y_labels")
    kurtosis = check_real(weight_kurtosis, "weight_kurtosis", low=-2.0)
    if kurtosis != 0.0 and correction == "second_order":
        raise ValueError(
            f"`weight_kurtosis` must be 0 for correction='second_order', which is fitted to the kernel of Gaussian "
            f"weights, got {kurtosis:g}"
        )
    wanted = _check_degree(degree, correction, quadratic, data.shape)
    rows = input_rows(net, data)
    columns = None if other is None else input_rows(net, other)
    if columns is rows:  # y=x is a cross kernel all the same
        columns = rows.view()
    # "fan_in" divides the data by √p, hence covariances by p.
    unit = 1.0 if net.input_scaling == "unit" else 1.0 / data.shape[1]
    tau0 = net.tau0
    if tau0 is None:
        tau0 = resolve_tau0(net, rows) if mixture is None else mixture.tau0 * float(np.sqrt(unit))
    if correction != "second_order" and not 1e-70 <= tau0 <= 1e70:
        raise ValueError(
            f"`x` must have norms whose fourth powers fit float64, got tau0 = {tau0:.3g}: rescale the data"
        )
    table = _numbers(net, tau0) if correction == "second_order" else coefficients(net, tau0)
    jumps = any(map(has_jump, net.activations)) if table is None else not np.isfinite(table.kappa_sq[-1])
    if kind == "ntk" and jumps:
        raise InfiniteDiagonalError(
            "the NTK of a network with jumps (steps, sign, heaviside) has an infinite diagonal and no equivalent: "
            "use kind='ck', or compare off-diagonal entries"
        )
    at_scale = net.with_tau0(tau0)
    if correction == "second_order":
        index = None if labels is None else check_labels(labels, len(data))[1]
        return _second_order(at_scale, data, rows, columns, kind, table, wanted, quadratic, index)
    assert table is not None
    fourth = float(table.fourth[-1, 0 if kind == "ck" else 1])
    if kurtosis != 0.0 and not np.isfinite(fourth):
        raise ValueError(
            "`weight_kurtosis` must be 0 for a network with biases or without centring, where its effect is not "
            f"known, got {kurtosis:g}"
        )
    population, index = _population(data, labels, mixture, variances=kurtosis != 0.0)
    c = table.linear(kind)
    left = _factor(rows, index, population, unit, table)
    core = _core(population, unit, c, table.offset(kind), general=table.has_offset)
    if kurtosis != 0.0:
        core[: population.n_classes, : population.n_classes] += (
            kurtosis * fourth * unit**2 * _variance_products(population)
        )
    root = np.full((len(rows), 1), np.sqrt(abs(c[0])))
    if columns is None:
        term = PowerTerm(1, root, np.sign(c[0]) * root)
        result = Equivalent(rows, (term,), left, core, np.full(len(rows), table.shift(kind)), table)
        return result if correction == "none" else _with_exact_diagonal(result, at_scale, data, kind)
    classes = _classes(len(columns), y_labels, population, "y_labels")
    right = _factor(columns, classes, population, unit, table)
    term = PowerTerm(1, root, np.full((len(columns), 1), np.sign(c[0]) * root[0, 0]))
    return Equivalent(rows, (term,), left, core, None, table, columns=columns, factor_right=right)


def _numbers(net: Network, tau0: float) -> Coefficients | None:
    """Return the theorem's numbers, which "second_order" only passes on, or None where they are not known."""
    constant = not net.centered or net.bias_std > 0.0
    if constant and not all(act.is_function for act in net.activations):
        return None
    try:
        return coefficients_of(net, tau0)
    except AccuracyError:  # a base correlation near 1, or moments that overflow: of the latter the kernel will say so
        return None


def _check_degree(degree: Any, correction: str, quadratic: str, shape: tuple[int, ...]) -> int:
    if degree is not None:
        degree = check_integer(degree, "degree", low=1, high=_HIGHEST)
        if correction != "second_order":
            raise ValueError(f"`degree` must be left out for correction={correction!r}, got {degree}")
    if quadratic == "class_means":
        if correction != "second_order" or degree not in (None, 2):
            raise ValueError(
                f"`quadratic` must be 'full' unless correction='second_order' and degree=2, got 'class_means' with "
                f"correction={correction!r}, degree={degree}"
            )
        return 2
    return degree or (_AUTO_DEGREE if shape[0] <= 8 * shape[1] else 2)


def _factor(
    rows: FloatArray, index: IntArray, population: GaussianMixture, unit: float, table: Coefficients
) -> FloatArray:
    """V = [J/√p, ψ]; with a constant part [J/√p, 1, δ, δ²], δ = ‖x‖² − τ0²."""
    n, p = rows.shape
    onehot = np.zeros((n, population.n_classes))
    onehot[np.arange(n), index] = 1.0 / np.sqrt(p)
    if table.has_offset:
        delta = squared_norms(rows, "x") - table.tau[0] ** 2
        return np.column_stack([onehot, np.ones(n), delta, delta**2])
    psi = np.empty(n)
    for start in range(0, n, 4096):
        part = slice(start, start + 4096)
        centred = rows[part] - np.sqrt(unit / p) * population.means[index[part]]
        psi[part] = np.einsum("ij,ij->i", centred, centred)
    return np.column_stack([onehot, psi - unit * population.traces[index]])


def _core(
    population: GaussianMixture,
    unit: float,
    c: tuple[float, float, float],
    offset: tuple[float, float, float],
    *,
    general: bool,
) -> FloatArray:
    """A for the columns of :func:`_factor`."""
    k = population.n_classes
    quadratic = c[2] * unit**2 * population.trace_products
    if general:
        core = np.zeros((k + 3, k + 3))
        core[:k, :k] = quadratic
        core[k, k], core[k + 1, k + 1] = offset[0], c[1]
        core[k, k + 1] = core[k + 1, k] = offset[1]
        core[k, k + 2] = core[k + 2, k] = offset[2]
        return core
    t = unit * population.trace_deviations
    return np.block([[c[1] * np.outer(t, t) + quadratic, c[1] * t[:, None]], [c[1] * t[None, :], np.array([[c[1]]])]])


def _variance_products(population: GaussianMixture) -> FloatArray:
    """S_ab = Σ_k (C_a)_kk (C_b)_kk/p, which unlike tr(C_a C_b)/p depends on the basis."""
    cov = population.covariances
    if cov.ndim == 1:
        return np.outer(cov, cov)
    variances = cov if cov.ndim == 2 else np.diagonal(cov, axis1=1, axis2=2)
    return np.asarray(variances @ variances.T / population.n_features)


def _second_order(
    net: Network,
    data: FloatArray,
    rows: FloatArray,
    columns: FloatArray | None,
    kind: Kind,
    table: Coefficients | None,
    degree: int,
    quadratic: Quadratic,
    index: IntArray | None,
) -> Equivalent:
    norms = np.sqrt(squared_norms(rows, "x"))
    others = norms if columns is None else np.sqrt(squared_norms(columns, "y"))
    for name, size in (("x", norms), ("y", others)):
        extent = 2.0 * degree * np.abs(np.log10(size[size > 0.0])).max(initial=0.0)
        if extent > _EXTENT:
            raise ValueError(
                f"`{name}` must have norms whose {2 * degree}th powers fit float64 for degree={degree}, got norms from "
                f"{size[size > 0.0].min():.3g} to {size.max():.3g}: rescale the data, or leave out the extreme rows"
            )
    sample = pairs(rows, norms)
    expansion = Expansion.fit(replace(net, input_scaling="unit"), kind, sample.rho, degree)
    if quadratic == "class_means" and expansion.degree == 2:
        owner = np.zeros(len(rows), dtype=np.int64) if index is None else index
        own, near, slope = _square_means(rows, columns, norms, others, owner, sample)
        parts = expansion.factors(norms, others, closure=slope)
        first = np.concatenate([parts[0][0], _products(own, parts[2][0])], axis=1)
        second = np.concatenate([parts[0][1], _products(near, parts[2][1])], axis=1)
        parts = parts[:2]
    else:
        parts = expansion.factors(norms, others)
        first, second = parts[0]
    terms = tuple(
        PowerTerm(k, _over(part[0], norms, k), _over(part[1], others, k)) for k, part in enumerate(parts) if k > 0
    )
    core = np.eye(first.shape[1])
    if columns is None:
        result = Equivalent(rows, terms, first, core, np.zeros(len(rows)), table, factor_right=second)
        return _with_exact_diagonal(result, net, data, kind)
    return Equivalent(rows, terms, first, core, None, table, columns=columns, factor_right=second)


def _over(factor: FloatArray, norms: FloatArray, power: int) -> FloatArray:
    """Rows of a factor over ‖x‖^power, 0 for the zero sample: correlations times norms are entries of X Xᵀ."""
    with np.errstate(divide="ignore"):
        inverse = np.where(norms > 0.0, norms, np.inf) ** -float(power)
    return np.ascontiguousarray(factor * inverse[:, None])


def _products(left: FloatArray, right: FloatArray) -> FloatArray:
    """Rowwise Kronecker products."""
    return np.asarray((left[:, :, None] * right[:, None, :]).reshape(len(left), -1))


def _square_means(
    rows: FloatArray,
    columns: FloatArray | None,
    norms: FloatArray,
    others: FloatArray,
    owner: IntArray,
    sample: Pairs,
) -> tuple[FloatArray, FloatArray, float]:
    """What ρ² is replaced by: its regression on ρ and the classes, ρ_ij² ≈ (J N)_ij + s ρ_ij.

    Returns the one-hot J (n, K); N (n or m, K), means of ρ² − s ρ over the pairs of a sample's class (of a column)
    with every class; and s, the slope within pairs of classes, from the sampled pairs.
    """
    p, k = rows.shape[1], int(owner.max()) + 1
    check_memory(8 * (k + 1) * p * p, f"{k} second moments of shape ({p}, {p})")
    moments, totals, counts = np.zeros((k, p, p)), np.zeros((k, p)), np.zeros(k)
    for a in range(k):
        members = np.flatnonzero((owner == a) & (norms > 0.0))
        counts[a] = max(1, len(members))
        for start in range(0, len(members), 4096):
            part = members[start : start + 4096]
            scaled = rows[part] / norms[part, None]
            moments[a] += scaled.T @ scaled
            totals[a] += scaled.sum(axis=0)
    flat = moments.reshape(k, -1)
    number = np.outer(counts, counts)
    number[np.diag_indices(k)] = np.maximum(1.0, counts * (counts - 1.0))
    own = np.diag(counts)  # a sample's correlation with itself is 1
    squares, means = (flat @ flat.T - own) / number, (totals @ totals.T - own) / number
    classes = owner[sample.first], owner[sample.second]
    away = sample.rho - means[classes]
    spread = float(away @ away)
    slope = float(away @ (sample.rho**2 - squares[classes])) / spread if spread > 0.0 else 0.0
    onehot = np.eye(k)[owner]
    if columns is None:
        return onehot, onehot @ (squares - slope * means), slope
    near = np.zeros((len(columns), k))
    for start in range(0, len(columns), 4096):
        size = others[start : start + 4096]
        block = columns[start : start + 4096] / np.where(size > 0.0, size, 1.0)[:, None]
        for a in range(k):
            square = np.einsum("ij,ij->i", block @ moments[a], block)
            near[start : start + 4096, a] = (square - slope * (block @ totals[a])) / counts[a]
    return onehot, near, slope


def _with_exact_diagonal(result: Equivalent, net: Network, data: FloatArray, kind: Kind) -> Equivalent:
    exact = kernel_diagonals(net, data)
    wanted = exact.ck if kind == "ck" else exact.ntk
    shift = np.zeros(len(wanted)) if result.shift is None else result.shift
    result.shift = wanted - (result.diagonal() - shift)
    return result


def _population(
    data: FloatArray, labels: Any, mixture: GaussianMixture | None, *, variances: bool
) -> tuple[GaussianMixture, IntArray]:
    """Mixture and classes; an estimate keeps the variances of all features only if wanted, and no p × p matrix."""
    if mixture is None:
        index = np.zeros(len(data), dtype=np.int64) if labels is None else check_labels(labels, len(data))[1]
        given = index if labels is None else labels
        try:
            population = GaussianMixture.from_data(data, given, covariance="diagonal" if variances else "traces")
        except ValueError as error:
            raise ValueError(
                f"no mixture can be estimated from `x` and `labels` ({error}): pass a `mixture`, such as "
                "GaussianMixture.from_data(x, labels, covariance='scalar') or one with pooled=True, or take "
                "correction='second_order', which needs none"
            ) from None
    else:
        population = mixture
        population.check_assumptions(stacklevel=4)
    index = _classes(len(data), labels, population, "labels")
    return population, index


def _classes(n: int, labels: Any, population: GaussianMixture, name: str) -> IntArray:
    """Index of every row's class in the population."""
    if labels is None:
        if population.n_classes > 1:
            raise ValueError(f"`{name}` must be given for a mixture of {population.n_classes} classes")
        return np.zeros(n, dtype=np.int64)
    names, index = check_labels(labels, n, name)
    return _match_classes(names, population, name)[index]


def _match_classes(names: list[Hashable], population: GaussianMixture, name: str) -> IntArray:
    known = {label: k for k, label in enumerate(population.classes)}
    missing = [label for label in names if label not in known]
    if missing:
        raise ValueError(f"`{name}` must be among the mixture's classes {population.classes}, got {missing[0]!r}")
    return np.array([known[label] for label in names], dtype=np.int64)
