"""A readout of the last layer in integers, with a bound of what rounding it costs."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_real
from rmtntk.integer import IntegerNetwork
from rmtntk.readout import Quantised, Readout

__all__ = ["FoldedReadout", "IntegerReadout", "fold_fitted", "fold_readout"]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class IntegerReadout:
    """score_c = multiplier_c · Σ_j coefficients_jc z_j + bias_c in 64-bit integers; z_j are the last layer's outputs.

    Attributes
    ----------
    coefficients : ndarray of int8 or int16, shape (d, C)
    multiplier : ndarray of int32, shape (C,)
    bias : ndarray of int64, shape (C,)
    """

    coefficients: NDArray[np.int8] | NDArray[np.int16]
    multiplier: NDArray[np.int32]
    bias: NDArray[np.int64]


class FoldedReadout(NamedTuple):
    """An integer readout and how far it is from the one it stands for.

    Attributes
    ----------
    readout : IntegerReadout
    unit : float
        The scores are unit · (integer scores), up to `error`.
    error : ndarray, shape (C,)
        Bound of |score_c − unit · (integer score)_c| over all codes of the last layer.
    """

    readout: IntegerReadout
    unit: float
    error: FloatArray


def fold_readout(
    coefficients: ArrayLike,
    intercept: ArrayLike,
    outputs: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    gain: float = 1.0,
    offset: float = 0.0,
    bits: Literal[8, 16] = 8,
) -> FoldedReadout:
    r"""Fold a readout of the features f = gain · z + offset into integers.

    .. math:: s_c = \text{scale}_c \sum_j f_j W_{jc} + b_c \approx \text{unit}\,(M_c \sum_j q_{jc} z_j + \beta_c)

    Parameters
    ----------
    coefficients : array_like, shape (d, C)
        W. Integers with `scale` (a quantised readout) are kept as they are; without `scale` they are rounded to
        `bits` bits, q = round(W / S_c), S_c = max_j |W_jc| / (2^(bits−1) − 1).
    intercept : array_like, shape (C,)
        b.
    outputs : array_like of int, shape (k,)
        Values z can take: ``IntegerNetwork.outputs``.
    scale : array_like, shape (C,), optional
        Factors ≥ 0 of a quantised readout.
    gain, offset : float
        The features in terms of the outputs: ``network.output_unit``, ``network.output_offset``.
    bits : {8, 16}
        Size of a coefficient.

    Returns
    -------
    FoldedReadout
        With `error_c` = h Σ_j |W'_jc − S_c q_jc| + |S_c − unit M_c| max|z| Σ_j |q_jc| + ½ unit and rounding, where
        W' = gain · W and h is half the range of z: a mean of the rounding of q goes into the bias. Two classes whose
        scores are further apart than the sum of their errors keep their order.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain.
    """
    if bits not in (8, 16):
        raise ValueError(f"`bits` must be 8 or 16, got {bits!r}")
    weights = check_array(coefficients, "coefficients", 2)
    b = check_array(intercept, "intercept", 1)
    z = check_array(outputs, "outputs", 1)
    if not (z == np.rint(z)).all():
        raise ValueError("`outputs` must hold integers: pass the outputs of an IntegerNetwork")
    gain = check_real(gain, "gain", low=0.0, open_low=True)
    offset = check_real(offset, "offset")
    if len(b) != weights.shape[1]:
        raise ValueError(
            f"`intercept` must have one entry per column of `coefficients`, {weights.shape[1]}, got {len(b)}"
        )
    top = 2 ** (bits - 1) - 1
    if scale is None:
        factor = np.abs(weights).max(axis=0) / top
        safe = np.where(factor > 0.0, factor, 1.0)
        q = np.rint(weights / safe)
    else:
        factor = check_array(scale, "scale", 1)
        if factor.shape != b.shape or (factor < 0.0).any():
            raise ValueError(f"`scale` must hold {len(b)} numbers ≥ 0, got {scale!r}")
        if not (weights == np.rint(weights)).all() or np.abs(weights).max() > top + 1:
            raise ValueError(
                f"`coefficients` with `scale` must be integers of {bits} bits: raise `bits`, or drop `scale`"
            )
        q = weights
        weights = q * factor
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        # s_c = Σ_j gain W_jc z_j + constant; the rounding of q is centred on the middle of the outputs
        slopes = factor * gain
        rest = gain * weights - slopes * q
        middle, half = 0.5 * (z.max() + z.min()), 0.5 * (z.max() - z.min())
        constant = b + offset * weights.sum(axis=0) + middle * rest.sum(axis=0)
        reach = np.abs(z).max() * np.abs(q).sum(axis=0)
        # the largest multiplier near 2^30, sums and biases inside 62 bits
        unit = max(
            float(slopes.max()) / 2.0**30,
            float((slopes * reach).max()) / 2.0**61,
            float(np.abs(constant).max()) / 2.0**61,
        )
        unit = unit if unit > 0.0 else 1.0
        multiplier, bias = np.rint(slopes / unit), np.rint(constant / unit)
        error = half * np.abs(rest).sum(axis=0) + np.abs(slopes - unit * multiplier) * reach + 0.5 * unit
        magnitude = (gain * np.abs(z).max() + abs(offset)) * np.abs(weights).sum(axis=0) + slopes * reach
        error += (len(weights) + 8) * EPS * (magnitude + np.abs(b))
    if not np.isfinite(error).all():
        raise ValueError("`coefficients` and `intercept` must give scores inside float64: rescale them")
    small = q.astype(np.int8) if bits == 8 else q.astype(np.int16)
    readout = IntegerReadout(small, multiplier.astype(np.int32), bias.astype(np.int64))
    return FoldedReadout(readout, unit, error)


def fold_fitted(readout: Readout, network: IntegerNetwork, bits: Literal[8, 16]) -> FoldedReadout:
    """Fold a fitted readout of the network's features; a quantised one keeps its integers, whatever `bits`."""
    scale = None
    coefficients: AnyArray = readout.coefficients
    if isinstance(readout, Quantised):
        coefficients, scale, _ = readout.integers()
    return fold_readout(
        coefficients, readout.intercept, network.outputs, scale=scale, bits=bits,
        gain=network.output_unit, offset=network.output_offset,
    )  # fmt: skip
