"""Results that do not fit are refused before anything is allocated; those that do take little more than themselves."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import rmtntk as rn
from rmtntk import _memory

GIB = 2**30
N = 12_000  # 1.07 GiB of float64


@pytest.fixture
def little(monkeypatch):
    """One GiB is left."""
    monkeypatch.setattr(_memory, "available_memory", lambda: GIB)


def rows(n, p=2):
    return np.random.default_rng(0).standard_normal((n, p))


NET = rn.Network(["relu"])
CALLS = {
    "ck": lambda x, y, dtype: rn.ck(NET, x, y, dtype=dtype),
    "nngp": lambda x, y, dtype: rn.nngp(NET, x, y, dtype=dtype),
    "ntk": lambda x, y, dtype: rn.ntk(NET, x, y, dtype=dtype),
    "ck_ntk": lambda x, y, dtype: rn.ck_ntk(NET, x, y, dtype=dtype),
    "finite ck": lambda x, y, dtype: finite().ck(x, y, dtype=dtype),
    "finite ntk": lambda x, y, dtype: finite().ntk(x, y, dtype=dtype),
}


def finite(width=3):
    return rn.FiniteNetwork.sample(NET, [width], 2, 0)


def refused(call):
    """Return the message, and check that nothing large was allocated on the way to it."""
    tracemalloc.start()
    try:
        with pytest.raises(rn.errors.MemoryLimitError) as caught:
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, MemoryError)
    # data, its float64 copy and work of its size: far below the GiB that was refused
    assert peak < 64 * 2**20
    return str(caught.value)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype, need", [(np.float64, 8), (np.float32, 4)])
@pytest.mark.parametrize("cross", [False, True], ids=["symmetric", "cross"])
def test_what_does_not_fit_is_refused_with_the_numbers(name, dtype, need, cross, little):
    n = N if dtype == np.float64 else 17_000
    x = rows(n)
    y = rows(n + 100) if cross else None
    shape = (n, n + 100 if cross else n)
    message = refused(lambda: CALLS[name](x, y, dtype))
    total = shape[0] * shape[1] * need * (2 if name == "ck_ntk" else 1)
    assert f"needs {total / GIB:.1f} GiB" in message
    assert "1.0 GiB of memory are available" in message
    assert str(shape) in message
    assert "float32" in message


def test_features_are_refused(little):
    message = refused(lambda: finite(width=6000).features(rows(30_000)))
    assert f"needs {30_000 * 6000 * 8 / GIB:.1f} GiB" in message
    assert "features of shape (30000, 6000)" in message


def test_the_limit_is_exact(monkeypatch):
    need = 3000 * 3000 * 8
    for available, fits in ((need, True), (need - 1, False), (None, True)):
        monkeypatch.setattr(_memory, "available_memory", lambda available=available: available)
        for call in (lambda: rn.ck(NET, rows(3000)), lambda: finite().ck(rows(3000))):
            if fits:
                assert call().nbytes == need
            else:
                with pytest.raises(rn.errors.MemoryLimitError):
                    call()


def test_what_the_system_says():
    found = _memory.available_memory()
    if sys.platform == "linux":
        assert found is not None
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert 0 < found <= total
    else:
        assert found is None or found > 0


MEASURE = """
import sys
from pathlib import Path
import numpy as np
import rmtntk as rn

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

name, dtype, n, m, acts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5].split(",")
x = np.random.default_rng(0).standard_normal((n, 100)).astype(dtype) / np.float32(10)
y = x[:m] + 1 if m else None
net = rn.Network(acts)
def compute(x, y):
    return getattr(rn, name)(net, x, y, dtype=dtype)
compute(x[:300], None if y is None else y[:300])  # loads the loops and starts the threads
Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
before = status("VmRSS:")
found = compute(x, y)
print(status("VmHWM:") - before, sum(kernel.nbytes for kernel in (found if isinstance(found, tuple) else [found])))
"""


def can_measure():
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return "VmHWM:" in Path("/proc/self/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not can_measure(), reason="the peak of memory cannot be read and reset here")
@pytest.mark.parametrize(
    "name, dtype, n, m, acts",
    [
        ("ck_ntk", "float64", 3000, 0, "relu,relu,relu"),
        ("ck_ntk", "float32", 3000, 0, "relu,relu,relu"),
        ("ck_ntk", "float64", 3000, 2000, "relu,relu,relu"),
        ("ck_ntk", "float32", 3000, 2000, "relu,erf"),
        ("ck", "float64", 3000, 0, "erf,relu"),
        ("nngp", "float64", 3000, 0, "erf,relu"),
        ("ntk", "float64", 1500, 0, "tanh,tanh"),
    ],
)
def test_peak_memory_is_that_of_the_results(name, dtype, n, m, acts, tmp_path):
    file = tmp_path / "measure.py"
    file.write_text(MEASURE, encoding="utf-8")
    command = [sys.executable, str(file), name, dtype, str(n), str(m), acts]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | {"NUMBA_NUM_THREADS": "4"}
    )
    assert done.returncode == 0, done.stderr
    peak, results = map(int, done.stdout.split())
    # a tile and a few planes for each of four threads, 10 MiB together, and what is held for each row
    assert peak <= results + 64 * 2**20
    assert peak >= results  # the measurement sees the results themselves
    print(f"{name} {dtype} {n} {m} {acts}: {(peak - results) / 2**20:.1f} MiB beyond {results / 2**20:.1f}")
