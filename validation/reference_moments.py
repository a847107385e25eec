"""Reference tables of Gaussian moments and dual activations, by mpmath.

    python validation/reference_moments.py            # writes tests/data/moments.json and duals.json, 15 minutes
    python validation/reference_moments.py --quick    # recomputes a few rows and compares them with the tables, 20 s

Moments are integrals against the normal density, or closed forms that are checked against those integrals wherever
both can be computed; duals are integrals over u of σ(u) E[σ(v) | u]. The script does not import rmtntk and has no seed:
nothing in it is random.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import mpmath
import numpy as np
from mpmath import mp, mpf

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import oracles  # noqa: E402 - found through the line above
import oracles_named  # noqa: E402

DPS = 50
DUAL_DPS = 30
TAUS = (1e-3, 0.03, 0.5, 1.0, 2.0, 30.0, 1e3)
TERNARY = {"thresholds": (-0.4, 0.9), "levels": (-1.0, 0.0, 1.0)}
UNEVEN = {"thresholds": (0.3, 0.5, 2.0), "levels": (0.0, 1.0, -0.5, 3.0)}
STEPS = (
    ("step", TERNARY),
    ("step", UNEVEN),
    ("step", {"thresholds": (-0.6, 0.6), "levels": (1.0, 0.0, 1.0)}),
    ("step", {"thresholds": (-2e-3, 1e-3), "levels": (-1.0, 0.0, 1.0)}),
    ("step", {"thresholds": (-2e-3, 1e-3), "levels": (1.0, 0.0, 1.0)}),
    ("step", {"thresholds": (1e-3, 3e-3), "levels": (0.0, 1.0, 0.0)}),
    ("step", {"thresholds": (-40.0, 0.0, 25.0), "levels": (2.0, 0.0, 1.0, -3.0)}),
    ("sign", {}),
    ("heaviside", {}),
)
CLOSED = (
    ("relu", {}),
    ("leaky_relu", {"negative_slope": 0.1}),
    ("abs", {}),
    ("identity", {}),
    ("erf", {}),
    ("polynomial", {"coefficients": (1.0, 2.0, -1.0, 0.5)}),
    ("polynomial", {"coefficients": (0.0, 0.0, 0.0, 1.0)}),
    ("polynomial", {"coefficients": (1000.0, 1.0)}),
    *STEPS,
)
NAMES = ("gelu", "tanh", "sigmoid", "softplus", "silu", "elu", "selu", "sin", "cos", "gaussian")
INTEGRATED = (*((name, {}) for name in NAMES), ("rectified_monomial", {"degree": 2}), ("exp", {"rate": 0.3}))
# Every family's parameters, and the names that came later: at fewer scales
FURTHER = (
    ("ab_relu", {"a": -0.3, "b": 1.7}),
    ("erf", {"amplitude": 1.5, "rate": 0.7, "offset": -0.4}),
    ("sigmoid_like", {}),
    ("sin", {"amplitude": 1.5, "frequency": 0.7, "phase": -0.4}),
    ("cos", {"amplitude": -2.0, "frequency": 1.3, "phase": 0.5}),
    ("rbf", {"gamma": 2.0}),
    ("exp", {"rate": -1.1, "amplitude": -0.6}),
    ("exp_square", {"rate": -1.0}),
    ("exp_square", {"rate": 0.055, "amplitude": 2.0}),
    ("exp_normalized", {"gamma": 1.5, "shift": -1.0}),
    ("rectified_monomial", {"degree": 3}),
    ("rectified_monomial", {"degree": 7}),
    ("monomial", {"degree": 4}),
    ("hermite", {"degree": 6}),
    ("hermite", {"degree": 11}),
    ("elu", {"alpha": 0.5}),
    ("hard_tanh", {}),
    ("softsign", {}),
    ("gelu_tanh", {}),
    ("gabor", {}),
)
FEWER_TAUS = (1e-3, 0.5, 2.0, 1e3)
DUALS = (
    *CLOSED[:5],
    ("polynomial", {"coefficients": (1.0, 2.0, -1.0, 0.5)}),
    ("step", TERNARY),
    ("step", UNEVEN),
    ("sign", {}),
    ("heaviside", {}),
    *((name, {}) for name in ("gelu", "selu", "sin", "cos", "gaussian")),
    ("exp", {"rate": 0.3}),
)
RHOS = (
    -1.0, -1.0 + 1e-12, -0.999, -0.95, -0.93, -0.92, -0.5, 0.0, 1e-9,
    0.3, 0.75, 0.92, 0.93, 0.95, 0.999, 1.0 - 1e-12, 1.0,
)  # fmt: skip
SCALES = ((0.8, 0.8), (0.65, 1.3))  # a power of two apart: rows of ρ = ±1 are exactly parallel


def exists(name, parameters, tau):
    """Whether the moments fit float64."""
    if name == "exp_square" and parameters["rate"] > 0.0:
        return parameters["rate"] * tau**2 < 0.25
    return name != "exp" or abs(parameters["rate"]) * tau < 18.0


def decimal(value):
    """25 digits; 0 for what underflows float64."""
    if value == mp.inf:
        return "inf"
    return "0.0" if abs(value) < mpf(10) ** -290 else mp.nstr(value, 25)


def check(name, parameters, tau, table):
    """Compare a closed form with the integrals, in natural units."""
    if name == "exp_normalized" or table["second"] < mpf(10) ** -20 or tau > 2.0:
        return 0.0
    # The square of exp(a t²) decays like exp(−(1 − 4aτ²) ξ²/2), that of exp(r t) lies about ξ = 2rτ.
    reach = mpf(18)
    if name == "exp_square":
        reach /= mp.sqrt(min(mpf(1), 1 - 4 * mpf(parameters["rate"]) * mpf(tau) ** 2))
    elif name == "exp":
        reach += 2 * abs(mpf(parameters["rate"])) * mpf(tau)
    other = oracles_named.moments_by_quadrature(name, parameters, tau, dps=DPS, reach=reach)
    units = oracles.natural_units(table["second"], mpf(tau))
    worst = max(abs(table[key] - other[key]) / unit for key, unit in units.items())
    if worst > mpf(10) ** -40:
        raise SystemExit(f"the two routes differ by {mp.nstr(worst, 3)} for {name} {parameters} at tau = {tau}")
    return float(worst)


def moment_table(activations, taus):
    rows = []
    for name, parameters in activations:
        for tau in taus:
            if not exists(name, parameters, tau):
                continue
            start = time.perf_counter()
            table = oracles_named.reference_moments(name, parameters, tau)
            closed = oracles.step_of(name, parameters) is not None or name in oracles_named.ANALYTIC
            worst = check(name, parameters, tau, table) if closed else 0.0
            rows.append({"name": name, "parameters": parameters, "tau": tau, **{k: decimal(table[k]) for k in table}})
            seconds = time.perf_counter() - start
            print(f"{name:20s} {tau:8g} {mp.nstr(table['variance'], 12):>20s} {worst:10.1e} {seconds:6.2f} s")
    return rows


def vectors(rho, scales):
    """Rows with correlation close to rho; what matters is the correlation of the floats that are written down."""
    q, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((4, 4)))
    x = scales[0] * q[0]
    if abs(rho) == 1.0:
        return x, rho * (scales[1] / scales[0]) * x
    return x, scales[1] * (rho * q[0] + np.sqrt((1.0 - rho) * (1.0 + rho)) * q[1])


def mean_and_second(name, parameters, variance):
    table = oracles.reference_moments(name, parameters, mp.sqrt(variance))
    return table["mean"], table["second"]


def dual_table(activations, rhos):
    rows = []
    for name, parameters in activations:
        start = time.perf_counter()
        for scales in SCALES:
            for rho in rhos:
                x, y = vectors(rho, scales)
                with mp.workdps(80):
                    var_u, var_v, cov = oracles.exact_gram(x, y)
                    mean_u, second_u = mean_and_second(name, parameters, var_u)
                    mean_v, second_v = mean_and_second(name, parameters, var_v)
                value, slope = oracles.dual(name, parameters, var_u, var_v, cov, dps=DUAL_DPS)
                rows.append({
                    "name": name, "parameters": parameters, "rho": rho, "x": x.tolist(), "y": y.tolist(),
                    "value": decimal(value), "slope": "inf" if slope is None else decimal(slope),
                    "mean_x": decimal(mean_u), "mean_y": decimal(mean_v),
                    "second_x": decimal(second_u), "second_y": decimal(second_v),
                })  # fmt: skip
        print(f"{name:20s} {len(rhos) * len(SCALES):4d} duals {time.perf_counter() - start:8.1f} s")
    return rows


def write(path, dps, rows):
    header = {"script": "validation/reference_moments.py", "mpmath": mpmath.__version__, "dps": dps}
    body = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{json.dumps(header)[:-1]}, "rows": [\n{body}\n]}}\n', encoding="utf-8")
    print(f"{len(rows)} rows -> {path}")


def compare(path, rows):
    """Look recomputed rows up in a committed table; every digit but the last must agree."""
    known = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for row in json.loads(json.dumps(rows)):
        key = {name: row[name] for name in ("name", "parameters", "tau", "rho", "x", "y") if name in row}
        (other,) = [candidate for candidate in known if all(candidate.get(name) == key[name] for name in key)]
        for name in row.keys() - key.keys():
            with mp.workdps(40):
                if abs(mpf(row[name]) - mpf(other[name])) > mpf(10) ** -23 * abs(mpf(other[name])) + mpf(10) ** -28:
                    raise SystemExit(f"{path.name}: {name} of {key} is {other[name]}, recomputed {row[name]}")
    print(f"{len(rows)} rows agree with {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="recompute a few rows and compare, write nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "data", help="folder of the tables")
    parser.add_argument("--tables", nargs="+", choices=("moments", "duals"), default=("moments", "duals"))
    options = parser.parse_args()
    if options.quick:
        compare(options.out / "moments.json", moment_table((CLOSED[0], STEPS[0], *INTEGRATED[1:9:3]), (0.5, 2.0)))
        compare(options.out / "moments.json", moment_table(FURTHER[3:9:5], (0.5, 2.0)))
        compare(options.out / "duals.json", dual_table((CLOSED[0], ("gaussian", {})), (-0.5, 1.0)))
        return
    if "moments" in options.tables:
        write(
            options.out / "moments.json",
            DPS,
            moment_table((*CLOSED, *INTEGRATED), TAUS) + moment_table(FURTHER, FEWER_TAUS),
        )
    if "duals" in options.tables:
        write(options.out / "duals.json", DUAL_DPS, dual_table(DUALS, RHOS))


if __name__ == "__main__":
    main()
