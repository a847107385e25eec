r"""Asymptotic equivalents of CK and NTK as linear operators in O(n p) memory.

.. math:: \tilde K = c_1 X X^T + V A V^T + c I, \qquad V = [J/\sqrt p, \psi] \in R^{n \times (K+1)}

with J the one-hot labels, ψ_i = ‖x_i − μ_a/√p‖² − tr C_a/p, t_a = tr(C_a − C°)/√p, T_ab = tr(C_a C_b)/p and
A = [[c2 t tᵀ + c3 T, c2 t], [c2 tᵀ, c2]].
"""

from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigsh

from rmtntk._typing import FloatArray, IntArray
from rmtntk._validation import check_choice, check_data, check_labels, check_square, squared_norms
from rmtntk.coefficients import Coefficients, coefficients, coefficients_of
from rmtntk.errors import InfiniteDiagonalError
from rmtntk.kernels import kernel_diagonals
from rmtntk.mixture import GaussianMixture
from rmtntk.network import Network, input_rows, layer_scales, resolve_tau0
from rmtntk.norm_aware import expand

__all__ = ["Equivalent", "equivalent", "operator_norm", "spectral_error"]

Kind = Literal["ck", "ntk"]
Correction = Literal["none", "diagonal", "second_order"]


class Equivalent(LinearOperator):  # type: ignore[misc]  # SciPy has no types: its class counts as Any
    """Symmetric operator Σ_r d_r G d_r + Σ_r e_r (G∘G) e_r + V A Vᵀ + diag(s); made by :func:`equivalent`.

    Attributes
    ----------
    rows : ndarray, shape (n, p)
        X, scaled so that G = X Xᵀ is K_0.
    linear : ndarray, shape (n, r1)
        Columns d_r; sqrt(c1) everywhere unless the correction is "second_order".
    quadratic : ndarray, shape (n, r2)
        Columns e_r; none unless the correction is "second_order".
    factor, core : ndarray, shapes (n, k) and (k, k)
        V and A.
    shift : ndarray, shape (n,)
        s; constant and equal to c for the theorem's form.
    coefficients : Coefficients
        The theorem's numbers for this network.
    """

    def __init__(
        self,
        rows: FloatArray,
        linear: FloatArray,
        quadratic: FloatArray,
        factor: FloatArray,
        core: FloatArray,
        shift: FloatArray,
        source: Coefficients,
    ) -> None:
        super().__init__(dtype=np.dtype(np.float64), shape=(len(rows), len(rows)))
        self.rows = rows
        self.linear = linear
        self.quadratic = quadratic
        self.factor = factor
        self.core = core
        self.shift = shift
        self.coefficients = source

    def _matvec(self, vector: FloatArray) -> FloatArray:
        v = np.reshape(vector, -1)
        out = self.shift * v
        out += self.factor @ (self.core @ (self.factor.T @ v))
        out += np.einsum("ir,ir->i", self.linear, self.rows @ (self.rows.T @ (self.linear * v[:, None])))
        for e in self.quadratic.T:  # (G∘G) u = diag(X (Xᵀ diag(u) X) Xᵀ)
            inner = self.rows.T @ ((e * v)[:, None] * self.rows)
            out += e * np.einsum("ij,ij->i", self.rows @ inner, self.rows)
        return np.asarray(out)

    def _matmat(self, other: FloatArray) -> FloatArray:
        return np.column_stack([self._matvec(column) for column in np.asarray(other).T])

    def _adjoint(self) -> "Equivalent":
        return self

    def _transpose(self) -> "Equivalent":
        return self

    def diagonal(self) -> FloatArray:
        """Return the diagonal, shape (n,)."""
        square = np.einsum("ij,ij->i", self.rows, self.rows)
        return np.asarray(
            square * (self.linear**2).sum(axis=1)
            + square**2 * (self.quadratic**2).sum(axis=1)
            + np.einsum("ij,jk,ik->i", self.factor, self.core, self.factor)
            + self.shift
        )

    def trace(self) -> float:
        """Return the trace."""
        return float(self.diagonal().sum())

    def to_dense(self) -> FloatArray:
        """Return the matrix, shape (n, n), exactly symmetric."""
        gram = self.rows @ self.rows.T
        dense = gram * _symmetric(self.linear, self.linear)
        if self.quadratic.shape[1]:
            dense += gram**2 * _symmetric(self.quadratic, self.quadratic)
        dense += _symmetric(self.factor @ self.core, self.factor)
        dense[np.diag_indices_from(dense)] += self.shift
        return np.asarray(dense)


