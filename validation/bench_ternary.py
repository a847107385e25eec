"""Time of ternary arithmetic: products by bit planes, features of whole networks, one row at a time.

Rivals run in turn with ours, so that a busy machine slows both: dense float32 products and networks in NumPy, and
int8 products of torch where it is installed. The floor is what the processor allows: the time of as many popcounts,
each with its AND, XOR and sum, as there are words, all in registers, measured in the same run with the same number of
threads (for a first layer in bytes, of as many of their products); or, where that is more, the time to read weights
and write features once at the bandwidth of a copy. The rate of popcounts alone is printed as well. Numbers depend on
the BLAS: with OpenBLAS, OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE should be unset.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import _common
import numpy as np

import rmtntk as rn
from rmtntk import integer
from rmtntk._jit import bitplane, bytedot
from rmtntk._threads import run
from rmtntk.packing import pack, sample_ternary
from rmtntk.ternary.forward import Forward
from rmtntk.ternary.parts import InputQuantiser, Preprocessing

REST, BUSY = 0.25, 0.1  # seconds
REPEATS = 7
STEPS = {
    "{-1,0,1}": [-1.0, 0.0, 1.0],
    "{1,0,1}": [1.0, 0.0, 1.0],
    "4 equal": [-1.5, -0.5, 0.5, 1.5],
    "5 free": [-1.0, -0.37, 0.11, 0.83, 1.9],
}


def alternate(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """Return median and smallest seconds of every call; the calls take turns, after one round to warm up.

    A turn is a rest, calls for a tenth of a second that do not count, and the mean of calls for another. For a tenth of
    a second after a product the threads of OpenBLAS go on spinning, and would take a core from whoever comes next.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(repeats + 1):
        for name, call in calls.items():
            time.sleep(REST)
            _calls(call)
            if k > 0:
                times[name].append(_calls(call))
    return {name: (statistics.median(some), min(some)) for name, some in times.items()}


def _calls(call: Callable[[], Any]) -> float:
    """Mean seconds of a call, over a tenth of a second or one call."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < BUSY:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def popcount_rate(threads: int, full: bool) -> float:
    """Return words per second, over all threads, of popcounts in registers: alone, or with AND, XOR and the sum."""
    times, rounds = 2_000_000, []
    bitplane.popcounts(1, full)
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(lambda _: bitplane.popcounts(times, full), threads)
        rounds.append(time.perf_counter() - start)
    return threads * times * 16 * 8 / min(rounds)


def byte_rate(threads: int) -> float:
    """Return products of bytes per second in the first cache, over all threads; 0 if there is no such instruction."""
    if not bytedot.available():
        return 0.0
    quads, times, rounds = 64, 20_000, []
    panel, codes = np.zeros(quads * bytedot.NEURONS, dtype=np.int32), np.zeros(quads * bytedot.ROWS, dtype=np.int32)
    start, sums = np.zeros(bytedot.NEURONS, dtype=np.int32), np.zeros((threads, 512), dtype=np.int64)
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run(lambda k: bytedot.repeat(panel, quads, codes, start, sums[k], times), threads)
        rounds.append(time.perf_counter() - begin)
    return threads * times * 4 * quads * bytedot.ROWS * bytedot.NEURONS / min(rounds)


def copy_rate() -> float:
    """Return bytes per second read and written by a copy that does not fit into a cache."""
    source = np.ones(1 << 26, dtype=np.uint8)
    target = np.empty_like(source)
    seconds = min(alternate({"copy": lambda: np.copyto(target, source)}, REPEATS)["copy"])
    return 2 * source.nbytes / seconds


def int8_torch(left: np.ndarray, right: np.ndarray) -> Callable[[], Any] | None:
    """Return torch's int8 product left · rightᵀ, or None without torch."""
    try:
        import torch
    except ImportError:
        return None
    a, b = torch.from_numpy(left), torch.from_numpy(right).t()
    torch.set_num_threads(rn.get_num_threads())
    return lambda: torch._int_mm(a, b)


def products(size: int, columns: int, seed: int, rate: float, repeats: int) -> list[dict[str, Any]]:
    """Time (size × size) by (size × columns) products of ternary matrices."""
    rng = np.random.default_rng(seed)
    rows = []
    for sparsity in (0.0, 0.9):
        weights = sample_ternary(size, size, sparsity, rng)
        inputs = sample_ternary(columns, size, 1.0 / 3.0, rng)
        packed, packed_inputs = pack(weights), pack(inputs)
        dense, dense_inputs = weights.astype(np.float32), inputs.astype(np.float32)
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda a=packed, b=packed_inputs: integer.multiply(a, b),
            "numpy float32": lambda a=dense, b=dense_inputs: a @ b.T,
        }
        torch = int8_torch(inputs, weights)
        if torch is not None:
            calls["torch int8"] = torch
        assert (integer.multiply(packed, packed_inputs) == (dense_inputs @ dense.T)).all()
        times = alternate(calls, repeats)
        floor = 2.0 * packed.nonzero.size * columns / rate
        rows.append({"size": size, "columns": columns, "sparsity": sparsity, "times": times, "floor": floor})
        show(f"product {size}² × {columns}, ε = {sparsity:g}", times, floor)
    return rows


