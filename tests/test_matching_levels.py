"""Any number of levels: sums and derivatives against integrals, families, all solutions, proven bounds."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf
from numpy.testing import assert_allclose
from scipy import optimize

import rmtntk as rn
from rmtntk._jit import steps
from rmtntk.matching.bounds import LLOYD_MAX_THRESHOLD, least_ridge, lloyd_max
from rmtntk.matching.families import family_of
from rmtntk.matching.layerwise import Equations, chains, solve_layer
from rmtntk.matching.problem import SHAPES, evaluate, target_of
from rmtntk.matching.search import EVEN, GENERAL, ODD, Problem, parameters_of
from rmtntk.matching.tight import equations_of

EPS = float(np.finfo(np.float64).eps)


def random_layer(rng, k):
    return np.sort(rng.uniform(-2.5, 2.5, k - 1)), rng.normal(size=k)


# --- Sums and derivatives


@pytest.mark.parametrize("k", [2, 4, 5, 8])
def test_sums_are_integrals(k):
    r, q = random_layer(np.random.default_rng(k), k)
    with mp.workdps(30):
        edges = [-mp.inf, *map(mpf, r), mp.inf]
        levels = [mpf(x) for x in q]

        def mean(weight, values):
            return sum(
                v * mp.quad(lambda x: weight(x) * mp.npdf(x), [a, b])
                for v, a, b in zip(values, edges, edges[1:], strict=False)
            )

        centre = mean(lambda x: 1, levels)
        squares = [(v - centre) ** 2 for v in levels]
        wanted = [
            mean(lambda x: x, levels),
            mean(lambda x: x * x - 1, levels),
            mean(lambda x: x * x - 1, squares) / 2,
            mean(lambda x: 1, squares),
        ]
    # closed forms of O(1) with fewer than 100 roundings
    assert_allclose(list(evaluate(r, tuple(q))), [float(x) for x in wanted], rtol=0, atol=100 * EPS)


@pytest.mark.parametrize("k", range(2, 9))
def test_derivatives_are_differences(k):
    rng = np.random.default_rng(k)
    r, q = random_layer(rng, k)
    sums, by_r, by_q = np.empty((1, 4)), np.empty((1, 4, k - 1)), np.empty((1, 4, k))
    steps.gradient_table(r[None], q, sums, by_r, by_q)
    assert_allclose(sums[0], list(evaluate(r, tuple(q))), rtol=1e-13, atol=8 * EPS)
    h = 1e-5
    for j in range(k - 1):
        e = h * np.eye(k - 1)[j]
        slope = (np.array(evaluate(r + e, tuple(q))) - np.array(evaluate(r - e, tuple(q)))) / (2 * h)
        assert_allclose(by_r[0, :, j], slope, rtol=0, atol=1e-8)  # h² of the third derivative, eps/h
    for j in range(k):
        e = h * np.eye(k)[j]
        slope = (np.array(evaluate(r, tuple(q + e))) - np.array(evaluate(r, tuple(q - e)))) / (2 * h)
        assert_allclose(by_q[0, :, j], slope, rtol=0, atol=1e-8)


@given(a=st.floats(4.0, 8.0), gap=st.floats(1e-3, 1.0))
def test_nothing_cancels_in_the_tail(a, gap):
    # three levels far out against the same numbers at 40 digits
    with mp.workdps(40):
        x, y = mpf(a), mpf(a) + mpf(gap)
        tail = mp.erfc(x / mp.sqrt(2)) / 2 - mp.erfc(y / mp.sqrt(2)) / 2
        wanted = float(tail * (1 - tail))
    got = evaluate(np.array([a, a + gap]), (0.0, 1.0, 0.0)).v
    assert_allclose(
        got, wanted, rtol=1e-10
    )  # P(a < ξ < b) by differences of erfc on the same side: eps·(tail/P) ≤ 1e-10


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_gradients_of_the_network(k, free):
    rng = np.random.default_rng(10 * k + free)
    kinds = np.array([GENERAL, ODD, EVEN if k % 2 else GENERAL])
    rising = tuple(j - 0.5 * (k - 1) for j in range(k))
    valley = tuple(abs(x) for x in rising)
    problem = Problem(kinds, (rising, rising, valley if k % 2 else rising), free, 0, ())
    z = problem.starts(3, 3)[1] + 0.1 * rng.normal(size=problem.n)

    def rows(point):
        out, jacobian = np.empty(7), np.empty((7, problem.n))
        steps.network_jacobian(point, kinds, problem.sizes, free, problem.levels.copy(), out, jacobian)
        return out, jacobian

    value, jacobian = rows(z)
    for j in range(problem.n):
        e = 1e-5 * np.eye(problem.n)[j]
        slope = (rows(z + e)[0] - rows(z - e)[0]) / 2e-5
        assert_allclose(jacobian[:, j], slope, rtol=1e-6, atol=1e-8 * np.abs(value).max())


# --- All solutions of a layer


def costs_by_many_starts(ratio, g_ratio, shape):
    """V/S1² of every root that a general solver finds from a lattice of starts, for all four signs."""
    costs = []
    for a, b in itertools.product((ratio, -ratio), (g_ratio, -g_ratio)):

        def residual(z, a=a, b=b):
            s = evaluate(np.array([z[0], z[0] + math.exp(min(z[1], 5.0))]), shape)
            unit = max(s.v, 1e-200)
            return [(s.s2 - a * s.s1) / math.sqrt(unit), (s.sg - b * s.s1**2) / unit]

        for x, y in itertools.product(np.linspace(-3.5, 3.5, 15), np.log(np.geomspace(0.02, 6.0, 10))):
            z, _, status, _ = optimize.fsolve(residual, [x, y], full_output=True, xtol=1e-13)
            if status != 1 or np.abs(residual(z)).max() > 1e-11 or not (abs(z[0]) < 4.2 and -5.5 < z[1] < 2.1):
                continue
            s = evaluate(np.array([z[0], z[0] + math.exp(z[1])]), shape)
            if s.v > 1e-6 and not any(abs(s.v / s.s1**2 - c) <= 1e-6 * c for c in costs):
                costs.append(s.v / s.s1**2)
    return sorted(costs)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # fsolve says so when a start leads nowhere
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio, g_ratio", [(0.7979, 1.3634), (0.3, 0.9), (1.5, 2.0)])
def test_all_solutions_of_a_layer_are_found(ratio, g_ratio, shape):
    name = "{" + ",".join(f"{q:g}" for q in shape) + "}"
    found = solve_layer(Equations(False, ratio, g_ratio), family_of(None, "equal", name))
    for c in found:
        s = evaluate(np.array(c.r), c.shape)
        assert_allclose(abs(s.s2 / s.s1), ratio, rtol=1e-12)
        assert_allclose(abs(s.sg) / s.s1**2, g_ratio, rtol=1e-12)
    costs = np.array([c.cost for c in found])
    for cost in costs_by_many_starts(ratio, g_ratio, shape):
        assert np.abs(costs / cost - 1.0).min() <= 1e-6  # the other solver's accuracy


def test_the_curve_without_g_is_searched_completely():
    for ratio in (0.2, 0.7979, 1.4):
        best = solve_layer(Equations(False, ratio, None))[0]
        for shape in SHAPES:
            r1, width = np.meshgrid(np.linspace(-4, 4, 801), np.geomspace(0.01, 8.0, 800), indexing="ij")
            s = evaluate(np.stack([r1, r1 + width], axis=-1), shape)
            near = (np.abs(np.abs(s.s2) - ratio * np.abs(s.s1)) <= 1e-3 * np.abs(s.s1)) & (s.s1 != 0.0)
            assert best.cost <= (s.v[near] / s.s1[near] ** 2).min() * (1 + 2e-3)  # the grid leaves the curve by 1e-3


def test_layerwise_goes_through_every_chain():
    for names in (["relu"] * 3, ["gelu"] * 4, ["elu"] * 2):
        assert chains(target_of(rn.Network(names), 1.0))[2]


# --- Families and numbers of levels


@pytest.mark.parametrize("objective", ["ck", "ntk", "both"])
@pytest.mark.parametrize(
    "options", [{"levels": 4}, {"levels": 5}, {"spacing": "free"}, {"levels": 4, "spacing": "free"}]
)
def test_more_levels_match_exactly_with_less_excess(options, objective):
    net = rn.Network(["relu", "relu"])
    three, more = rn.match(net, 1.0, objective=objective), rn.match(net, 1.0, objective=objective, **options)
    assert more.feasible
    assert more.residual <= 1e-12
    assert more.excess < three.excess
    assert more.gap >= 0.0
    got, wanted = more.coefficients, more.target
    if objective != "ntk":
        assert_allclose(got.alpha[-1, :3], wanted.alpha[-1, :3], rtol=1e-12)
    if objective != "ck":
        assert_allclose(got.beta[-1], wanted.beta[-1], rtol=1e-12)


@pytest.mark.parametrize("k", range(2, 9))
def test_odd_networks_of_any_number_of_levels(k):
    free = rn.match(rn.Network(["tanh"] * 2), 1.0, levels=k, spacing="free")
    equal = rn.match(rn.Network(["tanh"] * 2), 1.0, levels=k)
    assert free.feasible
    assert equal.feasible
    assert_allclose(free.gap, 0.0, atol=1e-6)  # the free optimum is Lloyd–Max, flat to second order
    assert equal.excess >= free.excess - 1e-6
    assert all(len(act.levels) == k for act in free.activations)
    for act in equal.activations:
        assert_allclose(np.diff(act.levels), np.diff(act.levels)[0], rtol=1e-12)


@pytest.mark.parametrize("k", [3, 4, 5])
def test_even_networks(k):
    found = rn.match(rn.Network(["abs", "cos"]), 1.0, levels=k)
    assert found.feasible
    assert found.coefficients.alpha[-1, 0] == 0.0
    assert found.gap >= 0.0


@pytest.mark.parametrize("family", ["{-1,0,1}", "{1,0,1}", "{-1,0,2}", (0.0, 1.0, 3.0, 4.0)])
def test_levels_are_those_of_the_family(family):
    shape = np.array(family if isinstance(family, tuple) else [float(x) for x in family.strip("{}").split(",")])
    found = rn.match(rn.Network(["relu", "gelu"]), 1.0, family=family)
    assert found.feasible
    for act in found.activations:
        # up to an amplitude and a constant
        assert_allclose((act.levels - act.levels[0]) / (act.levels[1] - act.levels[0]),
                        (shape - shape[0]) / (shape[1] - shape[0]), rtol=1e-12)  # fmt: skip


def test_two_levels_match_what_one_threshold_can():
    one = rn.match(rn.Network(["relu"]), 1.0, family="{0,1}")
    assert one.feasible  # S2/S1 = r
    assert_allclose(one.activations[0].thresholds, [math.sqrt(2 / math.pi)], rtol=1e-12)
    assert rn.match(rn.Network(["tanh"] * 3), 1.0, levels=2).feasible


MONOTONE = [
    "relu",
    "erf",
    "gelu",
    "tanh",
    "sigmoid",
    "softplus",
    "silu",
    "elu",
    "selu",
    "sign",
    "heaviside",
    "identity",
]


@pytest.mark.parametrize("tau0", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", [*MONOTONE, "abs", "gaussian"])
def test_every_activation_of_the_library(name, tau0):
    net = rn.Network([name] * 2)
    found = rn.match(net, tau0)
    assert found.feasible, found.message
    assert found.residual <= 1e-10
    assert found.excess >= found.excess_bound - 1e-8 * max(1.0, abs(found.excess_bound))


@pytest.mark.parametrize("tau0", [0.1, 1.0])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_periodic_activations(name, tau0):
    # at τ_0 = 10 their E[σ'], E[σ''] are e^-50: below rounding, and reported as such
    found = rn.match(rn.Network([name] * 2), tau0)
    assert found.feasible
    assert found.residual <= 1e-12
    silent = rn.match(rn.Network([name] * 2), 10.0)
    assert not silent.feasible
    assert "nothing to match" in silent.message


@pytest.mark.parametrize("depth", [5, 8])
@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_deep_networks(name, depth):
    found = rn.match(rn.Network([name] * depth), 1.0)
    assert found.feasible
    assert found.gap >= -1e-9 * abs(found.excess)


# --- The bound


def test_lloyd_max_is_the_classical_quantiser():
    # distortions of Max (1960), Table I: 1 − u
    for k, distortion in (
        (2, 0.3634),
        (3, 0.1902),
        (4, 0.1175),
        (5, 0.07994),
        (6, 0.05798),
        (7, 0.04400),
        (8, 0.03454),
    ):
        assert_allclose(1.0 - lloyd_max(k), distortion, atol=6e-5)
    s = evaluate(np.array([-LLOYD_MAX_THRESHOLD, LLOYD_MAX_THRESHOLD]), SHAPES[0])
    assert_allclose(lloyd_max(3), s.s1**2 / s.v, rtol=1e-13)


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_no_layer_beats_the_bound(k):
    rng = np.random.default_rng(k)
    s_values, inverse = [], []
    for _ in range(20000):
        r = np.sort(rng.normal(size=k - 1) * rng.uniform(0.3, 1.5))
        angle = rng.uniform(0, math.pi / 2)
        # the best levels for a mixture of ξ and ξ² − 1: conditional means
        edges = np.concatenate([[-40.0], r, [40.0]])
        f = np.exp(-0.5 * edges**2) / math.sqrt(2 * math.pi)
        mass = np.diff([0.5 * math.erfc(-x / math.sqrt(2)) for x in edges])
        if mass.min() < 1e-9:
            continue
        q = -(math.cos(angle) * np.diff(f) + math.sin(angle) * np.diff(edges * f)) / mass
        t = evaluate(r, tuple(q))
        s_values.append((t.s2 / t.s1) ** 2)
        inverse.append(t.v / t.s1**2)
    bound = least_ridge(k).inverse(np.array(s_values))
    ratio = np.array(inverse) / bound
    assert ratio.min() >= 1.0 - 1e-12
    assert ratio.min() <= 1.02  # and it is nearly reached


def test_bound_of_one_layer_is_nearly_reached():
    # one ReLU layer: the best free three and four levels have v = .397 and .368 (a quarter of 1/u)
    s = np.array([2.0 / math.pi])
    assert 0.395 <= 0.25 * least_ridge(3).inverse(s)[0] <= 0.3975
    assert 0.366 <= 0.25 * least_ridge(4).inverse(s)[0] <= 0.3685
    found = rn.match(rn.Network(["relu"]), 1.0, spacing="free")
    assert 0.0 <= found.gap <= 0.01


@pytest.mark.parametrize("objective", ["ck", "ntk"])
@pytest.mark.parametrize("names", [["relu"] * 2, ["relu"] * 3, ["gelu", "elu"], ["relu", "tanh", "softplus"]])
def test_random_feasible_networks_never_beat_the_bound(names, objective):
    target = target_of(rn.Network(names), 1.0)
    reference, equations = equations_of(target, objective)
    kinds = np.zeros(len(names), dtype=np.int64)
    best = math.inf
    for shapes in itertools.product(SHAPES, repeat=len(names)):
        problem = Problem(kinds, shapes, True, reference, equations)
        rng = np.random.default_rng(0)
        points = np.array([problem.starts(1, 1)[0] + 0.7 * rng.normal(size=problem.n) for _ in range(300)])
        measured = np.empty((len(points), 2))
        steps.project_all(points, *problem._arrays(), 30, reference, measured)
        good = measured[:, 0] < 1e-9
        if good.any():
            best = min(best, float(np.exp(measured[good, 1]).min()))
    found = rn.match(rn.Network(names), 1.0, spacing="free", objective=objective)
    ridge = (found.excess_bound * target.unit + target.coefficients.shift("ck")) / target.unit + 1.0
    assert math.isfinite(best)
    assert best >= ridge * (1 - 1e-9)  # τ_L²/α1 of any of them
    assert found.excess >= found.excess_bound


def test_bound_is_far_better_than_bessel_alone():
    found = rn.match(rn.Network(["relu"] * 3), 1.0)
    assert found.excess_bound > 0.7  # Bessel and Lloyd–Max by themselves: −0.65
    assert_allclose(found.gap, found.excess - found.excess_bound, rtol=0, atol=0)


def best_of_a_grid(target, n):
    """Least 1/p_2 over pairs of layers of equally spaced levels: layer 1 from a grid, s of layer 2 from α2, α3."""
    a, b = (k * target.tau0**2 * float(target.alpha[j] / target.alpha[0]) for k, j in ((2, 2), (4, 1)))
    surfaces, cuts = [], np.linspace(math.log(1e-2), math.log(15.0), 400)
    least = np.full(len(cuts), math.inf)  # 1/u by log s
    for shape in SHAPES:
        x, y = np.meshgrid(np.linspace(-3.6, 3.6, n), np.geomspace(0.01, 7.2, n), indexing="ij")
        t = evaluate(np.stack([x, x + y], axis=-1), shape)
        with np.errstate(all="ignore"):
            u, s, g = (np.where(t.v > 1e-7, f, np.nan) for f in (t.s1**2 / t.v, t.s2**2 / t.s1**2, t.sg / t.v))
            place = (np.log(s) - cuts[0]) / (cuts[1] - cuts[0])
        inside = (place > 0.0) & (place < len(cuts) - 1.0)
        np.minimum.at(least, np.rint(place[inside]).astype(int), 1.0 / u[inside])
        surfaces.append((u, s, g))
    best = math.inf
    for u, s, g in surfaces:
        with np.errstate(all="ignore"):
            first, second = np.log((a - s) / u), np.log((b - s) * u / g**2)
        f = first - second
        for axis in (0, 1):
            low, high = (np.delete(f, k, axis) for k in (-1, 0))
            with np.errstate(invalid="ignore"):
                crossing = (low * high <= 0.0) & (np.abs(low - high) < 0.5)
            weight = low[crossing] / (low[crossing] - high[crossing])
            at = [np.delete(v, -1, axis)[crossing] * (1.0 - weight) + np.delete(v, 0, axis)[crossing] * weight
                  for v in (u, first)]  # fmt: skip
            if crossing.any():
                best = min(best, float((np.interp(at[1], cuts, least, right=math.inf) / at[0]).min()))
    return best


@pytest.mark.parametrize("name", ["relu", "gelu", "softplus"])
def test_tight_is_the_best_of_a_grid(name):
    net = rn.Network([name] * 2)
    target, found = target_of(net, 1.0), rn.match(net, 1.0)
    ridge = found.coefficients.tau[-1] ** 2 / target.unit
    # α2 included, which the bound leaves out; bins of s are 2 % wide, and 1/u rises less than s there
    assert_allclose(ridge, best_of_a_grid(target, 700), rtol=0.02)


def test_parameters_invert():
    for kind, shape, free in itertools.product(
        (GENERAL, ODD, EVEN), ((-1.0, 0.0, 1.0), (1.0, 0.0, 1.0)), (False, True)
    ):
        if (kind == ODD and shape[0] > 0) or (kind == EVEN and shape[0] < 0):
            continue
        problem = Problem(np.array([kind]), (shape,), free, 0, ())
        z = problem.starts(3, 3)[0]
        layer = problem.layers(z)[0]
        again = parameters_of(layer, kind, free)
        n = 2 if kind == GENERAL else 1
        assert_allclose(again[:n], z[:n], rtol=1e-12, atol=1e-12)
