"""Time and memory of the empirical kernels of finite networks.

400 samples of 784 features, three layers of width 1000; the floor is the time of the matrix products alone, in
the same dtype, into arrays that exist already. Where torch is installed, its Jacobian NTK (torch.func) is timed as
well. Numbers depend on the BLAS: with OpenBLAS, OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE should be unset.
"""

import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import _common
import numpy as np

import rmtntk as rn
from rmtntk.finite import LAWS

ACTIVATIONS = ("relu", "tanh", "gelu")
REPEATS = 5


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the median and the smallest time of five calls after two to warm up."""
    call()
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def peak(call: Callable[[], Any]) -> int:
    """Return the most memory, in bytes, that NumPy held at once during the call, the result included."""
    tracemalloc.start()
    call()
    result = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result


def floor(n: int, sizes: tuple[int, ...], kernel: str, dtype: Any, seed: int) -> Callable[[], None]:
    """Return a call that does the matrix products of a kernel and nothing else."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((n, size)).astype(dtype) for size in sizes]
    weights = [rng.standard_normal(shape).astype(dtype) for shape in zip(sizes[1:], sizes[:-1], strict=True)]
    gram = np.empty((n, n), dtype=dtype)
    spare = [np.empty_like(row) for row in rows]

    def run() -> None:
        for k, weight in enumerate(weights):
            np.matmul(rows[k], weight.T, out=spare[k + 1])
        np.matmul(rows[-1], rows[-1].T, out=gram)
        if kernel == "ntk":
            for k in range(len(weights) - 1, 0, -1):
                np.matmul(rows[k + 1], weights[k], out=spare[k])
            for row in (*rows[:-1], *rows[1:]):
                np.matmul(row, row.T, out=gram)

    return run


def torch_jacobian(finite: rn.FiniteNetwork, x: np.ndarray, dtype: Any) -> Callable[[], Any] | None:
    """Return the same NTK by torch.func, for ReLU without centring, or None without torch."""
    try:
        import torch
        from torch.func import functional_call, jacrev, vmap
    except ImportError:
        return None
    kind = torch.float32 if dtype == np.float32 else torch.float64
    layers: list[Any] = []
    for weight in finite.weights:
        layers += [torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False), torch.nn.ReLU()]
    layers.append(torch.nn.Linear(len(finite.weights[-1]), 1, bias=False))
    model = torch.nn.Sequential(*layers).to(kind)
    names = [name for name, _ in model.named_parameters()]
    # The 1/√width enters as a factor of the unit-variance parameter, so that the gradient is in the latter.
    widths = [1, *finite.widths]
    arrays = [*finite.weights, finite.readout[None, :]]
    parameters = {name: torch.tensor(array, dtype=kind) for name, array in zip(names, arrays, strict=True)}
    data = torch.tensor(x, dtype=kind)

    def single(values: dict[str, Any], row: Any) -> Any:
        scaled = {name: values[name] / width**0.5 for name, width in zip(names, widths, strict=True)}
        return functional_call(model, scaled, (row[None, :],))[0, 0]

    def run() -> Any:
        blocks = vmap(jacrev(single), (None, 0))(parameters, data)
        return sum(block.flatten(1) @ block.flatten(1).T for block in blocks.values())

    return run


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    args = parser.parse_args()
    n, p, width = (100, 100, 200) if args.quick else (400, 784, 1000)
    widths, sizes = (width,) * 3, (p, width, width, width)
    x = np.random.default_rng(args.seed).standard_normal((n, p)) / np.sqrt(p)
    draws = [(law, 0.0) for law in LAWS] + [("ternary", 0.9)]
    rows: list[dict[str, Any]] = []
    print(f"n = {n}, p = {p}, widths {widths}; median of {REPEATS} (smallest); error in units of the largest diagonal")
    print(f"{'':34s}{'ms':>16s}{'floor':>8s}{'ratio':>7s}{'MiB':>7s}{'error':>9s}")
    for dtype in (np.float32, np.float64):
        for kernel in ("ck", "ntk"):
            base, least = seconds(floor(n, sizes, kernel, dtype, args.seed))
            for name in ACTIVATIONS:
                for law, sparsity in draws if name == "relu" else draws[:1]:
                    network = rn.FiniteNetwork.sample(
                        rn.Network([name] * 3), widths, p, args.seed, law=law, sparsity=sparsity
                    )
                    call = getattr(network, kernel)
                    exact = call(x)
                    error = float(np.abs(call(x, dtype=dtype) - exact).max() / exact.diagonal().max())
                    median, smallest = seconds(lambda call=call, dtype=dtype: call(x, dtype=dtype))
                    memory = peak(lambda call=call, dtype=dtype: call(x, dtype=dtype))
                    rows.append(
                        {
                            "kernel": kernel,
                            "dtype": np.dtype(dtype).name,
                            "activation": name,
                            "law": law,
                            "sparsity": sparsity,
                            "seconds": median,
                            "seconds_min": smallest,
                            "floor": base,
                            "floor_min": least,
                            "peak_bytes": memory,
                            "error": error,
                        }
                    )
                    label = f"{kernel:4s}{np.dtype(dtype).name:8s} {name:5s} {law:9s}{sparsity:4.1f}"
                    print(
                        f"{label:34s}{1e3 * median:8.1f} ({1e3 * smallest:5.1f}){1e3 * base:8.1f}"
                        f"{smallest / least:7.2f}{memory / 2**20:7.1f}{error:9.1e}"
                    )
    rival = None
    finite = rn.FiniteNetwork.sample(rn.Network(["relu"] * 3, centered=False), widths, p, args.seed)
    run = torch_jacobian(finite, x, np.float32)
    if run is None:
        print("torch.func: skipped, torch is not installed")
    else:
        ours = finite.ntk(x)
        gap = float(np.abs(run().detach().numpy() - ours).max() / ours.diagonal().max())
        median, smallest = seconds(run)
        rival = {"seconds": median, "seconds_min": smallest, "gap": gap}
        print(f"torch.func Jacobian NTK, float32: {median:.2f} s ({smallest:.2f}), differs from ours by {gap:.1e}")
    settings = {key: os.environ.get(key) for key in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS")}
    content = {"n": n, "p": p, "widths": widths, "environment": settings, "rows": rows, "torch": rival}
    path = _common.save(args.out, "bench_finite", args, content)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
