r"""Limiting spectra of the empirical CK and NTK of networks as wide as the data is long (linear width).

With n samples and widths d_l, n/d_l → γ_l, nearly orthogonal rows and centred activations, the features of layer l
are d_l samples of the population Φ_l = α_l G_{l−1} + β_l I, where G_l is the empirical CK of layer l,
α_l = w² h1², β_l = τ_l² − α_l τ_{l−1}² and h1 = E[σ_l'] at λ_l = w τ_{l−1}. The NTK is r I + Σ_l q_l G_l up to terms
that do not move the spectrum. Everything here is done in units of τ_l² for G_l and of the trace for the kernel; then
a layer is two numbers, its linear share a_l = α_l τ_{l−1}²/τ_l² and its aspect ratio γ_l.

*Equations.* For H = r I + Σ_{l=0}^L q_l G_l, H − ζ is equivalent to c I + y_0 G_0 with

.. math::
    y_L = q_L,\quad y_{l-1} = q_{l-1} + a_l s_l,\quad c = r - \zeta + \sum_l (1 - a_l) s_l, \quad
    s_l = \frac{y_l}{1 + \gamma_l y_l \varphi_l}, \\
    \varphi_l = a_l g_{l-1} + (1 - a_l) m,\quad g_l = \frac{\varphi_l}{1 + \gamma_l y_l \varphi_l},\quad
    m = \int \frac{d\mu_0(x)}{c + y_0 x},\quad g_0 = \int \frac{x\, d\mu_0(x)}{c + y_0 x}

and m is the Stieltjes transform. For Im ζ > 0 the map s → y/(1 + γ y φ) takes the product of lower half planes into
itself, so a solution with every Im s_l < 0 is the only one: that is checked at every point. Also

.. math::
    F(x) = -\frac1\pi \operatorname{Im}\Big[\int \log(c + y_0 t)\, d\mu_0(t)
    + \sum_l \frac{\log y_l - \log s_l}{\gamma_l} - s_l \varphi_l\Big]_{\zeta = x + i0}

is the distribution function, with no integration over x: the bracket is lim log det(H − ζ)/n, stationary in s.

Sources: Fan and Wang, "Spectra of the conjugate kernel and neural tangent kernel for linear-width neural networks",
NeurIPS 2020, Theorems 3.4 (CK) and 3.7 (NTK), for one activation in all layers with unit variance; here each layer has
its own. The system and F are written from log det; Silverstein (1995) for one layer.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._typing import FloatArray
from rmtntk.errors import ConvergenceError

__all__ = ["ComplexArray", "State", "System", "above_rounding", "distribution", "off_holes", "solve", "support"]

ComplexArray = NDArray[np.complex128]

_CHUNK = 2**19  # points times input eigenvalues at a time
_TOLERANCE = 1e-9  # of an equation, relative to its larger side; reached are 1e-15, more next to hard edges
_LOOSE = 1e-7  # accepted on the way down to the real axis
_ON_AXIS = 1e-7  # Im m over |m| below which a point of the real axis is outside the support: a square root's rounding
_PIECES = 250  # of the mass, the resolution at which gaps are looked for


class System(NamedTuple):
    """The scaled equations: H = r + Σ q_l G_l over layers whose population is a_l G_{l−1} + 1 − a_l."""

    linear: FloatArray  # a_1 … a_L
    ratio: FloatArray  # γ_1 … γ_L
    weight: FloatArray  # q_0 … q_L
    shift: float  # r
    nodes: FloatArray  # of μ_0
    masses: FloatArray


class State(NamedTuple):
    """A solution at every point, and what follows from it."""

    s: ComplexArray  # (k, L)
    y: ComplexArray  # (k, L + 1): y_0 … y_L
    c: ComplexArray  # (k,)
    phi: ComplexArray  # (k, L)
    m: ComplexArray  # (k,)
    residual: FloatArray  # (k,)
    jacobian: ComplexArray  # (k, L, L) of the residual vector in s
    error: ComplexArray  # (k, L)
    slope: ComplexArray  # (k, L): derivative of the residual vector in ζ
    m_gradient: ComplexArray  # (k, L + 1): of m in s, and in ζ


def _evaluate(system: System, zeta: ComplexArray, s: ComplexArray) -> State:
    """Evaluate s_l (1 + γ_l y_l φ_l) − y_l with its derivatives."""
    a, gamma = system.linear, system.ratio
    count, depth = s.shape
    y = np.empty((count, depth + 1), dtype=complex)
    y[:, depth] = system.weight[depth]
    y[:, :depth] = system.weight[:depth] + a * s
    c = system.shift - zeta + s @ (1.0 - a)
    m, g, m2, n2, p2 = _input_integrals(system, c, y[:, 0])
    # Derivatives in (s_1, …, s_L, ζ), the last axis.
    dc = np.append(1.0 - a, -1.0)
    dy = np.zeros((depth + 1, depth + 1))
    dy[np.arange(depth), np.arange(depth)] = a
    dm = -m2[:, None] * dc - n2[:, None] * dy[0]
    dg = -n2[:, None] * dc - p2[:, None] * dy[0]
    phi, error = np.empty_like(s), np.empty_like(s)
    derivative = np.empty((count, depth, depth + 1), dtype=complex)
    scale = np.empty((count, depth))
    for k in range(depth):
        phi[:, k] = a[k] * g + (1.0 - a[k]) * m
        dphi = a[k] * dg + (1.0 - a[k]) * dm
        above = y[:, k + 1]
        factor = 1.0 + gamma[k] * above * phi[:, k]
        dfactor = gamma[k] * (phi[:, k, None] * dy[k + 1] + above[:, None] * dphi)
        error[:, k] = s[:, k] * factor - above
        derivative[:, k] = s[:, k, None] * dfactor - dy[k + 1]
        derivative[:, k, k] += factor
        scale[:, k] = np.abs(above) + np.abs(s[:, k]) * (1.0 + np.abs(factor - 1.0))
        g = phi[:, k] / factor
        dg = (dphi - g[:, None] * dfactor) / factor[:, None]
    residual = (np.abs(error) / scale).max(axis=1)
    return State(s, y, c, phi, m, residual, derivative[:, :, :depth], error, derivative[:, :, depth], dm)


def _input_integrals(system: System, c: ComplexArray, y: ComplexArray) -> tuple[ComplexArray, ...]:
    """∫ of 1/u, x/u, 1/u², x/u², x²/u² under μ_0, u = c + y x; shapes (k,)."""
    x, w = system.nodes, system.masses
    first = np.stack([w, w * x], axis=1)
    second = np.stack([w, w * x, w * x * x], axis=1)
    result = np.empty((5, len(c)), dtype=complex)
    step = max(1, _CHUNK // len(x))
    for start in range(0, len(c), step):
        part = slice(start, start + step)
        inverse = 1.0 / (c[part, None] + y[part, None] * x)
        result[:2, part] = (inverse @ first).T
        inverse *= inverse
        result[2:, part] = (inverse @ second).T
    return tuple(result)


def _newton(
    system: System, zeta: ComplexArray, start: ComplexArray, *, inside: bool, goal: ArrayLike = 1e-16, steps: int = 40
) -> tuple[ComplexArray, FloatArray]:
    """Newton's iteration at every point, kept in the lower half planes if `inside`; returns s and the residuals.

    A point is done at the goal, or when it moves by rounding only.
    """
    s = start.copy()
    residual = np.full(len(zeta), np.inf)
    target = np.broadcast_to(np.asarray(goal, dtype=np.float64), residual.shape)
    active = np.arange(len(zeta))
    for _ in range(steps):
        state = _evaluate(system, zeta[active], s[active])
        best = state.residual < residual[active]
        residual[active] = state.residual
        move = _solve(state.jacobian, state.error)
        new = s[active] - move
        if inside:  # at most nine tenths of the way to the boundary
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(new.imag >= 0.0, 0.9 * s[active].imag / move.imag, 1.0)
            new = s[active] - move * share.min(axis=1)[:, None]
        small = (np.abs(move) <= 4e-16 * np.abs(s[active])).all(axis=1) | (state.residual <= target[active])
        rounding = ~best & (state.residual <= 1e-14)
        go = ~(small | rounding)
        s[active[go]] = new[go]
        active = active[go]
        if len(active) == 0:
            break
    return s, _evaluate(system, zeta, s).residual


def _solve(matrix: ComplexArray, right: ComplexArray) -> ComplexArray:
    """Solve one small system a point; a singular one leaves its point where it is."""
    try:
        return np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0], dtype=np.complex128)
    except np.linalg.LinAlgError:
        result = np.zeros_like(right)
        for k in range(len(right)):
            if np.linalg.matrix_rank(matrix[k]) == matrix.shape[1]:
                result[k] = np.linalg.solve(matrix[k], right[k])
        return result


def _iterate(system: System, zeta: ComplexArray, s: ComplexArray, steps: int, damping: float) -> ComplexArray:
    """Fixed-point iteration, a self-map of the product of lower half planes when Im ζ > 0."""
    for _ in range(steps):
        state = _evaluate(system, zeta, s)
        above = state.y[:, 1:]
        s = (1.0 - damping) * s + damping * above / (1.0 + system.ratio * above * state.phi)
    return s


def solve(system: System, zeta: ComplexArray) -> State:
    """Solve at points with Im ζ ≥ 0, those on the real axis as limits from above; checks every solution.

    Goes down from far above the axis. A point of the axis ends early if Newton's iteration reaches a solution with
    every Im s_l < 0 there: it continues to such solutions above, which are unique, and so is the limit of them.
    """
    x, floor = zeta.real, zeta.imag
    on_axis: NDArray[np.bool_] = np.asarray(floor == 0.0)
    top = 2.0 * (np.abs(x) + system.shift + float(system.weight.sum()))
    height = np.maximum(top, floor)
    s = np.full((len(zeta), len(system.linear)), system.weight[-1] * (1.0 - 0.1j))
    s = _iterate(system, x + 1j * height, s, 30, 1.0)
    s = _advance(system, x + 1j * height, s)
    lowest = np.maximum(floor, np.minimum(1e-10 * top, 1e-3 * np.abs(x - system.shift)))
    todo = np.flatnonzero(height > lowest)
    tries = 0
    while len(todo):
        new = np.maximum(height[todo] / 8.0, lowest[todo])
        at = x[todo] + 1j * height[todo]
        state = _evaluate(system, at, s[todo])
        guess = s[todo] - _solve(state.jacobian, state.slope) * (1j * (new - height[todo]))[:, None]
        fine = np.asarray((guess.imag < 0.1 * s[todo].imag).all(axis=1))
        height[todo] = new
        goal = np.where(new <= lowest[todo], 1e-16, 1e-8)  # on the way, a start for the next height is enough
        s[todo] = _advance(system, x[todo] + 1j * new, np.where(fine[:, None], guess, s[todo]), goal)
        tries += 1
        if tries in (4, 7):
            axis = todo[on_axis[todo]]
            found, good = _land(system, x[axis], s[axis])
            s[axis[good]] = found[good]
            height[axis[good]] = 0.0
        todo = todo[height[todo] > lowest[todo]]
    axis = np.flatnonzero(on_axis & (height > 0.0))
    if len(axis):
        points = zeta[axis]
        limit, residual = _newton(system, points, s[axis], inside=False)
        _require(residual <= _TOLERANCE, residual, points, "on the real axis")
        drift = np.abs(limit - s[axis]) / np.abs(s[axis])
        _require((drift <= 1e-2).all(axis=1), residual, points, "on the real axis, where the iteration left its branch")
        s[axis] = limit
    state = _evaluate(system, zeta, s)
    _require(state.residual <= _TOLERANCE, state.residual, zeta, "at the end of the way down")
    return state


def _land(system: System, x: FloatArray, s: ComplexArray) -> tuple[ComplexArray, NDArray[np.bool_]]:
    """Try to end on the real axis; says where that has succeeded beyond doubt."""
    found, _ = _newton(system, x.astype(complex), s, inside=True, steps=12)
    state = _evaluate(system, x.astype(complex), found)
    good = (state.residual <= 1e-13) & (found.imag < -1e-6 * np.abs(found)).all(axis=1)
    return found, np.asarray(good & (state.m.imag > 1e-3 * np.abs(state.m)))


def _advance(system: System, zeta: ComplexArray, guess: ComplexArray, goal: ArrayLike = 1e-16) -> ComplexArray:
    """Solve above the real axis, by Newton's iteration, and where it fails after damped iterations."""
    s, residual = _newton(system, zeta, guess, inside=True, goal=goal)
    bad = ~((residual <= _LOOSE) & (s.imag < 0.0).all(axis=1))
    for steps in (50, 500, 5000):
        if not bad.any():
            break
        retry = _iterate(system, zeta[bad], guess[bad], steps, 0.5)
        s[bad], residual[bad] = _newton(system, zeta[bad], retry, inside=True, steps=80)
        bad = ~((residual <= _LOOSE) & (s.imag < 0.0).all(axis=1))
    _require(~bad, residual, zeta, "above the real axis")
    return s


