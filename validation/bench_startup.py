"""What starting costs: the import, and the first kernel with a cold and with a warm cache, each in fresh processes.

The import is timed in pairs, `import numba, scipy.linalg` with and without `import rmtntk` after it. The first kernel
is the first call of `rmtntk.ck_ntk` on 50 samples in 20 dimensions, three layers; cold means that the folder of Numba's
cache is empty, warm that another process has just filled it. Files are in the memory of the operating system.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import parser, save

import rmtntk as rn

NETWORKS = {
    "relu": '["relu"] * 3',
    "erf": '["erf"] * 3',
    "tanh": '["tanh"] * 3',
    "step": "[rn.activations.step([-0.4, 0.9], [-1.0, 0.0, 1.0])] * 3",
}
BASE = "import time\nstart = time.perf_counter()\nimport numba, scipy.linalg\n"
SECONDS = "print(time.perf_counter() - start)\n"
KERNEL = """
import time
import numpy as np
import rmtntk as rn
x = np.random.default_rng({seed}).standard_normal((50, 20)) / np.sqrt(20.0)
start = time.perf_counter()
rn.ck_ntk(rn.Network({network}), x, diagonal="nan")  # infinite for steps
"""


def seconds(code: str, cache: str) -> float:
    """What the code prints in a fresh process."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(Path(rn.__file__).parent.parent)}
    environment.pop("RMTNTK_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def summary(values: list[float]) -> dict[str, Any]:
    """Median, and all values."""
    return {"median": statistics.median(values), "values": values}


def main() -> None:
    """Measure, print, write JSON."""
    args = parser(__doc__ or "").parse_args()
    pairs, repeats = (3, 1) if args.quick else (10, 3)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        seconds(BASE + "import rmtntk\n" + SECONDS, folder)  # bytecode is written, files are read once
        base, extra = [], []
        for _ in range(pairs):
            base.append(seconds(BASE + SECONDS, folder))
            extra.append(seconds(BASE + "import rmtntk\n" + SECONDS, folder) - base[-1])
    results["import numba, scipy.linalg"] = summary(base)
    results["import rmtntk, beyond that"] = summary(extra)
    for name, network in NETWORKS.items():
        code = KERNEL.format(network=network, seed=args.seed) + SECONDS
        cold, warm = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                cold.append(seconds(code, folder))
                warm.append(seconds(code, folder))
        results[f"first kernel, {name}, cold"] = summary(cold)
        results[f"first kernel, {name}, warm"] = summary(warm)
    print(f"{'seconds':32}{'median':>9}{'least':>9}{'most':>9}")
    for name, row in results.items():
        print(f"{name:32}{row['median']:9.3f}{min(row['values']):9.3f}{max(row['values']):9.3f}")
    print(f"written: {save(args.out, 'bench_startup', args, {'seconds': results})}")


if __name__ == "__main__":
    main()