def _symmetric(left: FloatArray, right: FloatArray) -> FloatArray:
    product = left @ right.T
    return np.asarray(0.5 * (product + product.T))


def equivalent(
    net: Network,
    x: ArrayLike,
    labels: Any = None,
    *,
    kind: Kind = "ck",
    mixture: GaussianMixture | None = None,
    correction: Correction = "none",
) -> Equivalent:
    r"""Return the asymptotic equivalent of a kernel on given data.

    Parameters
    ----------
    net : Network
        Centred, without biases. If its tau0 is None, τ_0 is the mixture's if one is given, else
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
        "second_order" keeps every sample's own norm and all terms up to G∘G, and uses neither labels nor
        mixture (but the mixture's τ_0 if one is given).

    Returns
    -------
    Equivalent
        A scipy LinearOperator in O(n p) memory; products cost O(n p), of "second_order" O(n p²).

    Raises
    ------
    InfiniteDiagonalError
        If `kind` is "ntk" and an activation jumps.
    ValueError
        If shapes or labels do not fit, or an activation is no function (``exp_normalized``), which "second_order" only
        has an answer for.

    Notes
    -----
    ‖K − K̃‖ falls like n^{-1/2} when n and p grow in proportion; ``validation/`` measures it.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), Theorems 1 and 2, corrected (docs/errata.md).
    """
    if not isinstance(net, Network):
        raise TypeError(f"`net` must be an rmtntk.Network, got {net!r}")
    check_choice(kind, "kind", ("ck", "ntk"))
    check_choice(correction, "correction", ("none", "diagonal", "second_order"))
    if mixture is not None and not isinstance(mixture, GaussianMixture):
        raise TypeError(f"`mixture` must be a GaussianMixture, got {mixture!r}")
    data = check_data(x)
    rows = input_rows(net, data)
    # "fan_in" divides the data by √p, hence covariances by p.
    unit = 1.0 if net.input_scaling == "unit" else 1.0 / data.shape[1]
    tau0 = net.tau0
    if tau0 is None:
        tau0 = resolve_tau0(net, rows) if mixture is None else mixture.tau0 * float(np.sqrt(unit))
    table = coefficients_of(net, tau0) if correction == "second_order" else coefficients(net, tau0)
    c1, c2, c3 = table.linear(kind)
    c = table.shift(kind)
    if not np.isfinite(c):
        raise InfiniteDiagonalError(
            "the NTK of a network with jumps (steps, sign, heaviside) has an infinite diagonal and no equivalent: "
            "use kind='ck', or compare off-diagonal entries"
        )
    if correction == "second_order":
        return _second_order(net.with_tau0(tau0), data, rows, kind, table)
    population, index = _population(data, labels, mixture)
    n, p = rows.shape
    onehot = np.zeros((n, population.n_classes))
    onehot[np.arange(n), index] = 1.0
    centred = rows - np.sqrt(unit / p) * population.means[index]
    psi = np.einsum("ij,ij->i", centred, centred) - unit * population.traces[index]
    t = unit * population.trace_deviations
    factor = np.column_stack([onehot / np.sqrt(p), psi])
    core = np.block(
        [
            [c2 * np.outer(t, t) + c3 * unit**2 * population.trace_products, c2 * t[:, None]],
            [c2 * t[None, :], np.array([[c2]])],
        ]
    )
    result = Equivalent(rows, np.full((n, 1), np.sqrt(c1)), np.zeros((n, 0)), factor, core, np.full(n, c), table)
    return result if correction == "none" else _with_exact_diagonal(result, net.with_tau0(tau0), data, kind)


