"""Kernels by neural-tangents for small fixed inputs, and mpmath's word where theirs are inexact or wrong.

    python validation/compare_neural_tangents.py            # writes tests/data/neural_tangents.json, under a minute
    python validation/compare_neural_tangents.py --quick    # recomputes a few rows and compares them with the table

neural-tangents is a dependency neither of the package nor of its tests: the script runs in an environment of its own,

    python3.11 -m venv .venv-nt
    .venv-nt/bin/pip install jax==0.4.23 jaxlib==0.4.23 numpy==1.26.4 scipy==1.12.0 frozendict==2.5.1 mpmath
    .venv-nt/bin/pip install --no-deps neural-tangents==0.6.5
    .venv-nt/bin/python validation/compare_neural_tangents.py

and does not import rmtntk; ``tests/test_neural_tangents.py`` compares the table with it. The last lines it prints are
the figures of ``docs/from-neural-tangents.md``.
"""

import argparse
import json
import math
import os
import platform
import sys
import types
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_ENABLE_X64"] = "1"  # before jax is imported; their default is float32
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Its `experimental` needs TensorFlow and is not used here.
sys.modules.setdefault("neural_tangents.experimental", types.ModuleType("neural_tangents.experimental"))

import jax.experimental  # noqa: E402 - after the environment and the stand-in above
import mpmath  # noqa: E402
import numpy as np  # noqa: E402
from mpmath import mp, mpf  # noqa: E402
from neural_tangents import stax  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "data" / "neural_tangents.json"
DPS = 50

# Norms from 0.6 to 2.1 √p, all correlations moderate, five features so that the 1/p is seen.
X = np.array([
    [0.9, -0.4, 1.3, 0.2, -1.1],
    [-0.5, 1.6, 0.7, -0.3, 0.8],
    [1.2, 0.1, -0.6, 0.5, 0.4],
    [2.0, -1.5, 2.6, 0.3, -1.9],
])  # fmt: skip
Y = np.array([[0.3, 0.9, 1.1, -0.8, 0.6], [-1.4, 0.2, -0.7, 1.0, 0.5]])

RECTIFIED = ("Relu", "LeakyRelu", "Abs", "ABRelu")
ACTIVATIONS = (
    ("Identity", {}),
    ("Relu", {}),
    ("LeakyRelu", {"alpha": 0.1}),
    ("Abs", {}),
    ("ABRelu", {"a": -0.3, "b": 1.2}),
    ("Sign", {}),
    ("Erf", {}),
    ("Erf", {"a": 1.3, "b": 0.7, "c": 0.2}),
    ("Erf", {"a": -0.9, "b": -1.1, "c": 0.2}),
    ("Sigmoid_like", {}),
    ("Gelu", {}),
    ("Sin", {}),
    ("Sin", {"a": 1.4, "b": 0.8, "c": 0.5}),
    ("Sin", {"a": -1.0, "b": -0.8, "c": -0.5}),
    ("Cos", {}),
    ("Cos", {"a": 1.4, "b": 0.8, "c": 0.5}),
    ("Rbf", {"gamma": 1.0}),
    ("Rbf", {"gamma": 0.4}),
    ("Exp", {"a": 0.6, "b": 0.5}),
    ("Exp", {"a": -0.6, "b": -0.5}),
    ("Gaussian", {}),
    ("Gaussian", {"a": 1.5, "b": -0.5}),
    ("Gaussian", {"a": -0.5, "b": 0.03}),
    ("Gabor", {}),
    ("ExpNormalized", {"gamma": 1.0, "shift": -1.0}),
    ("ExpNormalized", {"gamma": 0.5, "shift": -0.8}),
    ("Hermite", {"degree": 1}),
    ("Hermite", {"degree": 2}),
    ("Hermite", {"degree": 3}),
    ("Monomial", {"degree": 2}),
    ("Monomial", {"degree": 3}),
    ("Monomial", {"degree": 5}),
    ("Polynomial", {"coef": [0.3, 1.0, -0.2, 0.1]}),
    ("RectifiedMonomial", {"degree": 0}),
    ("RectifiedMonomial", {"degree": 1}),
    ("RectifiedMonomial", {"degree": 2}),
    ("RectifiedMonomial", {"degree": 3}),
)
SCALES = ((1.0, None), (1.3, 0.2))
DEPTHS = (1, 2, 4)
# Functions that grow faster than linearly leave every useful scale (Gaussian(b > 0): every domain) within few layers.
SHALLOW = {"Exp": 2, "Monomial": 2, "Polynomial": 2, "RectifiedMonomial": 2, "Hermite": 2}
MIXED = (  # (W_std, b_std) of every Dense, the readout last
    {"activations": [["Relu", {}], ["Relu", {}]], "dense": [[1.4, 0.1], [0.8, 0.1], [1.0, 0.1]]},
    {"activations": [["Abs", {}], ["Polynomial", {"coef": [0.0, 1.0, 0.2]}]],
     "dense": [[1.1, None], [0.9, None], [0.5, None]]},
    {"activations": [["Erf", {"a": 1.2, "b": 0.8, "c": 0.1}], ["LeakyRelu", {"alpha": 0.2}], ["Sign", {}]],
     "dense": [[1.5, 0.05], [1.5, 0.05], [0.7, 0.05], [1.2, 0.05]]},
    {"activations": [["Gelu", {}], ["Erf", {}]], "dense": [[1.5, 0.05], [1.5, 0.05], [0.7, 0.05]]},
    {"activations": [["Sin", {"a": 1.0, "b": 0.5, "c": 0.3}], ["Erf", {}]], "dense": [[1.2, 0.3]] * 3},
    {"activations": [["Relu", {}], ["Identity", {}], ["Erf", {}]], "dense": [[1.2, 0.3]] * 4},
)  # fmt: skip


