r"""Time and memory of kernels, as ratios to NumPy's `x @ x.T` in the same run, and how far from the machine's limit.

Every figure is the median of several runs after a warm-up, with the product timed before and after each. Set
OPENBLAS_NUM_THREADS and NUMBA_NUM_THREADS alike if other numbers of threads are wanted. With ``--rival`` the same
kernel is timed in neural-tangents, if the running environment has it.
"""

import argparse
import json
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, save

import rmtntk as rn
from rmtntk import activations

P = 784
DEPTH = 3
# NumPy's own symmetric product crashed at n = 16,000 (NumPy 2.4.6 from its wheel, OpenBLAS 0.3.31, AVX-512 kernels).
LARGEST_PRODUCT = 10_000


def median_time(call: Callable[[], Any], repeats: int) -> float:
    """Return the median of `repeats` runs, in seconds, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def data(n: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """Return rows of about unit norm, their norms spread by a few per cent."""
    return (np.random.default_rng(seed).standard_normal((n, P)) / np.sqrt(P)).astype(dtype)


def against_product(call: Callable[[], Any], product: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the times of a call and of NumPy's product, the latter measured on both sides of the former."""
    before = median_time(product, repeats)
    own = median_time(call, repeats)
    return own, 0.5 * (before + median_time(product, repeats))


def machine(n: int, dtype: Any, repeats: int) -> dict[str, float]:
    """Measure what bounds a kernel from below: the rate of a general product and of writing fresh memory."""
    x = data(n, dtype)
    y = x.copy()
    seconds = median_time(lambda: x @ y.T, repeats)
    fresh = median_time(lambda: np.full((n, n), 1.0, dtype=dtype), repeats)
    return {
        "gemm_gflops": 2.0 * n * n * P / seconds / 1e9,
        "fresh_gbytes_per_second": n * n * np.dtype(dtype).itemsize / fresh / 1e9,
    }


def floor(n: int, dtype: Any, rates: dict[str, float], kernels: int) -> float:
    """Seconds that half a product at the general product's rate and writing the outputs take at least."""
    product = n * n * P / (rates["gemm_gflops"] * 1e9)
    written = kernels * n * n * np.dtype(dtype).itemsize / (rates["fresh_gbytes_per_second"] * 1e9)
    return product + written


NETWORKS: dict[str, tuple[Any, float]] = {  # activation of all three layers, largest ratio wanted in float64
    "relu": ("relu", 1.2),
    "leaky_relu(0.1)": (activations.leaky_relu(0.1), 2.0),
    "erf": ("erf", 2.0),
    "gelu": ("gelu", 2.0),
    "sin": ("sin", 2.0),
    "tanh": ("tanh", 4.0),
    "silu": ("silu", 4.0),
    "custom t/(1+t²)": (
        activations.custom(lambda t: t / (1 + t * t), derivative=lambda t: (1 - t * t) / (1 + t * t) ** 2),
        4.0,
    ),
    "step of 3 levels": (activations.step([-0.6, 0.8], [-1.0, 0.0, 1.0]), 4.0),
    "elu": ("elu", 4.0),
    "sign": ("sign", 4.0),
}


def families(n: int, repeats: int) -> list[dict[str, Any]]:
    """CK and NTK of three layers for every family, in both types."""
    rows = []
    print(f"\nCK and NTK, {DEPTH} layers, n = {n}, p = {P}: ratio to x @ x.T (target) and to the floor")
    for dtype in (np.float64, np.float32):
        x = data(n, dtype)
        rates = machine(n, dtype, repeats)
        least = floor(n, dtype, rates, 2)
        print(f"  {np.dtype(dtype).name}: product {rates['gemm_gflops']:.0f} Gflop/s, fresh memory "
              f"{rates['fresh_gbytes_per_second']:.1f} GB/s, floor {least:.3f} s")  # fmt: skip
        for name, (act, target) in NETWORKS.items():
            net = rn.Network([act] * DEPTH)
            if dtype == np.float32:
                target = 1.0 if name == "relu" else target

            def call(net: Any = net, x: Any = x, dtype: Any = dtype) -> Any:
                return rn.ck_ntk(net, x, dtype=dtype, diagonal=0.0)

            own, product = against_product(call, lambda x=x: x @ x.T, repeats)
            rows.append(
                {"network": name, "dtype": np.dtype(dtype).name, "seconds": own, "product": product,
                 "ratio": own / product, "target": target, "over_floor": own / least, **rates}
            )  # fmt: skip
            print(f"    {name:18s} {own:7.3f} s  {own / product:5.2f} × ({target:.1f})  {own / least:5.2f} × floor")
    return rows


