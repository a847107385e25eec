"""Kernel stores across processes: killed writers, readers meanwhile, and memory that stays below its limit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rmtntk as rn
from rmtntk.store import KernelMatrix, StoreLockedError, UnfinishedStoreError, files

pytest.importorskip("zarr")

WRITER = """
import sys
from pathlib import Path
import numpy as np
import rmtntk as rn
from rmtntk.store import KernelMatrix

path, n, tile, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rn.set_num_threads(threads)
x = (np.random.default_rng(0).standard_normal((n, 30)) / 30**0.5).astype(np.float32)
net = rn.Network(["relu", "tanh"])
rn.ck_ntk(net, x[:9], dtype="float32")  # loads the loops
KernelMatrix.compute(net, x, path + ".warm", kind=("ck", "ntk"), tile=tile)  # and Zarr
print("ready", flush=True)
sys.stdin.readline()
KernelMatrix.compute(net, x, path, kind=("ck", "ntk"), tile=tile)
print("done", flush=True)
"""


def start(folder, path, n, tile, threads=2):
    file = folder / "writer.py"
    file.write_text(WRITER, encoding="utf-8")
    command = [sys.executable, str(file), str(path), str(n), str(tile), str(threads)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def stop(process):
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    process.wait()


def data(n):
    return (np.random.default_rng(0).standard_normal((n, 30)) / 30**0.5).astype(np.float32)


def tiles(path):
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.glob("*/c/*/*") if not file.name.startswith(".")
    }


def killed(tmp_path, n, tile, kills, seed):
    """Kill a computation again and again, and compare it with one that nobody disturbed."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "k"
    process = start(tmp_path, path, n, tile)
    began = time.perf_counter()
    go(process)
    assert process.stdout.readline() == "done\n", process.stderr.read()
    seconds = time.perf_counter() - began
    stop(process)
    whole = tiles(path)
    path.rename(tmp_path / "whole")
    partly, before = 0, 0
    for k in range(kills):
        process = start(tmp_path, path, n, tile, threads=1 + k % 2)  # their number changes no bit
        go(process)
        if k == 0:
            while not tiles_there(path):  # one in the middle at least, whatever the machine does
                time.sleep(1e-3)
        else:
            time.sleep(rng.uniform(0.0, seconds / 3))
        os.kill(process.pid, signal.SIGKILL)
        stop(process)
        found = tiles(path)
        assert found == {name: whole[name] for name in found}  # finished tiles are whole and right
        assert len(found) >= before  # and stay
        if 0 < len(found) < len(whole):
            partly += 1
            check_reading(path, found)
        before = len(found)
    assert partly > 0
    process = start(tmp_path, path, n, tile)
    go(process)
    assert process.stdout.readline() == "done\n", process.stderr.read()
    stop(process)
    assert tiles(path) == whole
    assert not list(path.rglob("*.tmp"))  # what the killed ones left is gone
    assert (path / "zarr.json").read_bytes() == (tmp_path / "whole" / "zarr.json").read_bytes()


def tiles_there(path):
    return any(path.glob("ntk/c/*/[0-9]*"))


