r"""Rank of a matrix whose rows are generic vectors of given subspaces: the atom of G at zero, and hard edges."""

from itertools import combinations

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk.stieltjes.noise import JointSpectrum, Spectrum

__all__ = ["generic_rank"]

_MOST = 16


def generic_rank(spectrum: Spectrum, gamma: FloatArray) -> tuple[float, bool]:
    r"""Limit of rank(Z)/p, and whether the density diverges at zero (a hard edge).

    .. math::
        \frac{\mathrm{rank} Z}{p} =
        \min_{S} \; \frac1p \mathrm{rank}\sum_{a \in S} C_a + \sum_{a \notin S} \gamma_a

    over sets S of classes. Two minimisers mean a square block of Z, whose singular values reach zero.

    References
    ----------
    Rado (1942), Lovász (1977): generic points of flats.
    """
    groups = _same_ranges(spectrum, len(gamma))
    if len(groups) > _MOST:
        raise ValueError(
            f"`covariances` must have at most {_MOST} different ranges (null spaces) among linked classes, "
            f"got {len(groups)}: make them invertible, or merge classes"
        )
    total = float(gamma.sum())
    values = [total]
    for size in range(1, len(groups) + 1):
        for chosen in combinations(range(len(groups)), size):
            inside = [a for g in chosen for a in groups[g]]
            values.append(spectrum.joint_rank(np.array(inside)) + total - float(gamma[inside].sum()))
    ordered = np.sort(values)
    # counts are products of weights and n: equal up to rounding is equal
    return float(ordered[0]), bool(ordered[1] - ordered[0] <= 64.0 * np.finfo(float).eps * max(total, 1.0))


def _same_ranges(spectrum: Spectrum, n_classes: int) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    full = spectrum.joint_rank(np.arange(n_classes))
    for a in range(n_classes):
        key: object = a
        if isinstance(spectrum, JointSpectrum):
            key = spectrum.ranges()[a].tobytes()
        elif spectrum.joint_rank(np.array([a])) == full:
            key = "full"
        groups.setdefault(key, []).append(a)
    return list(groups.values())