def _second_order(net: Network, data: FloatArray, rows: FloatArray, kind: Kind, table: Coefficients) -> Equivalent:
    scales = layer_scales(net, float(table.tau[0]))
    ck, ntk = expand(net, scales, squared_norms(rows, "x"))
    terms = ck if kind == "ck" else ntk
    core = np.eye(terms.d0.shape[1])
    result = Equivalent(rows, terms.d1, terms.d2, terms.d0, core, np.zeros(len(rows)), table)
    return _with_exact_diagonal(result, net, data, kind)


def _with_exact_diagonal(result: Equivalent, net: Network, data: FloatArray, kind: Kind) -> Equivalent:
    exact = kernel_diagonals(net, data)
    wanted = exact.ck if kind == "ck" else exact.ntk
    result.shift = wanted - (result.diagonal() - result.shift)
    return result


def _population(data: FloatArray, labels: Any, mixture: GaussianMixture | None) -> tuple[GaussianMixture, IntArray]:
    n, p = data.shape
    if labels is None:
        if mixture is not None and mixture.n_classes > 1:
            raise ValueError(f"`labels` must be given for a mixture of {mixture.n_classes} classes")
        index = np.zeros(n, dtype=np.int64)
        population = mixture or GaussianMixture.from_data(data, index)
    else:
        names, index = check_labels(labels, n)
        population = mixture or GaussianMixture.from_data(data, labels)
        index = _match_classes(names, population)[index]
    if population.n_features != p:
        raise ValueError(f"`mixture` must have the {p} features of `x`, got {population.n_features}")
    return population, index


def _match_classes(names: list[Hashable], population: GaussianMixture) -> IntArray:
    known = {name: k for k, name in enumerate(population.classes)}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"`labels` must be among the mixture's classes {population.classes}, got {missing[0]!r}")
    return np.array([known[name] for name in names], dtype=np.int64)


def operator_norm(matrix: FloatArray | LinearOperator) -> float:
    """Largest absolute eigenvalue of a symmetric matrix or operator, to about 1e-6 relative (Lanczos)."""
    n = matrix.shape[0]
    if n <= 64:
        dense = matrix if isinstance(matrix, np.ndarray) else matrix @ np.eye(n)
        return float(np.abs(np.linalg.eigvalsh(dense)).max())
    start = np.random.default_rng(0).standard_normal(n)  # fixed: the result is deterministic
    if not (matrix @ start).any():  # Lanczos cannot start on the zero matrix
        return 0.0
    values = eigsh(matrix, k=1, which="LM", tol=1e-7, v0=start, return_eigenvectors=False, maxiter=10 * n)
    return float(abs(values[0]))


def spectral_error(k: ArrayLike, eq: Equivalent | ArrayLike) -> float:
    """Return ‖K − K̃‖ / ‖K‖ in operator norm, to about 1e-6 relative.

    Parameters
    ----------
    k : array_like, shape (n, n)
        Symmetric kernel matrix.
    eq : Equivalent or array_like, shape (n, n)
        What to compare it with.

    Raises
    ------
    ValueError
        If shapes differ, or `k` is zero or not finite and symmetric.
    """
    matrix = check_square(k, "k")
    other = eq.to_dense() if isinstance(eq, Equivalent) else check_square(np.asarray(eq), "eq")
    if other.shape != matrix.shape:
        raise ValueError(f"`eq` must have the shape of `k`, {matrix.shape}, got {other.shape}")
    size = operator_norm(matrix)
    if size == 0.0:
        raise ValueError("`k` must not be zero: the relative error is undefined")
    return operator_norm(matrix - other) / size
