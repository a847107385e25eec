"""Functions of the scale τ, evaluated at thousands of scales from a few dozen: one for every row of the data.

The functions are analytic in log τ. The range is cut into panels; each has Chebyshev nodes, and is halved until the
interpolant agrees with the function at points between the nodes.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk.errors import AccuracyError

__all__ = ["DIRECT_COUNT", "LogInterpolant"]

DIRECT_COUNT = 24  # fewer distinct scales than this are computed one by one
NODES = 18
TOLERANCE = 2e-13
_MAX_RATIO = 2.0
_MAX_HALVINGS = 8

_X = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
_BARYCENTRIC = (-1.0) ** np.arange(NODES) * np.sin(np.pi * (np.arange(NODES) + 0.5) / NODES)
_CHECKS = np.array([-0.999, -0.53, 0.04, 0.61, 0.998])


class LogInterpolant:
    """Interpolant in log τ of a vector-valued function whose values are of order one.

    Parameters
    ----------
    function : callable
        ``function(tau) -> values``, (m,) → (m, fields).
    tau : ndarray, shape (n,)
        Positive scales at which values will be wanted: panels are made only where some are.
    what : str
        Named in errors.

    Attributes
    ----------
    errors : ndarray, shape (fields,)
        Largest difference met at the points of comparison, for each field.
    """

    def __init__(self, function: Callable[[FloatArray], FloatArray], tau: FloatArray, what: str) -> None:
        self.function = function
        log_tau = np.log(tau)
        low, high = float(log_tau.min()), float(log_tau.max())
        count = max(1, math.ceil((high - low) / math.log(_MAX_RATIO)))
        pad = 1e-9 * max(1.0, abs(low), abs(high))
        edges = np.linspace(low - pad, high + pad, count + 1)
        self.panels: list[tuple[float, float, FloatArray]] = []
        self.errors = np.zeros(0)
        stack = [(float(a), float(b), 0) for a, b in itertools.pairwise(edges)]
        while stack:
            a, b, depth = stack.pop()
            inside = log_tau[(log_tau >= a) & (log_tau <= b)]
            if not inside.size:
                continue
            half, middle = 0.5 * (b - a), 0.5 * (a + b)
            checks = middle + half * _CHECKS
            values = function(np.exp(np.concatenate([middle + half * _X, checks])))
            nodes, wanted = values[:NODES], values[NODES:]
            gaps = np.abs(weights_at((checks - middle) / half) @ nodes - wanted).max(axis=0)
            gap = float(gaps.max())
            if gap > TOLERANCE:
                if depth == _MAX_HALVINGS:
                    raise AccuracyError(
                        f"{what} varies too quickly with the norms of the rows to be interpolated (off by {gap:.1e} "
                        f"near scale {math.exp(middle):.3g}): rescale the rows to fewer distinct norms, or declare "
                        "every point where the function or its derivative jumps in `breakpoints`",
                        gap,
                    )
                stack += [(a, middle, depth + 1), (middle, b, depth + 1)]
                continue
            self.errors = np.maximum(self.errors, gaps) if self.errors.size else gaps
            self.panels.append((a, b, nodes))

    @property
    def node_values(self) -> FloatArray:
        """All values at nodes, (nodes, fields)."""
        return np.concatenate([nodes for _, _, nodes in self.panels])

    def __call__(self, tau: FloatArray, fields: slice | FloatArray = slice(None)) -> FloatArray:
        """Return the chosen fields at each scale, (n, fields)."""
        log_tau = np.log(tau)
        out = np.full(
            (len(tau), self.panels[0][2][:, fields].shape[1]), np.nan
        )  # never left: panels cover every τ given
        for a, b, nodes in self.panels:
            inside = (log_tau >= a) & (log_tau <= b)
            if inside.any():
                x = (log_tau[inside] - 0.5 * (a + b)) / (0.5 * (b - a))
                out[inside] = weights_at(x) @ nodes[:, fields]
        return out


def weights_at(x: FloatArray) -> FloatArray:
    """Barycentric weights of the nodes at points of [−1, 1], (points, NODES); rows sum to one."""
    gap = x[:, None] - _X[None, :]
    exact = gap == 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = _BARYCENTRIC / gap
        raw /= raw.sum(axis=1, keepdims=True)
    hit = exact.any(axis=1)
    raw[hit] = exact[hit]
    return np.asarray(raw)
