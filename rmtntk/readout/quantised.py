r"""Readouts with integer coefficients: scores = scale_c · (features @ q)_c + intercept_c, q of 8 bits or in {−1, 0, 1}.

With G the centred Gram matrix of the features and α the penalty, replacing the coefficients w of a ridge readout by v
adds (w − v)ᵀ(G + αI)(w − v) to its penalised squared error, exactly. So every class's q and scale are chosen to make
that small: rounding to the nearest first, then one coefficient at a time given all others, which hands its error on to
those correlated with it, and the scale given q, until nothing changes. Each step lowers the error; the end is a local
minimum. A logistic readout is rounded in the same metric. The intercept takes what the means leave.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array
from rmtntk.readout.logistic import Logistic
from rmtntk.readout.ridge import Ridge

__all__ = ["Quantised", "pack_codes", "quantise"]

_LIMIT = {8: 127, 2: 1}
_SWEEPS = 100


@dataclass(frozen=True, eq=False)
class Quantised:
    """Linear readout with integer coefficients and a scale a class.

    Attributes
    ----------
    kind : {"ridge", "logistic"}
        How the readout it rounds was fitted.
    bits : {8, 2}
        Stored bits a coefficient.
    codes : ndarray
        As stored: int8 (d, C), or uint8 (2, ceil(d C / 8)), the planes *nonzero* and *negative* of d C bits in row
        order, least significant bit of a byte first.
    scale, intercept : ndarray, shape (C,)
    n_features : int
        d.
    alpha : float
        Penalty of the readout it rounds.
    error : float
        Σ_c (w − v)ᵀ(G + αI)(w − v) / Σ_c wᵀ(G + αI)w for coefficients w and their replacement v.
    """

    kind: Literal["ridge", "logistic"]
    bits: Literal[8, 2]
    codes: NDArray[np.int8] | NDArray[np.uint8]
    scale: FloatArray
    intercept: FloatArray
    n_features: int
    alpha: float
    error: float

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and intercept as held in memory."""
        return self.codes.nbytes + self.scale.nbytes + self.intercept.nbytes

    @property
    def coefficients(self) -> FloatArray:
        """Scale times integers, shape (d, C), made on access."""
        return np.asarray(self.integers()[0] * self.scale)

    def integers(self) -> tuple[NDArray[np.int8], FloatArray, FloatArray]:
        """Return the integer coefficients, int8 (d, C), the scale (C,) and the intercept (C,)."""
        if self.bits == 8:
            return self.codes.astype(np.int8, copy=True), self.scale, self.intercept
        shape = self.n_features, len(self.scale)
        count = shape[0] * shape[1]
        nonzero, negative = (
            np.unpackbits(plane, count=count, bitorder="little").view(np.int8).reshape(shape) for plane in self.codes
        )
        return nonzero - 2 * negative, self.scale, self.intercept

    def scores(self, features: FloatArray) -> FloatArray:
        """Return the scores (n, C) of features (n, d): products with the integers, then scaled."""
        return np.asarray((features @ self.integers()[0].astype(np.float64)) * self.scale + self.intercept)

    def describe(self) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """Return a JSON-ready header and arrays from which :func:`rmtntk.readout.restore` makes it again."""
        names = ("kind", "bits", "n_features", "alpha", "error")
        header = {name: getattr(self, name) for name in names}
        return header, {"codes": self.codes, "scale": self.scale, "intercept": self.intercept}


