"""The compiled loops: nothing compiles on import, and they compute what their Python source says."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import activations
from rmtntk._jit import block, closed, erf, errors, homogeneous, series, step

ROOT = Path(rn.__file__).resolve().parent.parent


def run(code, tmp_path, **variables):
    """Run Python code in a fresh process, with a fresh cache, and return what it prints."""
    cache = tmp_path / "numba"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


IMPORT = """
import importlib, json, pkgutil
import rmtntk
import rmtntk._jit
from numba.core.dispatcher import Dispatcher

found = {}
for module in pkgutil.iter_modules(rmtntk._jit.__path__):
    loops = importlib.import_module(f"rmtntk._jit.{module.name}")
    for name, value in vars(loops).items():
        if isinstance(value, Dispatcher):
            found[f"{module.name}.{name}"] = len(value.signatures)
print(json.dumps(found))
"""


def test_importing_compiles_nothing(tmp_path):
    found = json.loads(run(IMPORT, tmp_path))
    assert {"block.open_block", "homogeneous.layers", "erf.covariances", "series.distances", "step.pair"} <= set(found)
    assert set(found.values()) == {0}
    assert not list(tmp_path.rglob("*.nbc"))


LIGHT = """
import sys
import rmtntk
extras = ("matplotlib", "mlxtend", "tqdm", "pandas", "jinja2")
print(sorted(name for name in sys.modules if name.split(".")[0] in extras))
"""


def test_importing_loads_no_extra(tmp_path):
    assert run(LIGHT, tmp_path).strip() == "[]"


def families():
    step = activations.step([-0.4, 0.9], [-1.0, 0.0, 1.0])
    wave = activations.custom(np.sin, derivative=np.cos)
    single = ["relu", activations.leaky_relu(0.1), "abs", "identity", "erf", "sign", "heaviside", step, "tanh", "gelu"]
    single += [activations.polynomial([1.0, 2.0, -1.0, 0.5]), wave]
    single += ["sin", "cos", activations.rbf(0.3), activations.exp(0.4), "gaussian", activations.exp_square(0.05)]
    kinked = replace(activations.elu, tolerance=1e-3)  # a series too slow for near rows: its bounds are followed
    single += [activations.rectified_monomial(3), activations.exp_normalized(0.5), kinked]
    single += [activations.erf_with(2.0, 0.7, 0.1)]
    mixed = [["relu", "erf", step], ["gelu", "relu"], ["erf", "sign", "tanh"], [kinked, "relu"], [kinked, "erf"]]
    return [*([act] for act in single), *mixed]


def sample_rows():
    x = np.random.default_rng(0).standard_normal((6, 6)) / np.sqrt(6.0)
    x[3] = x[0] + 1e-6 * x[1]  # both branches of the gap, and of the step's integral
    x[4] = -1.1 * x[2] + 0.1 * x[1]
    x[5] = x[1] + 0.2 * x[2]
    return x


def all_kernels():
    """CK and NTK, symmetric and cross, of every family and some networks."""
    x, results = sample_rows(), []
    for acts in families():
        for options in ({}, {"centered": False, "bias_std": 0.2, "weight_std": 1.1}):
            net = rn.Network(acts, tau0=1.0, **options)
            results += [k.tolist() for k in rn.ck_ntk(net, x[[0, 1, 2, 4, 5]], diagonal=0.0)]
            results += [k.tolist() for k in rn.ck_ntk(net, x[[0, 1, 4]], x[[2, 5]])]
            results.append(rn.ck(net, x).tolist())
    return results


CALL = """
import json, sys
sys.path.insert(0, {tests!r})
import test_numba
print(json.dumps(test_numba.all_kernels()))
"""


def compare(text):
    found, want = json.loads(text), all_kernels()
    assert len(found) == len(want) > 100
    for a, b in zip(found, want, strict=True):
        # contraction and other libm calls move the last digits; entries of steps amplify them by 1/(1 − ρ²)
        assert_allclose(a, b, rtol=1e-13, atol=1e-13 * np.abs(b).max())


def test_the_loops_compute_what_their_source_says(tmp_path):
    compare(run(CALL.format(tests=str(Path(__file__).parent)), tmp_path, NUMBA_DISABLE_JIT="1"))


def test_no_index_leaves_its_array(tmp_path):
    compare(run(CALL.format(tests=str(Path(__file__).parent)), tmp_path, NUMBA_BOUNDSCHECK="1"))


def test_no_loop_divides_by_a_python_rule():
    # error_model="numpy" gives inf where Python raises: with the JIT off a zero denominator would raise instead
    x = np.zeros((3, 2))
    x[0] = 1.0
    for acts in families():
        assert np.isfinite(rn.ck(rn.Network(acts, tau0=1.0), x)).all()


def test_loops_are_compiled_for_one_type_only():
    # Another order, type or writability of the data would compile again, for seconds.
    x = np.random.default_rng(0).standard_normal((4, 3))
    fixed = x.copy()
    fixed.setflags(write=False)
    net = rn.Network(["relu"])
    for form in (x, np.asfortranarray(x), x.astype(np.float32), x.tolist(), x[:, ::-1], x[::2], fixed):
        rn.ck(net, form)
        rn.ntk(net, form)
        rn.ck(net, form, form, dtype=np.float32)
        rn.ntk(net, x, form, diagonal="nan")
        rn.ck(net, form, dtype=np.float32)
    all_kernels()
    counts = {
        f"{module.__name__}.{name}": len(getattr(loop, "signatures", ()))  # plain functions with the JIT off
        for module in (block, closed, erf, errors, homogeneous, series, step)
        for name, loop in vars(module).items()
    }
    # What reads the data is compiled for float64 and float32, what writes results for three pairs of state and result,
    # all else for float64 only.
    allowed = {"open_block": 2, "unit_distance": 2, "squared_norms": 2, "close_symmetric": 3, "close_rectangle": 3}
    too_many = {name: count for name, count in counts.items() if count > allowed.get(name.rsplit(".", 1)[-1], 1)}
    assert not too_many