def theirs(activations, dense, x, y=None):
    """Return (nngp, ntk) of (Dense, activation) × L, Dense."""
    layers = [stax.Dense(1, W_std=dense[0][0], b_std=dense[0][1])]
    for (name, parameters), (w, b) in zip(activations, dense[1:], strict=True):
        layers += [getattr(stax, name)(**parameters), stax.Dense(1, W_std=w, b_std=b)]
    _, _, kernel_fn = stax.serial(*layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hermite warns of inputs off the sphere: that is the point
        result = kernel_fn(x, y, ("nngp", "ntk"))
    return np.asarray(result.nngp), np.asarray(result.ntk)


# The same kernels in mpmath, for the activations where theirs are inexact somewhere


def arc_cosine(degree, theta):
    """J_n(θ) of Cho and Saul (2009), n ≤ 3, by J_n = (−1)^n sin^{2n+1} (1/sin d/dθ)^n ((π − θ)/sin)."""
    s, c, rest = mp.sin(theta), mp.cos(theta), mp.pi - theta
    return (
        rest,
        s + rest * c,
        3 * s * c + rest * (1 + 2 * c**2),
        4 * s**3 + 15 * s * c**2 + rest * (9 * s**2 * c + 15 * c**3),
    )[degree]


def hermite_dual(degree, qu, qv, c):
    """E[h_d(u) h_d(v)], h_d = He_d/√d!, from the generating function exp(t u − t²/2)."""
    return mp.fsum(
        math.factorial(degree) * ((qu - 1) * (qv - 1) / 4) ** j * c ** (degree - 2 * j)
        / (math.factorial(j) ** 2 * math.factorial(degree - 2 * j))
        for j in range(degree // 2 + 1)
    )  # fmt: skip


def polynomial_dual(coefficients, qu, qv, c):
    """E[p(u) p(v)] by the Hermite coefficients of p at either variance."""
    total = mpf(0)
    for k in range(len(coefficients)):
        sides = [
            mp.fsum(
                mpf(coefficients[n]) * math.factorial(n) * (q / 2) ** ((n - k) // 2) / math.factorial((n - k) // 2)
                for n in range(k, len(coefficients), 2)
            )
            for q in (qu, qv)
        ]
        total += sides[0] * sides[1] * c**k / math.factorial(k)
    return total


def exact_dual(name, parameters, qu, qv, c):
    """(E[σ(u)σ(v)], E[σ'(u)σ'(v)]), or None for smooth activations that theirs evaluate without loss."""
    if name in ("Identity", "Monomial", "Polynomial"):
        p = parameters.get("coef") or [0.0] * parameters.get("degree", 1) + [1.0]
        return polynomial_dual(p, qu, qv, c), polynomial_dual([k * p[k] for k in range(1, len(p))], qu, qv, c)
    if name == "Erf":
        a, b, shift = (mpf(parameters.get(key, default)) for key, default in (("a", 1.0), ("b", 1.0), ("c", 0.0)))
        bottom = (1 + 2 * b**2 * qu) * (1 + 2 * b**2 * qv)
        value = 2 * a**2 / mp.pi * mp.asin(2 * b**2 * c / mp.sqrt(bottom)) + shift**2
        return value, 4 * (a * b) ** 2 / mp.pi / mp.sqrt(bottom - 4 * b**4 * c**2)
    if name == "Hermite":
        d = parameters["degree"]
        return hermite_dual(d, qu, qv, c), d * hermite_dual(d - 1, qu, qv, c)
    norm = mp.sqrt(qu) * mp.sqrt(qv)
    theta = mpf(0) if qu == qv == c else mp.acos(max(mpf(-1), min(mpf(1), c / norm)))
    density = mp.inf if theta == 0 else 1 / (norm * mp.sin(theta))  # of u = v = 0, times 2π
    if name == "Sign":
        return 1 - 2 * theta / mp.pi, 2 / mp.pi * density
    if name == "RectifiedMonomial":
        n = parameters["degree"]
        slope = density if n == 0 else n**2 * norm ** (n - 1) * arc_cosine(n - 1, theta)
        return norm**n * arc_cosine(n, theta) / (2 * mp.pi), slope / (2 * mp.pi)
    if name in RECTIFIED:
        named = {"Relu": (0.0, 1.0), "Abs": (-1.0, 1.0), "LeakyRelu": (parameters.get("alpha"), 1.0)}
        a, b = map(mpf, named.get(name) or (parameters["a"], parameters["b"]))
        same, other = arc_cosine(1, theta), arc_cosine(1, mp.pi - theta)  # signs of u and v equal, opposite
        value = norm * ((a**2 + b**2) * same - 2 * a * b * other) / (2 * mp.pi)
        return value, ((a**2 + b**2) * (mp.pi - theta) + 2 * a * b * theta) / (2 * mp.pi)
    return None


def exact(activations, dense, x, y=None):
    """Return (nngp, ntk) to `DPS` digits, from the floats of the rows, or None."""
    if any(exact_dual(name, parameters, mpf(1), mpf(1), mpf(0)) is None for name, parameters in activations):
        return None
    with mp.workdps(2 * DPS):  # 1 − ρ² loses half the digits on the diagonal
        rows, columns = ([[mpf(float(v)) for v in row] for row in data] for data in (x, x if y is None else y))

        def inner(a, b):
            return mp.fdot(a, b) / len(a)

        nngp, ntk = np.empty((2, len(rows), len(columns)))
        for i, a in enumerate(rows):
            for j, b in enumerate(columns):
                block, theta = [inner(a, a), inner(b, b), inner(a, b)], mpf(0)
                if i == j and y is None:
                    block[2] = block[0]
                for k, (w, bias) in enumerate(dense):
                    block = [mpf(w) ** 2 * q + mpf(bias or 0.0) ** 2 for q in block]
                    theta = block[2] + mpf(w) ** 2 * theta
                    if k < len(activations):
                        act = activations[k]
                        value, slope = exact_dual(*act, *block)
                        theta *= slope
                        block = [exact_dual(*act, q, q, q)[0] for q in block[:2]] + [value]
                        if i == j and y is None:
                            block[2] = block[0]
                nngp[i, j], ntk[i, j] = float(block[2]), float(theta)
        return nngp, ntk


def unit(kernel, other=None):
    """√(K_ii K_jj) of a symmetric kernel."""
    root = np.sqrt(np.diag(kernel))
    return np.outer(root, root if other is None else np.sqrt(np.diag(other)))


# Rows of the table


def plain(array):
    """Nested lists, None for what is not finite."""
    if array.ndim > 1:
        return [plain(row) for row in array]
    return [float(v) if np.isfinite(v) else None for v in array]


def row(activations, dense):
    result = {"activations": activations, "dense": dense}
    for key, y in (("", None), ("_cross", Y)):
        result["nngp" + key], result["ntk" + key] = map(plain, theirs(activations, dense, X, y))
        known = exact(activations, dense, X, y)
        if known is not None:
            result["exact_nngp" + key], result["exact_ntk" + key] = map(plain, known)
    return result


def cases():
    """Everything in the table: one activation at several depths and scales, then mixtures."""
    for name, parameters in ACTIVATIONS:
        for w, b in SCALES:
            for depth in DEPTHS:
                if depth <= SHALLOW.get(name, depth) and not (parameters.get("b", 0.0) == 0.03 and depth > 2):
                    yield [[name, parameters]] * depth, [[w, b]] * (depth + 1)
    for case in MIXED:
        yield case["activations"], case["dense"]


# What is wrong, in numbers


def on_sphere(x):
    return x * np.sqrt(x.shape[1] / (x**2).sum(axis=1, keepdims=True))


def numerical(function, degree, x):
    """Their quadrature of a function of the user's: NNGP of one layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel_fn = stax.serial(stax.Dense(1), stax.ElementwiseNumerical(function, degree), stax.Dense(1))[2]
    return np.asarray(kernel_fn(x, None, "nngp"))


def by_trapezoids(function, x):
    """E[σ(u)σ(v)] of a function analytic near the real line: the trapezoidal rule converges exponentially."""
    cov = x @ x.T / x.shape[1]
    t = np.arange(-12.0, 12.0, 0.05)
    weight = 0.05 * np.exp(-(t**2) / 2.0) / math.sqrt(2.0 * math.pi)
    kernel = np.empty_like(cov)
    for i, j in np.ndindex(*cov.shape):
        spread = math.sqrt(max(0.0, cov[j, j] - cov[i, j] ** 2 / cov[i, i])) if i != j else 0.0
        u = math.sqrt(cov[i, i]) * t
        v = cov[i, j] / math.sqrt(cov[i, i]) * t[:, None] + spread * t
        kernel[i, j] = (weight * function(u)) @ (function(v) @ weight)
    return kernel


def flaws():
    """Deviations of neural-tangents that a user can run into, each with the data that shows it."""
    one = [[1.0, None]] * 2
    found = {}

    got, want = theirs([["Sign", {}]], one, X), exact([["Sign", {}]], one, X)
    off = ~np.eye(len(X), dtype=bool)
    found["sign_ntk"] = {
        "what": "Sign, one layer: NTK off the diagonal / what it should be, smallest ratio; theirs equals the NNGP",
        "ntk_minus_nngp": float(np.abs(got[1] - got[0]).max()),
        "ratio": float((got[1] / want[1])[off].min()),
        "theirs": plain(got[1]),
        "exact": plain(want[1]),
    }

    rows = []
    big = np.random.default_rng(0).standard_normal((64, 500))
    for name, parameters in (("Relu", {}), ("Abs", {}), ("Sign", {})):
        for depth in (1, 4, 16):
            act, dense = [[name, parameters]] * depth, [[math.sqrt(2.0), None]] * (depth + 1)
            for kind in ("float64", "float32"):
                data = big.astype(kind)
                want = np.array([[kernel[0, 0] for kernel in exact(act, dense, x[None])] for x in data]).T
                with jax.experimental.enable_x64(kind == "float64"):
                    got = theirs(act, dense, data)
                assert got[0].dtype == kind
                entry = {"activation": name, "depth": depth, "dtype": kind}
                for key, kernel, diagonal in zip(("nngp", "ntk"), got, want, strict=True):
                    if np.isfinite(diagonal).all():
                        entry[key] = float(np.abs(np.diag(kernel) / diagonal - 1.0).max())
                rows.append(entry)
    found["diagonal"] = {
        "what": "largest relative error of the diagonal, 64 Gaussian rows of 500, W_std = √2",
        "rows": rows,
    }

    rows = []
    for degree in (2, 3):
        for scale in (1.0, 1.1, 1.5):
            x = scale * on_sphere(X)
            got, want = (f([["Hermite", {"degree": degree}]], one, x) for f in (theirs, exact))
            deviation = [float((np.abs(a - b) / unit(b)).max()) for a, b in zip(got, want, strict=True)]
            rows.append({"degree": degree, "rms": scale, "nngp": deviation[0], "ntk": deviation[1]})
    found["hermite"] = {"what": "largest deviation over √(K_ii K_jj), rows of the given root mean square", "rows": rows}

    x = 4.0 * on_sphere(X)
    got = theirs([["Gaussian", {"a": 1.0, "b": 0.2}]], one, x)[0]
    found["gaussian"] = {
        "what": "Gaussian(b=0.2) at variance 16 > 1/(2b): the expectation is infinite; what they give",
        "finite_entries": int(np.isfinite(got).sum()), "entries": got.size, "example": float(got[0, 1]),
    }  # fmt: skip

    # θ near 0 again: what the cancellation in 1 − ρ² does to their derivatives of arccos
    rows = []
    for degree in (0, 1, 2, 3):
        act = [["RectifiedMonomial", {"degree": degree}]]
        got, want = (f(act, one, big) for f in (theirs, lambda a, d, x: exact(a, d, x[:8])))
        entry = {"degree": degree}
        for key, kernel, known in zip(("nngp", "ntk"), got, want, strict=True):
            diagonal = np.diag(kernel)
            entry[key + "_finite"] = f"{int(np.isfinite(diagonal).sum())} of {len(diagonal)}"
            gap = np.abs(kernel[:8, :8] - known) / unit(want[0])
            gap = gap[~np.eye(8, dtype=bool)]
            entry[key + "_off_diagonal"] = float(gap.max())
        rows.append(entry)
    found["rectified"] = {
        "what": "RectifiedMonomial: finite entries of the diagonal; largest error off it over √(K_ii K_jj)",
        "rows": rows,
    }

    rows = []
    for name, function in (("tanh", jax.numpy.tanh), ("relu", jax.nn.relu)):
        want = by_trapezoids(np.tanh, X) if name == "tanh" else exact([["Relu", {}]], one, X)[0]
        for degree in (25, 100):
            got = numerical(function, degree, X)
            rows.append({"function": name, "deg": degree, "nngp": float((np.abs(got - want) / unit(want)).max())})
    found["numerical"] = {"what": "ElementwiseNumerical, one layer: largest error over √(K_ii K_jj)", "rows": rows}
    zero = np.concatenate([X[:1], np.zeros((1, X.shape[1]))])
    found["zero_row"] = {"what": "NNGP and NTK of a zero row without biases, all finite?"}
    for name, parameters in ACTIVATIONS:
        found["zero_row"][name] = bool(np.isfinite(np.stack(theirs([[name, parameters]], one, zero))).all())
    return found


def deviations(rows):
    """Largest deviation of theirs from mpmath per activation, in units of the diagonal."""
    worst = {}
    for entry in rows:
        if "exact_nngp" not in entry:
            continue
        name, *others = dict.fromkeys(name for name, _ in entry["activations"])
        if others:
            continue
        for kind in ("nngp", "ntk"):
            got, want = (np.array(entry[key], dtype=float) for key in (kind, "exact_" + kind))
            gap = np.abs(got - want) / unit(np.array(entry["exact_nngp"] if name == "Sign" else want, dtype=float))
            gap = gap[np.isfinite(gap)]
            worst[name, kind] = max(worst.get((name, kind), 0.0), float(gap.max()) if gap.size else 0.0)
    return worst


def compare(table, rows):
    """Look recomputed rows up in the committed table: theirs to a few ulp of the diagonal, mpmath's to one."""
    for entry in rows:
        (known,) = [r for r in table["rows"] if all(r[k] == entry[k] for k in ("activations", "dense"))]
        for key in entry.keys() - {"activations", "dense"}:
            got, want = (np.array(source[key], dtype=float) for source in (entry, known))
            np.testing.assert_allclose(got, want, rtol=1e-7 if key.startswith("ntk") else 1e-12, err_msg=key)
    print(f"{len(rows)} rows agree with {TABLE.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="recompute a few rows and compare, write nothing")
    parser.add_argument("--out", type=Path, default=TABLE, help="file to write")
    options = parser.parse_args()
    if options.quick:
        chosen = list(cases())[::23]
        compare(json.loads(TABLE.read_text(encoding="utf-8")), json.loads(json.dumps([row(*case) for case in chosen])))
        return
    rows = []
    for activations, dense in cases():
        rows.append(row(activations, dense))
        finite = np.isfinite(np.array(rows[-1]["ntk"], dtype=float)).all()
        print(f"{' '.join(name for name, _ in activations):70s} {dense[0]} {'' if finite else 'not finite'}")
    found = flaws()
    packages = ("neural-tangents", "jax", "jaxlib", "numpy", "scipy", "mpmath")
    header = {
        "script": "validation/compare_neural_tangents.py",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "dps": DPS,
        "x": X.tolist(),
        "y": Y.tolist(),
        "flaws": found,
    }
    assert mpmath.__version__ == header["versions"]["mpmath"]
    body = ",\n".join(json.dumps(entry) for entry in rows)
    options.out.write_text(f'{json.dumps(header)[:-1]}, "rows": [\n{body}\n]}}\n', encoding="utf-8")
    print(f"{len(rows)} rows -> {options.out.name}")
    for (name, kind), value in deviations(rows).items():
        print(f"{name:20s} {kind:5s} off by up to {value:.1e} of the diagonal")
    for name, entry in found.items():
        print(f"{name}: {entry['what']}")
        for item in entry.get("rows", [entry]):
            print("   ", ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in item.items()
                                   if k not in ("what", "theirs", "exact")))  # fmt: skip


if __name__ == "__main__":
    main()