def quantise(
    readout: Ridge | Logistic, bits: Literal[8, 2], gram: FloatArray, mean: FloatArray, *, feedback: bool = True
) -> Quantised:
    """Round a readout's coefficients to 8 bits or to {−1, 0, 1}, so that scores change least.

    Parameters
    ----------
    readout : Ridge or Logistic
    bits : {8, 2}
    gram : ndarray, shape (d, d)
        Centred Gram matrix of the features it was fitted on.
    mean : ndarray, shape (d,)
        Their mean, whose score does not change.
    feedback : bool
        False rounds each coefficient to its nearest value (for two bits, with the threshold and scale of least
        squared error) and is there to compare with.

    Raises
    ------
    ValueError
        If bits is neither 8 nor 2, or a shape does not fit.

    Notes
    -----
    Costs O(d² C) a sweep, some ten to twenty sweeps. An int8 readout is better by less than anything measures.
    """
    if isinstance(bits, bool) or bits not in _LIMIT:
        raise ValueError(f"`bits` must be 8 or 2, got {bits!r}: leave it out for a readout in float64")
    if not isinstance(readout, Ridge | Logistic):
        raise TypeError(f"`readout` must be a Ridge or a Logistic readout, got {readout!r}")
    w = readout.coefficients
    g = check_array(gram, "gram", 2)
    m = check_array(mean, "mean", 1)
    if g.shape != (len(w), len(w)):
        raise ValueError(f"`gram` must have the shape {(len(w), len(w))} of the readout's features, got {g.shape}")
    if len(m) != len(w):
        raise ValueError(f"`mean` must have {len(w)} entries, one a feature, got {len(m)}")
    check_memory(8 * g.size, f"rounding a readout of {len(w)} features", "leave `bits` out")
    metric = g + readout.alpha * np.eye(len(w))
    limit = _LIMIT[bits]
    scale, q = _nearest(w) if limit == 1 else _uniform(w, limit)
    if feedback:
        scale, q = _descend(metric, w, scale, q, limit)
    gap = w - scale * q
    total = float((w * (metric @ w)).sum())
    error = float((gap * (metric @ gap)).sum()) / total if total > 0.0 else 0.0
    integers = q.astype(np.int8)
    codes = integers if bits == 8 else pack_codes(integers)
    return Quantised(
        readout.kind, bits, codes, scale, readout.intercept + m @ gap, len(w), readout.alpha, error
    )  # fmt: skip


def pack_codes(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return entries −1, 0, 1 as two planes of bits, shape (2, ceil(size / 8))."""
    flat = integers.ravel()
    return np.packbits(np.stack([flat != 0, flat < 0]), axis=1, bitorder="little")


def _uniform(w: FloatArray, limit: int) -> tuple[FloatArray, FloatArray]:
    top = np.abs(w).max(axis=0)
    scale = np.where(top > 0.0, top / limit, 1.0)
    return scale, np.clip(np.rint(w / scale), -limit, limit)


def _nearest(w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return scale and signs of least squared error: the k largest entries, their mean as the scale."""
    size = np.abs(w)
    descending = -np.sort(-size, axis=0)
    means = np.cumsum(descending, axis=0) / np.arange(1, len(w) + 1)[:, None]
    best = (means**2 * np.arange(1, len(w) + 1)[:, None]).argmax(axis=0)
    columns = np.arange(w.shape[1])
    scale = means[best, columns]
    q = np.sign(w) * (size >= descending[best, columns])
    return np.where(scale > 0.0, scale, 1.0), q


def _descend(
    metric: FloatArray, w: FloatArray, scale: FloatArray, q: FloatArray, limit: int
) -> tuple[FloatArray, FloatArray]:
    """Lower (w − s q)ᵀ M (w − s q) of every column, coefficient by coefficient, to a local minimum."""
    curvature = np.diagonal(metric)
    moving = np.flatnonzero(curvature > 0.0)  # a feature that never changes has no say
    q = q.copy()
    for _ in range(_SWEEPS):
        image = metric @ q
        power = (q * image).sum(axis=0)
        fitted = (w * image).sum(axis=0) / np.where(power > 0.0, power, 1.0)
        scale = np.where((power > 0.0) & (fitted > 0.0), fitted, scale)
        slope = metric @ (w - scale * q)
        changed = False
        for j in moving:
            best = np.clip(np.rint(q[j] + slope[j] / (scale * curvature[j])), -limit, limit)
            step = best - q[j]
            if step.any():
                changed = True
                columns = np.flatnonzero(step)
                slope[:, columns] -= metric[:, j, None] * (scale * step)[columns]
                q[j] = best
        if not changed:
            break
    return scale, q
