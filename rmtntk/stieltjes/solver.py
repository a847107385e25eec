r"""Solutions of F_a(q; ζ) = −1/q_a + h_a(q) − ζ = 0: Newton in log q, continuation, and certificates.

With e = dq/q the Newton system is (diag(q (h − ζ)) − M) e = 1 − q (h − ζ), M_ab = q_a q_b γ_b S_ab.

Two certificates, each sufficient, and exclusive by Cauchy–Schwarz: all Im q_a > 0 where Im ζ ≥ 0, or real ζ, real q and
spectral radius of |M| below 1 (then dq/dζ > 0 and ζ lies outside the support).
"""

from dataclasses import dataclass

import numpy as np

from rmtntk._typing import AnyArray, FloatArray
from rmtntk.errors import ConvergenceError
from rmtntk.stieltjes.noise import JointSpectrum, Spectrum

__all__ = ["Core", "attempt", "below_zero", "jacobian", "land", "newton", "radius", "real_newton"]

_RESIDUAL = 1e-13
_EPS = float(np.finfo(np.float64).eps)
_REAL = 1e-12  # Im q/|q| of all classes below this is rounding


@dataclass(frozen=True, eq=False)
class Core:
    """Classes linked to each other, none of zero covariance, scaled so that max ‖C_a‖ = 1."""

    spectrum: Spectrum
    gamma: FloatArray

    @property
    def bound(self) -> float:
        """The support lies below (1 + √Σγ)²."""
        return float((1.0 + np.sqrt(self.gamma.sum())) ** 2)

    def terms(self, q: AnyArray) -> tuple[AnyArray, AnyArray]:
        """H and S at q, shape (N, K)."""
        return self.spectrum.terms(q * self.gamma)

    def coupling(self, q: AnyArray, s: AnyArray) -> AnyArray:
        """M, shape (N, K, K)."""
        return np.asarray(q[..., :, None] * s * (q * self.gamma)[..., None, :])

    def mass(self, q: FloatArray) -> float:
        """Share of eigenvalues below a point outside the support: γ_a where q_a < 0, less R's negative ones."""
        total = float(self.gamma.sum())
        return float((self.gamma[q < 0.0].sum() - self.spectrum.negative(q * self.gamma)) / total)


def jacobian(core: Core, q: AnyArray) -> tuple[AnyArray, AnyArray]:
    """I − M and h, at q of shape (N, K)."""
    h, s = core.terms(q)
    system = -core.coupling(q, s)
    index = np.arange(q.shape[-1])
    system[..., index, index] += 1.0
    return system, h


def newton(
    core: Core, zeta: AnyArray, q: AnyArray, *, tolerance: float = 1e-13, limit: int = 40
) -> tuple[AnyArray, AnyArray]:
    """Newton in log q from q, shape (N, K), for zeta, shape (N,).

    Returns q and the last relative step of each point, inf where it did not settle.
    A point also ends where steps below 1e-6 no longer shrink and the residual is rounding, amplified near an edge.
    """
    q = np.array(q)
    size = np.full(len(q), np.inf)
    live = np.arange(len(q))
    index = np.arange(q.shape[1])
    for _ in range(limit):
        now, z = q[live], zeta[live, None]
        with np.errstate(all="ignore"):
            h, s = core.terms(now)
            ratio = now * (h - z)
            system = -core.coupling(now, s)
            system[:, index, index] += ratio
            finite = np.isfinite(system).all(axis=(1, 2))
            system[~finite] = np.eye(len(index))
            try:
                step = np.linalg.solve(system, (1.0 - ratio)[..., None])[..., 0]
            except np.linalg.LinAlgError:  # one of the points met an exactly singular matrix
                step = np.stack([_solve_one(m, r) for m, r in zip(system, 1.0 - ratio, strict=True)])
        length = np.where(finite, np.abs(step).max(axis=1), np.nan)
        bad = ~np.isfinite(length)
        length[bad] = np.inf
        step[bad] = 0.0
        q[live] = now * np.exp(step * np.minimum(1.0, 1.0 / np.maximum(length, 1e-300))[:, None])
        with np.errstate(all="ignore"):  # quadratic convergence seen: what the next step would be
            ahead = np.where(np.isfinite(size[live]), length * (length / size[live]) ** 2, np.inf)
            rest = (np.abs(1.0 - ratio) / _size(core, now, h, z)).max(axis=1)
        stalled = length > 0.25 * size[live]
        settled = (length <= tolerance) | ((length < 1e-4) & ~stalled & (ahead < 0.01 * tolerance))
        # between the two roots next to an edge steps only halve, without being rounding
        settled |= stalled & (length < 1e-6) & (rest < _RESIDUAL)
        size[live] = length
        live = live[~settled & ~bad]
        if not len(live):
            break
    size[live] = np.where(size[live] < 1e-9, size[live], np.inf)
    return q, size


def _size(core: Core, q: AnyArray, h: AnyArray, zeta: AnyArray | float) -> FloatArray:
    """Terms of 1 − q (h − ζ), to which it is right up to rounding; an inverse of large loads has more of that."""
    terms = 1.0 + np.abs(q * h) + np.abs(q * zeta)
    if isinstance(core.spectrum, JointSpectrum):
        return np.asarray(terms)
    load = np.abs(q * core.gamma).max(axis=-1, keepdims=True)
    return np.asarray(terms + np.abs(q) * core.spectrum.traces * (1.0 + _EPS / _RESIDUAL * load))


def _solve_one(matrix: AnyArray, right: AnyArray) -> AnyArray:
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)


def radius(core: Core, q: FloatArray) -> float:
    """Spectral radius of |M| at one real q, shape (K,)."""
    return _radius(core, q, core.terms(q[None, :])[1][0])