def check_reading(path, found):
    """Finished tiles can be read, others say that they are not finished."""
    kernel = KernelMatrix.open(path, kind="ntk", cache=0)
    side = kernel.tile
    for i, j in (place for place in kernel._source.grid.tiles()):
        name = f"ntk/c/{i}/{j}"
        if name in found:
            assert np.isfinite(kernel[i * side, j * side])
        else:
            with pytest.raises(UnfinishedStoreError):
                kernel[i * side, j * side]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_writer_loses_nothing(tmp_path):
    killed(tmp_path, n=150, tile=16, kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_writer_killed_many_times(tmp_path):
    killed(tmp_path, n=600, tile=32, kills=40, seed=1)


TORN = """
import builtins, os, signal, sys
import numpy as np
import rmtntk as rn
from rmtntk.store import KernelMatrix, files

path, fatal = sys.argv[1], int(sys.argv[2])
writes = 0

class Torn:
    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()

    def write(self, content):
        global writes
        writes += 1
        if writes == fatal:
            self.stream.write(bytes(content)[: len(content) // 2])
            self.stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.stream.write(content)

files.open = lambda name, mode="r", **options: (
    Torn(builtins.open(name, mode, **options)) if "b" in mode else builtins.open(name, mode, **options)
)
x = (np.random.default_rng(0).standard_normal((60, 30)) / 30**0.5).astype(np.float32)
KernelMatrix.compute(rn.Network(["relu"]), x, path, kind=("ck", "ntk"), tile=16)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("fatal", [1, 2, 3, 4, 13], ids=["group", "array", "second array", "first tile", "a tile"])
def test_killed_in_the_middle_of_a_file(tmp_path, fatal):
    options = {"net": rn.Network(["relu"]), "x": data(60), "kind": ("ck", "ntk"), "tile": 16}
    KernelMatrix.compute(path=tmp_path / "whole", **options)
    whole = tiles(tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", TORN, str(tmp_path / "k"), str(fatal)], capture_output=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.rglob("*.tmp"))  # half a file, not under its name
    found = tiles(tmp_path / "k")
    assert found == {name: whole[name] for name in found}
    assert (tmp_path / "k").exists() == (fatal > 3)  # a store appears with all its metadata
    KernelMatrix.compute(path=tmp_path / "k", **options)
    assert tiles(tmp_path / "k") == whole


def test_readers_and_writers_meanwhile(tmp_path):
    n, tile = 300, 16
    want = rn.ntk(rn.Network(["relu", "tanh"]), data(n), dtype="float32")
    path = tmp_path / "k"
    process = start(tmp_path, path, n, tile)
    go(process)
    while not (path / "zarr.json").exists():
        time.sleep(1e-3)
    kernel = KernelMatrix.open(path, kind="ntk", cache=0)
    rng = np.random.default_rng(0)
    read = missed = locked = 0
    refused = ""
    while process.poll() is None and kernel.n_tiles_done < kernel.n_tiles:
        i, j = rng.integers(0, n, size=2)
        try:
            value = kernel[i, j]
        except UnfinishedStoreError:
            missed += 1
        else:
            assert abs(value - want[i, j]) <= 1e-6 * want.max()  # a few eps: products in another order
            read += 1
        if locked == 0:
            try:
                with files.open_store(path).lock():
                    pass
            except StoreLockedError as error:
                locked += 1
                refused = str(error)
    assert process.stdout.readline() == "done\n", process.stderr.read()
    stop(process)
    assert read > 0
    assert locked > 0
    assert f"process {process.pid}" in refused or "process ?" in refused
    np.testing.assert_allclose(np.asarray(kernel), want, rtol=0, atol=1e-6 * want.max())


MEASURE = """
import sys, time
from pathlib import Path
import numpy as np
import rmtntk as rn
from rmtntk.store import KernelMatrix, files
from rmtntk.store.budget import resident

path, name, dtype, tile, spare = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
x = (np.random.default_rng(0).standard_normal((3000, 100)) / 10).astype(dtype)
net = rn.Network([name] * 2)
KernelMatrix.compute(net, x[:100], path + ".warm", kind=("ck", "ntk"), tile=64, dtype=dtype)
write = files.write_file
files.write_file = lambda *a: (time.sleep(0.02), write(*a))  # a slow disk: tiles pile up if they may
Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
limit = resident() + spare * 2**20
ck, ntk = KernelMatrix.compute(net, x, path, kind=("ck", "ntk"), tile=tile, dtype=dtype, memory_limit=limit, cache=0)
KernelMatrix.compute(net, x, path, kind=("ck", "ntk"), tile=tile, dtype=dtype, memory_limit=limit)  # checks it
ck @ np.ones((3000, 4), dtype=dtype)
lines = Path("/proc/self/status").read_text().splitlines()
print(limit, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024)
"""


def can_measure():
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return "VmHWM:" in Path("/proc/self/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not can_measure(), reason="the peak of memory cannot be read and reset here")
@pytest.mark.parametrize(
    "name, dtype, tile, spare",
    [("relu", "float32", 1024, 80), ("relu", "float64", 512, 60), ("tanh", "float64", 700, 130)],
)
def test_the_memory_limit_is_kept(tmp_path, name, dtype, tile, spare):
    file = tmp_path / "measure.py"
    file.write_text(MEASURE, encoding="utf-8")
    command = [sys.executable, str(file), str(tmp_path / "k"), name, dtype, str(tile), str(spare)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | {"NUMBA_NUM_THREADS": "2"}
    )
    assert done.returncode == 0, done.stderr
    limit, peak = map(int, done.stdout.split())
    print(f"{name} {dtype}: limit {limit / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB")
    assert peak <= 1.1 * limit