def sizes(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    """Growth with n: time, and ratio to the product."""
    rows = []
    print("\nReLU × 3, float64, over n")
    for n in counts:
        x = data(n)
        net = rn.Network(["relu"] * DEPTH)
        own = median_time(lambda net=net, x=x: rn.ck_ntk(net, x), repeats)
        row: dict[str, Any] = {"n": n, "seconds": own}
        line = f"  n = {n:6d}  {1e3 * own:9.3f} ms  {1e9 * own / n**2:6.2f} ns/n²"
        if n <= LARGEST_PRODUCT:
            product = median_time(lambda x=x: x @ x.T, repeats)
            allowed = 1.5 * product + 50e-6
            row.update(product=product, ratio=own / product, allowed=allowed)
            line += f"  {own / product:5.2f} × product  (1.5 × + 50 µs: {1e3 * allowed:.3f} ms)"
        rows.append(row)
        print(line)
    return rows


def depths(n: int, layers: list[int], repeats: int) -> list[dict[str, Any]]:
    """Growth with depth beyond the product."""
    rows = []
    x = data(n)
    product = median_time(lambda: x @ x.T, repeats)
    print(f"\nOver depth, n = {n}, float64: seconds, and seconds a layer beyond L = 1")
    for name in ("relu", "erf", "tanh"):
        first = 0.0
        for depth in layers:
            own = median_time(lambda name=name, depth=depth: rn.ck_ntk(rn.Network([name] * depth), x), repeats)
            first = own if depth == layers[0] else first
            each = (own - first) / (depth - layers[0]) if depth > layers[0] else 0.0
            rows.append({"network": name, "depth": depth, "seconds": own, "ratio": own / product, "per_layer": each})
            print(f"  {name:5s} L = {depth:3d}  {own:7.3f} s  {own / product:6.2f} ×   {each:7.4f} s/layer")
    return rows


def shapes(repeats: int) -> list[dict[str, Any]]:
    """Rectangular kernels against NumPy's product of the same shape."""
    rows = []
    print("\nReLU × 3, float64, rectangular (n, m)")
    for n, m in ((100, 8000), (8000, 100), (2000, 6000), (1, 8000)):
        x, y = data(n), data(m, seed=1)
        net = rn.Network(["relu"] * DEPTH)
        own, product = against_product(
            lambda net=net, x=x, y=y: rn.ck_ntk(net, x, y), lambda x=x, y=y: x @ y.T, repeats
        )
        allowed = 1.5 * product + 50e-6
        rows.append({"n": n, "m": m, "seconds": own, "product": product, "ratio": own / product, "allowed": allowed})
        print(f"  {n:5d} × {m:5d}  {1e3 * own:8.3f} ms  {own / product:5.2f} × product"
              f"  (1.5 × + 50 µs: {1e3 * allowed:.3f} ms)")  # fmt: skip
    return rows


def threads(n: int, repeats: int) -> list[dict[str, Any]]:
    """Scaling with threads, with bitwise equality checked on the way."""
    rows = []
    print(f"\nThreads, n = {n}, float64")
    top = rn.get_num_threads()
    for name in ("relu", "tanh"):
        x, net, want = data(n), rn.Network([name] * DEPTH), None
        for count in sorted({1, top}):
            rn.set_num_threads(count)
            found = rn.ck_ntk(net, x)
            want = found if want is None else want
            equal = all((a == b).all() for a, b in zip(want, found, strict=True))
            seconds = median_time(lambda net=net, x=x: rn.ck_ntk(net, x), repeats)
            rows.append({"network": name, "threads": count, "seconds": seconds, "bitwise_equal": equal})
            print(f"  {name:5s} {count} thread(s)  {seconds:7.3f} s  bitwise equal: {equal}")
    rn.set_num_threads(None)
    return rows


MEMORY = """
import json, resource, sys
import numpy as np, rmtntk as rn
n, name, dtype = int(sys.argv[1]), sys.argv[2], np.dtype(sys.argv[3])
x = (np.random.default_rng(0).standard_normal((n, 784)) / 28.0).astype(dtype)
net = rn.Network([name] * 3)
rn.ck_ntk(net, x[:200], dtype=dtype)
def high():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
def now():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
before = now()
pair = rn.ck_ntk(net, x, dtype=dtype)
print(json.dumps({"outputs": sum(k.nbytes for k in pair), "extra": high() - before - sum(k.nbytes for k in pair)}))
"""


def memory(n: int) -> list[dict[str, Any]]:
    """Peak memory beyond the outputs, each in a process of its own (Linux)."""
    rows: list[dict[str, Any]] = []
    if not Path("/proc/self/status").exists():
        return rows
    print(f"\nPeak memory beyond the outputs, n = {n}")
    for name in ("relu", "tanh", "elu"):
        for dtype in ("float64", "float32"):
            done = subprocess.run(
                [sys.executable, "-c", MEMORY, str(n), name, dtype], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout)
            rows.append({"network": name, "dtype": dtype, **found})
            print(
                f"  {name:5s} {dtype}  outputs {found['outputs'] / 2**20:7.0f} MiB"
                f"  beyond {found['extra'] / 2**20:6.1f} MiB"
            )
    return rows


def rival(n: int, repeats: int) -> dict[str, Any] | None:
    """Time neural-tangents on the same kernel, if it is there."""
    # Its experimental part wants TensorFlow, which nothing here needs.
    sys.modules.setdefault("neural_tangents.experimental", types.ModuleType("neural_tangents.experimental"))
    try:
        import jax

        jax.config.update("jax_enable_x64", True)
        from neural_tangents import stax
    except ImportError as error:
        print(f"\nneural-tangents is not installed here ({error}): see docs/from-neural-tangents.md for its versions")
        return None
    layers = [layer for _ in range(DEPTH) for layer in (stax.Dense(1), stax.Relu())]
    _, _, kernel = stax.serial(*layers, stax.Dense(1))
    compiled = jax.jit(lambda x: kernel(x, None, ("nngp", "ntk")))
    x = data(n) * np.sqrt(P)
    theirs = median_time(lambda: jax.block_until_ready(compiled(x)), repeats)
    net = rn.Network(["relu"] * DEPTH, centered=False, input_scaling="fan_in")
    own = median_time(lambda: rn.ck_ntk(net, x), repeats)
    print(f"\nneural-tangents, ReLU × 3, n = {n}, float64: {theirs:.2f} s, rmtntk {own:.2f} s: {theirs / own:.1f} ×")
    return {"n": n, "neural_tangents": theirs, "rmtntk": own, "ratio": theirs / own}


def main() -> None:
    """Run the tables and save them."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rival", action="store_true", help="time neural-tangents as well, if installed")
    options.add_argument("--rival-only", action="store_true", help="time neural-tangents and nothing else")
    options.add_argument("--skip-families", action="store_true", help="all tables but the first")
    options.add_argument("--repeats", type=int, default=5)
    args: argparse.Namespace = options.parse_args()
    n, repeats = (1000, 3) if args.quick else (8000, args.repeats)
    print(f"rmtntk {rn.__version__}, NumPy {np.__version__}, {rn.get_num_threads()} thread(s)")
    if args.rival_only:
        print("\n", save(args.out, "bench_rival", args, {"rival": rival(n, repeats)}))
        return
    results: dict[str, Any] = {
        "families": [] if args.skip_families else families(n, repeats),
        "sizes": sizes([100, 500, 1000] if args.quick else [100, 500, 1000, 2000, 4000, 8000, 16000], repeats),
        "depths": depths(n // 2, [1, 4] if args.quick else [1, 2, 4, 8, 16, 32], repeats),
        "shapes": shapes(repeats),
        "threads": threads(n // 2, repeats),
        "memory": memory(n // 2 if args.quick else n),
    }
    if args.rival:
        results["rival"] = rival(n, repeats)
    print("\n", save(args.out, "bench_kernels", args, results))


if __name__ == "__main__":
    main()