def network(
    sizes: tuple[int, ...], levels: list[float], sparsity: float, seed: int
) -> tuple[Forward, Callable[[np.ndarray], np.ndarray]]:
    """Return a ternary network on pixels, and a dense one of ReLU and Gaussian weights on float32."""
    rng = np.random.default_rng(seed)
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    packed = [pack(sample_ternary(*shape, sparsity, rng)) for shape in shapes]
    act = rn.activations.step(np.linspace(-0.6, 0.6, len(levels) - 1), levels)
    net = rn.Network([act] * len(shapes), tau0=1.0)
    mean = rng.uniform(60.0, 190.0, sizes[0])
    quantiser, preprocessing = InputQuantiser(8, 0.0, 1.0), Preprocessing(mean, 74.0 * np.sqrt(sizes[0]))
    forward = Forward(net, packed, sparsity, quantiser=quantiser, preprocessing=preprocessing)
    dense = [(rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32) for shape in shapes]

    def relu(x: np.ndarray) -> np.ndarray:
        for weight in dense:
            x = x @ weight.T
            np.maximum(x, 0.0, out=x)
        return x

    return forward, relu


def floor_of(layers: Sequence[integer.IntegerLayer], count: int, rates: dict[str, float], moved: int) -> float:
    """Return the seconds that counts of bits and products of bytes take, or memory; one row has one thread."""
    counts, bytes_ = 0, 0
    for k, layer in enumerate(layers):
        planes = len(layer.prepared.coefficients)
        if k == 0 and planes > 3 and count > 1 and rates["byte products"]:
            bytes_ += layer.weights.size
        else:
            counts += layer.weights.nonzero.size * planes
    seconds = counts / rates["words"] + (bytes_ / rates["byte products"] if bytes_ else 0.0)
    return max(seconds * count * (rn.get_num_threads() if count == 1 else 1), moved / rates["copy"])


def networks(sizes: tuple[int, ...], n: int, seed: int, rates: dict[str, float], repeats: int) -> list[dict[str, Any]]:
    """Time features of many rows and of one."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, sizes[0])).astype(np.uint8)
    single = pixels.astype(np.float32)
    rows = []
    for name, levels in STEPS.items():
        for sparsity in (0.0, 0.9) if name == "{-1,0,1}" else (0.0,):
            forward, relu = network(sizes, levels, sparsity, seed)
            layers = forward.network.layers
            some = pixels[:50]
            assert (forward.network.codes(some) == forward.network.reference(some)).all()
            label = f"{'-'.join(map(str, sizes))}, {name}, ε = {sparsity:g}"
            for count, turns in ((n, repeats), (1, repeats)):
                data, plain = pixels[:count], single[:count]
                calls = {"ours": partial(forward, data), "numpy float32": partial(relu, plain)}
                times = alternate(calls, turns)
                moved = sum(layer.weights.nbytes for layer in layers) + count * (sizes[0] + 8 * sizes[-1])
                floor = floor_of(layers, count, rates, moved)
                planes = [len(layer.prepared.coefficients) for layer in layers]
                rows.append({"sizes": sizes, "levels": name, "sparsity": sparsity, "rows": count, "planes": planes,
                             "times": times, "floor": floor, "nbytes": forward.nbytes})  # fmt: skip
                show(f"{count} row(s), {label}", times, floor)
    return rows


def show(label: str, times: dict[str, tuple[float, float]], floor: float) -> None:
    """Print one line."""
    ours = times["ours"]
    text = f"{label:48s}{1e3 * ours[0]:10.3f} ({1e3 * ours[1]:.3f}) ms, {ours[1] / floor:5.2f} × floor"
    for name, other in times.items():
        if name != "ours":
            text += f"; {name} {1e3 * other[0]:.3f} ({1e3 * other[1]:.3f}) ms = {other[0] / ours[0]:.2f} ×"
    print(text, flush=True)


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    args = parser.parse_args()
    repeats = 2 if args.quick else REPEATS
    threads = rn.get_num_threads()
    rates = {
        "popcounts": popcount_rate(threads, False),
        "words": popcount_rate(threads, True),
        "byte products": byte_rate(threads),
        "copy": copy_rate(),
    }
    print(
        f"{threads} threads; {rates['words'] / 1e9:.1f} G words/s of AND + XOR + popcount + add, "
        f"{rates['popcounts'] / 1e9:.1f} G of popcount alone; "
        f"{rates['byte products'] / 1e9:.0f} G products of bytes/s; copy {rates['copy'] / 1e9:.1f} GB/s"
    )
    print("median (smallest); ratios are of medians, of ours to the floor of smallest")
    product = products(512 if args.quick else 4096, 256 if args.quick else 1024, args.seed, rates["words"], repeats)
    sizes = (784, 200, 200, 100) if args.quick else (784, 2000, 2000, 1000)
    whole = networks(sizes, 500 if args.quick else 10_000, args.seed, rates, repeats)
    by_key = {(row["levels"], row["sparsity"], row["rows"]): row["times"]["ours"][0] for row in whole}
    for count in sorted({row["rows"] for row in whole}):
        ratio = by_key["{-1,0,1}", 0.0, count] / by_key["{-1,0,1}", 0.9, count]
        print(f"ε = .9 against 0, {count} row(s): {ratio:.2f} × as fast")
    settings = {key: os.environ.get(key) for key in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS")}
    content = {"environment": settings, "per_second": rates, "products": product,
               "networks": whole}  # fmt: skip
    print(f"wrote {_common.save(args.out, 'bench_ternary', args, content)}")


if __name__ == "__main__":
    main()
