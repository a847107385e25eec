"""Covariances of classes: checks, traces of products, and unbiased estimates of both from samples."""

from collections.abc import Hashable

import numpy as np

from rmtntk._typing import FloatArray, IntArray

__all__ = ["check_counts", "check_covariances", "estimates", "trace_products_of"]

_CHUNK = 1 << 20  # entries that are multiplied at a time


def check_counts(counts: IntArray, names: list[Hashable], covariance: str, pooled: bool) -> None:
    """Raise if a class has too few samples for an estimate of this structure; see GaussianMixture.from_data."""
    freedom = 2 if covariance in ("full", "traces") else 1
    if pooled:
        if counts.sum() - len(names) < freedom:
            raise ValueError(
                f"`labels` must leave at least {freedom} degree(s) of freedom, n − K, for a pooled {covariance!r} "
                f"estimate, got {counts.sum()} samples of {len(names)} class(es)"
            )
    elif counts.min() < freedom + 1:
        a = int(counts.argmin())
        instead = "covariance='scalar' (2 samples) or pooled=True (1)" if freedom == 2 else "pooled=True (1 sample)"
        raise ValueError(
            f"`labels` must give every class at least {freedom + 1} samples to estimate its covariance "
            f"({covariance!r}), got {counts[a]} of class {names[a]!r}: merge classes, or take {instead}"
        )


def estimates(groups: list[FloatArray], freedom: IntArray, covariance: str) -> tuple[FloatArray, FloatArray]:
    """Covariances, and trace products without bias, of centred rows with so many degrees of freedom."""
    p = groups[0].shape[1]
    if covariance == "full":
        matrices = np.stack([rows.T @ rows * (p / count) for rows, count in zip(groups, freedom, strict=True)])
        return matrices, _unbiased(trace_products_of(matrices, p), np.trace(matrices, axis1=1, axis2=2), freedom, p)
    diagonals = np.stack(
        [np.einsum("ij,ij->j", rows, rows) * (p / count) for rows, count in zip(groups, freedom, strict=True)]
    )
    scalars = diagonals.mean(axis=1)
    if covariance == "traces":
        return scalars, _unbiased(_plain_products(groups, freedom), p * scalars, freedom, p)
    values, known = (diagonals, freedom) if covariance == "diagonal" else (scalars, p * freedom)
    products = trace_products_of(values, p)
    products[np.diag_indices_from(products)] *= known / (known + 2.0)
    return values, products


def _plain_products(groups: list[FloatArray], freedom: IntArray) -> FloatArray:
    """tr(Ĉ_a Ĉ_b)/p from K p×p matrices, or, if those are larger than the data, from ‖X_a X_bᵀ‖_F² in blocks."""
    p = groups[0].shape[1]
    if len(groups) * p <= sum(len(rows) for rows in groups):
        return trace_products_of(
            np.stack([rows.T @ rows * (p / count) for rows, count in zip(groups, freedom, strict=True)]), p
        )
    out = np.zeros((len(groups), len(groups)))
    for a, left in enumerate(groups):
        for b, right in enumerate(groups[: a + 1]):
            step = max(1, _CHUNK // len(right))
            for start in range(0, len(left), step):
                block = left[start : start + step] @ right.T
                out[a, b] += np.vdot(block, block)
            out[b, a] = out[a, b] = out[a, b] * p / (freedom[a] * freedom[b])
    return out


def _unbiased(products: FloatArray, traces: FloatArray, freedom: IntArray, p: int) -> FloatArray:
    """Correct the diagonal of tr(Ĉ_a Ĉ_b)/p."""
    for a, count in enumerate(freedom):
        square = products[a, a] * p - traces[a] ** 2 / count
        # Cauchy-Schwarz over N eigenvalues: square >= 0, but for rounding
        products[a, a] = max(0.0, count**2 / ((count - 1) * (count + 2)) * square) / p
    return products


def check_covariances(cov: FloatArray) -> None:
    """Raise unless all covariances, (K,), (K, p) or (K, p, p), are symmetric positive semi-definite, and not all 0."""
    if cov.ndim <= 2:
        if (cov < 0.0).any():
            raise ValueError(f"`covariances` must be non-negative variances, got a smallest value of {cov.min():.6g}")
    else:
        for a, matrix in enumerate(cov):
            scale = float(np.abs(matrix).max())
            if scale == 0.0:
                continue
            if np.abs(matrix - matrix.T).max() > 1e-10 * scale:
                raise ValueError(f"`covariances[{a}]` must be symmetric")
            tolerance = 1e-9 * scale * len(matrix)  # rounding of a singular covariance
            try:
                np.linalg.cholesky(matrix + tolerance * np.eye(len(matrix)))
            except np.linalg.LinAlgError:
                smallest = float(np.linalg.eigvalsh(matrix)[0])
                raise ValueError(
                    f"`covariances[{a}]` must be positive semi-definite, got a smallest eigenvalue of {smallest:.6g}"
                ) from None
    if not cov.any():
        raise ValueError("`covariances` must not all be zero: the theory needs noise in the data (tau0 > 0)")


def trace_products_of(cov: FloatArray, p: int) -> FloatArray:
    """tr(C_a C_b)/p, shape (K, K)."""
    if cov.ndim == 1:
        return np.outer(cov, cov)
    flat = cov.reshape(len(cov), -1)
    return np.asarray(flat @ flat.T / p)
