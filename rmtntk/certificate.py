r"""How accurately a kernel is known: bounds of what truncated series leave out.

Closed forms leave out nothing. Where series are followed by smooth layers only, bounds that hold at every ρ are
usually far below the tolerance and cost nothing; else every pair's own bound is followed (``_jit/errors.py``).
"""

from typing import NamedTuple

import numpy as np

from rmtntk._jit import errors, layout, series
from rmtntk._typing import FloatArray
from rmtntk.dual import Plan
from rmtntk.errors import AccuracyError
from rmtntk.network import Network

__all__ = ["Certificate", "certify", "check_accuracy"]

_SAFE = 0.1  # share of the tolerance below which the bound for any ρ is good enough


class Certificate(NamedTuple):
    """Bounds (2,) of the errors of CK and NTK at any ρ, and whether pairs must be followed one by one instead."""

    bounds: FloatArray
    track: bool


def certify(net: Network, plan: Plan, *, want_ntk: bool) -> Certificate:
    """Return bounds of the truncation errors that need no look at the pairs, or say that there are none."""
    if not plan.left[:, 0].any():
        return Certificate(np.zeros(2), track=False)
    w2 = net.weight_std**2
    error_c = error_ck = error_ntk = 0.0
    ntk = float(np.max(plan.row_ntk[0]))
    for k, layer in enumerate(plan.layers):
        cut, weighted, curvature = plan.left[k]
        line, own = plan.constants[k], plan.rows[layout.HEAD + k * layout.FIELDS :][: layout.FIELDS]
        inverse_square = plan.inverse_square(k)
        floor = slope_floor = limit = 0.0
        if layer.order > 0.0:
            limit = float(line[series.LIMIT])
            floor = float(line[series.FLOOR] * np.max(own[layout.NORM]) ** 2)
            slope_floor = float(line[series.SLOPE_FLOOR] * np.max(own[layout.SLOPE_SQUARED]))
            cut = cut * (1.0 - limit) ** layer.order
            weighted = weighted * (1.0 - limit) ** (layer.order - 1.0)
        slope = float(plan.row_slope[k].max())
        if error_c > 0.0 and (layer.bend.kind != errors.SMOOTH or not np.isfinite(slope)):
            return Certificate(np.full(2, np.inf), track=True)
        through = slope * error_c if error_c > 0.0 else 0.0
        error_ck = through + float(cut.max()) + floor
        if want_ntk:
            error_slope = float(curvature.max()) ** 2 * error_c + float((weighted * inverse_square).max()) + slope_floor
            error_ntk = w2 * (error_ck + (error_ntk * slope if error_ntk > 0.0 else 0.0) + ntk * error_slope)
            ntk = float(np.max(plan.row_ntk[k + 1]))
        # The distance of two rows' features leaves out what either row does.
        error_c = w2 * (error_ck if limit > 0.0 else error_ck + float(cut.max()))
    bounds = np.array([error_ck, error_ntk])
    unit_ck, unit_ntk = _units(plan)
    limit = _SAFE * _tolerance(net)
    safe = bounds[0] <= limit * unit_ck and (not want_ntk or bounds[1] <= limit * unit_ntk)
    return Certificate(bounds, track=not safe)


def _tolerance(net: Network) -> float:
    return max((act.tolerance for act in net.activations if act.family == "smooth"), default=1.0)


def _units(plan: Plan) -> tuple[float, float]:
    unit_ck = float(plan.ck_diagonal.max())
    finite = plan.ntk_diagonal[np.isfinite(plan.ntk_diagonal)]
    return unit_ck, max(float(finite.max()) if finite.size else 0.0, unit_ck)


def check_accuracy(net: Network, plan: Plan, bounds: FloatArray, *, want_ck: bool, want_ntk: bool) -> None:
    """Raise if a bound exceeds the tolerance that the network's activations ask for."""
    if not bounds.any():
        return
    tolerance = _tolerance(net)
    unit_ck, unit_ntk = _units(plan)
    wanted = [("conjugate kernel", float(bounds[0]), unit_ck)] if want_ck else []
    if want_ntk:
        wanted.append(("NTK", float(bounds[1]), unit_ntk))
    for kind, bound, unit in wanted:
        if not bound <= tolerance * unit:
            raise AccuracyError(
                f"the {kind} of {net} is known here only to {bound / unit:.2e} of its diagonal, but its activations "
                f"ask for {tolerance:.1e}. If a custom function or its slope jumps, declare where in `breakpoints`; if "
                "rows are nearly parallel or very long, custom(..., tolerance=...) can ask for less, and functions "
                "with a closed form need no tolerance",
                bound,
            )
