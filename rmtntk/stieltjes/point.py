"""Solution of the bulk equation at one point."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmtntk._typing import AnyArray

__all__ = ["Point", "check_point", "conjugate"]


@dataclass(frozen=True, eq=False)
class Point:
    """Solution of the bulk equation at one ζ; made by :meth:`Bulk.solve`.

    Attributes
    ----------
    zeta : complex or float
        Where.
    delta : ndarray, shape (K,)
        δ_a = tr(C_a Q̃)/p; real where ζ is real and outside the support, else complex. Infinite at ζ = 0.
    q : ndarray, shape (K,)
        Limits of the diagonal of (G − ζ)^{-1} on each class.
    loads : ndarray, shape (K,)
        (n_a/p)/(1 + δ_a).
    m : complex or float
        Σ (n_a/n) q_a, the Stieltjes transform of G's spectrum.
    inside : bool
        Whether ζ is real and in the support, where everything is the limit from above.
    residual : float
        max |1 + ζ q_a (1 + δ_a)| with δ evaluated at q.
    m_slope : complex or float
        dm/dζ.
    """

    zeta: complex | float
    delta: AnyArray
    q: AnyArray
    loads: AnyArray
    m: complex | float
    inside: bool
    residual: float
    delta_slope: AnyArray
    q_slope: AnyArray
    m_slope: complex | float

    def derivative(self) -> tuple[AnyArray, AnyArray]:
        """dδ/dζ and dq/dζ, each of shape (K,); they are infinite at an edge of the support."""
        return self.delta_slope, self.q_slope


def check_point(zeta: Any, name: str) -> complex:
    """Return a finite complex number."""
    if isinstance(zeta, bool | np.bool_) or np.ndim(zeta) != 0 or not np.issubdtype(np.asarray(zeta).dtype, np.number):
        raise TypeError(f"`{name}` must be a real or complex number, got {zeta!r}")
    value = complex(zeta)
    if not np.isfinite(value):
        raise ValueError(f"`{name}` must be finite, got {zeta!r}")
    return value


def conjugate(point: Point) -> Point:
    """Return the solution at the conjugate ζ."""
    return Point(
        zeta=np.conj(point.zeta).item(),
        delta=np.conj(point.delta),
        q=np.conj(point.q),
        loads=np.conj(point.loads),
        m=np.conj(point.m).item(),
        inside=point.inside,
        residual=point.residual,
        delta_slope=np.conj(point.delta_slope),
        q_slope=np.conj(point.q_slope),
        m_slope=np.conj(point.m_slope).item(),
    )
