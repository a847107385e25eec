r"""Kernels on disk: time against the in-memory rate, peak memory against its limit, bytes, and products from disk.

CK and NTK of three ReLU layers in float32, p = 784. Every size is measured in a process of its own, whose peak memory
is the system's VmHWM (Linux). The in-memory rate is that of `rn.ck_ntk` on as many rows as fit, per n². Targets: at
n = 30,000 within 2 GiB, in at most twice the time at the in-memory rate.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import parser, save

MEASURE = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import rmtntk as rn
from rmtntk.store import KernelMatrix

n, tile, limit, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
rows, repeats = int(sys.argv[5]), int(sys.argv[6])
x = np.random.default_rng(0).standard_normal((n, 784), dtype=np.float32) / np.float32(28)
net = rn.Network(["relu"] * 3)
path = Path(folder) / "k"
found = {"n": n, "tile": tile, "memory_limit": limit}

def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result

def peak():
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except OSError:
        return None

small = np.random.default_rng(1).standard_normal((700, 784), dtype=np.float32)
rn.ck_ntk(net, small, small[:300], dtype="float32"), rn.ck_ntk(net, small, dtype="float32")
KernelMatrix.compute(net, small, folder + "/warm", kind=("ck", "ntk"), tile=200, dtype="float32")
options = dict(kind=("ck", "ntk"), tile=tile, dtype="float32", memory_limit=limit, progress=False)
found["seconds"], (ck, ntk) = timed(lambda: KernelMatrix.compute(net, x, path, **options))
found["peak"] = peak()
found["bytes"] = ck.nbytes_stored + ntk.nbytes_stored
found["raw_bytes"] = 2 * 4 * ck._source.grid.n_entries
found["verify_seconds"], _ = timed(lambda: KernelMatrix.compute(net, x, path, **options))
v = np.random.default_rng(2).standard_normal((n, 10), dtype=np.float32)
found["product_seconds"], product = timed(lambda: ntk @ v)
found["product64_seconds"], product = timed(lambda: ntk @ v.astype(np.float64))
found["row_seconds"], _ = timed(lambda: KernelMatrix.open(path, kind="ntk", cache=0)[n // 2])
live = KernelMatrix.on_the_fly(net, x, kind="ntk", tile=tile, dtype="float32", memory_limit=limit)
found["live_estimate"] = live.cost().seconds
found["live_seconds"], again = timed(lambda: live @ v.astype(np.float64))
found["live_difference"] = float(np.abs(again - product).max() / np.abs(product).max())
found["peak_after"] = peak()
blocks = live._source.blocks
places = list(live._source.grid.tiles())[::4]
found["tiles_seconds"], _ = timed(lambda: [blocks.tile(live._source.grid, *place) for place in places])
found["tiles_seconds"] *= live.n_tiles / len(places)
def plain(worker):
    content = np.random.default_rng(worker).bytes(found["bytes"] // (2 * ck.n_tiles))
    for k in range(ck.n_tiles):
        (Path(folder) / f"plain-{worker}-{k}").write_bytes(content)

with ThreadPoolExecutor(2) as pool:
    found["plain_seconds"], _ = timed(lambda: list(pool.map(plain, range(2))))
times = [timed(lambda: rn.ck_ntk(net, x[:rows], dtype="float32"))[0] for _ in range(repeats + 1)][1:]
found["memory_rows"] = min(rows, n)
found["memory_seconds"] = float(np.median(times)) * (n / min(rows, n)) ** 2
print(json.dumps(found))
"""


def measure(n: int, tile: int, limit: str, folder: Path | None, rows: int, repeats: int) -> dict[str, Any]:
    """Return the figures of one size."""
    room = Path(tempfile.mkdtemp(prefix="rmtntk-bench-", dir=folder))
    try:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(n), str(tile), limit, str(room), str(rows), str(repeats)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def show(row: dict[str, Any]) -> None:
    """Print the figures of one size."""
    gib = 2**30
    ratio = row["seconds"] / row["memory_seconds"]
    print(f"\nn = {row['n']}, tiles of {row['tile']}, memory_limit {row['memory_limit']}")
    print(
        f"  compute and store {row['seconds']:8.2f} s = {ratio:.2f} × the in-memory rate (target 2),"
        f" {row['memory_seconds']:.2f} s from {row['memory_rows']} rows; NTK tiles alone {row['tiles_seconds']:.2f} s"
    )
    rest = (row["seconds"] - row["plain_seconds"]) / row["memory_seconds"]
    print(
        f"  writing as much   {row['plain_seconds']:8.2f} s, as many files from two plain threads; the rest is"
        f" {rest:.2f} × the in-memory rate"
    )
    print(
        f"  peak memory       {(row['peak'] or 0) / gib:8.2f} GiB ({(row['peak_after'] or 0) / gib:.2f} after products)"
    )
    print(
        f"  on disk           {row['bytes'] / gib:8.2f} GiB, {row['bytes'] / row['raw_bytes']:.3f} of the tiles' bytes"
    )
    print(f"  verify            {row['verify_seconds']:8.2f} s")
    print(
        f"  NTK @ 10 vectors  {row['product_seconds']:8.2f} s from disk in float32, {row['product64_seconds']:.2f} s in"
        f" float64, {row['live_seconds']:.2f} s on the fly (estimate {row['live_estimate']:.2f} s), apart by"
        f" {row['live_difference']:.1e}"
    )
    print(f"  one row           {1e3 * row['row_seconds']:8.1f} ms")


def main() -> None:
    """Run the sizes and save the figures."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--sizes", type=int, nargs="+", help="numbers of rows")
    options.add_argument("--tiles", type=int, nargs="+", default=[1024])
    options.add_argument("--memory-limit", default="2GiB")
    options.add_argument("--folder", type=Path, help="where stores are made, by default the temporary folder")
    options.add_argument("--rows", type=int, default=16_000, help="rows of the in-memory kernel that sets the rate")
    options.add_argument("--repeats", type=int, default=3)
    args: argparse.Namespace = options.parse_args()
    sizes = args.sizes or ([4000] if args.quick else [10_000, 30_000])
    rows = []
    for n in sizes:
        for tile in args.tiles:
            row = measure(n, tile, args.memory_limit, args.folder, args.rows, args.repeats)
            show(row)
            rows.append(row)
    print("\n", save(args.out, "bench_store", args, {"rows": rows}))


if __name__ == "__main__":
    main()