def _require(good: Any, residual: FloatArray, zeta: ComplexArray, where: str) -> None:
    if not np.all(good):
        k = int(np.argmin(good))
        raise ConvergenceError(
            f"the fixed point of the linear-width spectrum was not found at {zeta[k]:.6g} (trace units), {where}: "
            f"residual {residual[k]:.2g}; try a point off the real axis, or away from 0 and the edges",
            float(residual[k]),
        )


def distribution(system: System, state: State) -> FloatArray:
    """F at points of the real axis, from the argument of the limiting determinant."""
    step = max(1, _CHUNK // len(system.nodes))
    base = np.empty(len(state.c))
    for start in range(0, len(base), step):
        part = slice(start, start + step)
        base[part] = _angle(state.c[part, None] + state.y[part, :1] * system.nodes) @ system.masses
    layers = (_angle(state.y[:, 1:]) - _angle(state.s)) / system.ratio - (state.s * state.phi).imag
    return np.asarray(-(base + layers.sum(axis=1)) / np.pi)


def _angle(values: ComplexArray) -> FloatArray:
    """Argument, in [−π, 0], of points of the closed lower half plane, whatever the sign of a rounded 0."""
    angle = np.angle(values)
    return np.where(angle > 0.5 * np.pi, angle - 2.0 * np.pi, angle)


def support(system: System, holes: FloatArray) -> FloatArray:
    """Edges of the support of the continuous part, (m, 2); gaps are looked for where the density dips."""
    top = float(system.nodes.max())
    bound = system.shift + float(system.weight[0]) * top
    for a, gamma, q in zip(system.linear, system.ratio, system.weight[1:], strict=True):
        top = (1.0 + np.sqrt(gamma)) ** 2 * (a * top + 1.0 - a)
        bound += float(q) * top
    low, span = system.shift, 1.001 * bound - system.shift
    fresh = low + span * np.unique(np.concatenate([np.geomspace(1e-9, 1.0, 90), np.linspace(0.0, 1.0, 120)[1:]]))
    x, density, mass = np.array([low]), np.zeros(1), np.zeros(1)
    for _ in range(12):
        fresh = off_holes(fresh, holes, span)
        state = solve(system, fresh.astype(complex))
        x = np.concatenate([x, fresh])
        order = np.argsort(x)
        x = x[order]
        density = np.concatenate([density, above_rounding(state.m)])[order]
        mass = np.concatenate([mass, distribution(system, state)])[order]
        inside = density > 0.0
        dip = np.zeros(len(x), dtype=bool)
        dip[1:-1] = inside[1:-1] & (density[1:-1] < 0.7 * density[:-2]) & (density[1:-1] < 0.7 * density[2:])
        heavy = (np.diff(mass) > 1.0 / _PIECES) & (inside[1:] | inside[:-1])
        heavy |= (dip[1:] | dip[:-1]) & inside[1:] & inside[:-1]
        heavy &= np.diff(x) > 1e-6 * (x[1:] - low)
        if not heavy.any():
            break
        fresh = 0.5 * (x[1:] + x[:-1])[heavy]
    inside = density > 0.0
    change = np.flatnonzero(inside[1:] != inside[:-1])
    outer = np.where(inside[change], x[change + 1], x[change])
    inner = np.where(inside[change], x[change], x[change + 1])
    parts = np.linspace(0.0, 1.0, 9)
    rows = np.arange(len(outer))
    while (np.abs(outer - inner) > np.maximum(4e-15 * span, 1e-15 * np.abs(inner))).any():  # eighths of the brackets
        points = outer[:, None] + (inner - outer)[:, None] * parts
        state = solve(system, off_holes(points[:, 1:-1].ravel(), holes, span).astype(complex))
        hit = np.ones(points.shape, dtype=bool)
        hit[:, 0] = False
        hit[:, 1:-1] = (above_rounding(state.m) > 0.0).reshape(len(outer), -1)
        first = hit.argmax(axis=1)
        outer, inner = points[rows, first - 1], points[rows, first]
    return np.asarray(outer.reshape(-1, 2))


def above_rounding(m: ComplexArray) -> FloatArray:
    """Im m where a point is in the support, else exactly 0."""
    return np.where(m.imag > _ON_AXIS * np.abs(m), m.imag, 0.0)


def off_holes(x: FloatArray, holes: FloatArray, span: float) -> FloatArray:
    """Move points that sit on an atom a little to the right, where the equations have a solution."""
    close = (np.abs(x[:, None] - holes) <= 1e-13 * span).any(axis=1)
    return np.where(close, x + 1e-12 * span, x)