def _radius(core: Core, q: FloatArray, s: FloatArray) -> float:
    weight = np.abs(q) * np.sqrt(core.gamma)
    return float(np.linalg.eigvalsh(weight[:, None] * s * weight[None, :])[-1])


def real_newton(core: Core, x: float, q: FloatArray) -> FloatArray | None:
    """Certified real solution near q at a real point outside the support, or None.

    Just inside the support Newton wanders where there is no root, with steps as small as the distance to the edge
    allows: the residual must be rounding.
    """
    found, size = newton(core, np.array([x]), np.asarray(q, dtype=np.float64)[None, :], limit=30)
    if not np.isfinite(size[0]):
        return None
    root = found[0]
    h, s = core.terms(root[None, :])
    rest = np.abs(1.0 - root * (h[0] - x)) / _size(core, root, h[0], x)
    return root if rest.max() < _RESIDUAL and _radius(core, root, s[0]) < 1.0 else None


def below_zero(core: Core, size: FloatArray, start: FloatArray | None = None) -> FloatArray:
    """Solutions at ζ = −size < 0, shape (N, K).

    In log q the potential Σ_a γ_a (|ζ| q_a − log q_a) + log det(I + Σ γ_b q_b C_b)/p is convex: Newton with a
    line search on its slope converges from everywhere.
    """
    q = np.array(1.0 / (core.spectrum.traces + size[:, None]) if start is None else start)
    index = np.arange(q.shape[1])
    last = np.full(len(q), np.inf)
    live = np.arange(len(q))
    for _ in range(300):
        now, z = q[live], size[live, None]
        h, s = core.terms(now)
        ratio = now * (h + z)
        system = -core.coupling(now, s)
        system[:, index, index] += ratio
        step = np.linalg.solve(system, (1.0 - ratio)[..., None])[..., 0]
        length = np.abs(step).max(axis=1)
        done = (length < 1e-13) | ((length < 1e-7) & (length > 0.25 * last[live]))
        last[live] = length
        slope = np.abs(((ratio - 1.0) * step) @ core.gamma)
        scale = np.minimum(1.0, 2.0 / np.maximum(length, 1e-300))
        for _ in range(60):
            trial = now * np.exp(step * scale[:, None])
            if (length <= 1e-4).all():
                break
            ahead = ((trial * (core.terms(trial)[0] + z) - 1.0) * step) @ core.gamma
            overshoot = (ahead > 0.5 * slope) & (length > 1e-4)
            if not overshoot.any():
                break
            scale = np.where(overshoot, 0.5 * scale, scale)
        q[live] = trial
        live = live[~done]
        if not len(live):
            return q
    worst = int(live[0])
    raise ConvergenceError(f"the bulk equation at ζ = {-size[worst]:.3g} (scaled) did not settle", float(last[worst]))


def attempt(core: Core, zeta: AnyArray, guess: AnyArray, limit: int = 12) -> tuple[AnyArray, AnyArray]:
    """Newton from guesses, shape (N, K), and which of the results carry a certificate; Im ζ ≥ 0.

    At real ζ a certified point outside the support is returned exactly real.
    """
    found, gap = newton(core, zeta, np.asarray(guess, dtype=np.complex128), limit=limit)
    settled = np.isfinite(gap)
    ok = settled & (found.imag > 0.0).all(axis=1)
    # a real root of another branch has imaginary parts of any sign, from rounding
    ok &= (zeta.imag > 0.0) | (np.abs(found.imag / found).max(axis=1) > _REAL)
    for i in np.flatnonzero(settled & (zeta.imag == 0.0)):
        if np.abs(found[i].imag / found[i]).max() < 1e-5:
            real = real_newton(core, float(zeta[i].real), found[i].real)
            if real is not None:
                found[i], ok[i] = real, True
    return found, ok


def land(core: Core, zeta: AnyArray) -> AnyArray:
    """Certified solutions at zeta, shape (N,), Im ζ ≥ 0, along the arcs ζ = |ζ| e^{iφ}, φ from π down.

    Returns complex q, shape (N, K), exactly real where the point is outside the support.
    """
    size = np.abs(zeta)
    target = np.angle(zeta)
    q = below_zero(core, size).astype(np.complex128)
    here = np.full(len(zeta), np.pi)
    step = np.full(len(zeta), 0.4)
    live = np.flatnonzero(target < np.pi)
    for _ in range(400):
        if not len(live):
            break
        now, angle = q[live], here[live]
        system, _ = jacobian(core, now)
        slope = np.linalg.solve(system, now[..., None])[..., 0]
        new = np.maximum(angle - step[live], target[live])
        last = new <= target[live]
        z_old, z_new = size[live] * np.exp(1j * angle), size[live] * np.exp(1j * new)
        z_new = np.where(last, zeta[live], z_new)
        move = slope * (z_new - z_old)[:, None]
        length = np.abs(move).max(axis=1)
        short = length < 1.0
        guess = now * np.exp(move * np.minimum(1.0, 1.0 / np.maximum(length, 1e-300))[:, None])
        found, ok = attempt(core, z_new, guess)
        ok &= short
        good = live[ok]
        q[good], here[good] = found[ok], new[ok]
        step[good] *= 1.7
        step[live[~ok]] *= 0.35
        live = live[~(ok & last)]
        if len(live) and (step[live] < 1e-15).any():
            break
    if len(live):
        worst = live[0]
        raise ConvergenceError(
            f"the bulk equation at ζ = {zeta[worst]:.6g} (scaled) was followed to angle {here[worst]:.3g} only: "
            "the point may be within rounding of an edge of the support; move it or give it an imaginary part",
            float(here[worst] - target[worst]),
        )
    return q
