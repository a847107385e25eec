"""What the first call costs and trusts: lazy imports, and a cache of compiled loops that is never stale.

The tests of the cache build a small package around a copy of `rmtntk/_jit/_options.py`, so that they may edit it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rmtntk
from rmtntk._jit import _options

PACKAGE = Path(rmtntk.__file__).resolve().parent

HELPER = """
from rmtntk._jit._options import njit

@njit()
def weight(i):
    return 1.0 * i
"""
LOOPS = """
from rmtntk._jit._options import njit
from rmtntk._jit import helper

@njit()
def total(n):
    result = n * 0.0
    for i in range(4):
        result += helper.weight(i) * n
    return result
"""
# What a process prints: results, and how many loops it found on disk; total(2) and total(2.5) are compiled apart.
CALL = """
import json
from rmtntk._jit.loops import total
results = [total(n) for n in {arguments}]
print(json.dumps([results, sum(total.stats.cache_hits.values()) if hasattr(total, "stats") else None]))
"""


@pytest.fixture
def package(tmp_path):
    """Path of a package with one loop, and a helper of it in another file."""
    loops = tmp_path / "site" / "rmtntk" / "_jit"
    loops.mkdir(parents=True)
    shutil.copy(_options.__file__, loops)
    (loops.parent / "__init__.py").touch()
    (loops / "__init__.py").touch()
    (loops / "helper.py").write_text(HELPER)
    (loops / "loops.py").write_text(LOOPS)
    return loops


def start(package, code, **variables):
    """Start a fresh process that imports the package; a variable that is None is unset."""
    # Python's own cache of bytecode goes by time and size
    environment = {**os.environ, "PYTHONPATH": str(package.parent.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("RMTNTK_CACHE", None)
    environment.pop("NUMBA_DISABLE_JIT", None)
    environment["NUMBA_CACHE_DIR"] = str(package.parent.parent / "cache")
    environment.update({name: value for name, value in variables.items() if value is not None})
    for name in (name for name, value in variables.items() if value is None):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=package.parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out)


def call(package, *arguments, **variables):
    """Totals of the arguments, and how many loops were found on disk, in a fresh process."""
    return finish(start(package, CALL.format(arguments=arguments), **variables))


def cached(package):
    return sorted((package.parent.parent / "cache").rglob("*.*"))


def test_importing_loads_no_optimizer(tmp_path):
    code = "import json, sys, rmtntk; print(json.dumps([n for n in sys.modules if n.startswith('scipy.optimize')]))"
    assert finish(start(PACKAGE / "_jit", code, NUMBA_CACHE_DIR=str(tmp_path))) == []


def test_flags_reach_the_compiler_and_leave_nan_alone(package):
    (package / "loops.py").write_text("""
import math
from rmtntk._jit._options import njit

def flag(x):
    y = x * x + 1.0
    return (1.0 if math.isnan(y) else 0.0) + (2.0 if math.isinf(y) else 0.0)

strict, fused, loose = njit()(flag), njit(fma=True)(flag), njit(fma=True, reassoc=True)(flag)
""")
    code = """
import json
from rmtntk._jit.loops import strict, fused, loose
values = [[loop(x) for x in (1.0, float("nan"), float("inf"), 1e200)] for loop in (strict, fused, loose)]
code = [next(iter(loop.inspect_llvm().values())) for loop in (strict, fused, loose)]
kinds = ("double", "contract", "reassoc contract")
print(json.dumps([values, [[f"fmul {kind} " in text for kind in kinds] for text in code]]))
"""
    values, flags = finish(start(package, code))  # three spellings of one function, each with a file of its own
    assert values == [[0.0, 1.0, 2.0, 2.0]] * 3
    assert flags == [[True, False, False], [False, True, False], [False, False, True]]
    assert len(cached(package)) == 3


def test_an_edited_helper_in_another_file_is_compiled_again(package):
    assert call(package, 2) == [[12.0], 0]
    assert call(package, 2) == [[12.0], 1]
    files, before = cached(package), (package / "helper.py").stat()
    (package / "helper.py").write_text(HELPER.replace("1.0", "3.0"))
    os.utime(package / "helper.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (package / "helper.py").stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    assert call(package, 2) == [[36.0], 0]
    assert call(package, 2) == [[36.0], 1]
    assert cached(package) == files  # replaced, not piled up


def test_an_edit_while_a_process_runs_is_neither_read_nor_kept(package):
    call(package, 2, 2.5)
    code = f"""
import importlib, json
from pathlib import Path
from rmtntk._jit import helper, loops
Path(helper.__file__).write_text({HELPER.replace("1.0", "-10.0")!r})
importlib.reload(helper)
results = [loops.total(2.5)]
importlib.reload(loops)
print(json.dumps([*results, loops.total(2)]))
"""
    assert finish(start(package, code)) == [-150.0, -120.0]
    (package / "helper.py").write_text(HELPER)
    assert call(package, 2, 2.5) == [[12.0, 15.0], 2]


def test_damaged_and_exchanged_files_are_compiled_again(package):
    assert call(package, 2, 2.5) == [[12.0, 15.0], 0]
    loops = [path for path in cached(package) if ".total." in path.name]
    assert len(loops) == 2
    assert call(package, 2, 2.5) == [[12.0, 15.0], 2]
    whole = [path.read_bytes() for path in loops]
    for first, second in (whole[::-1], [whole[0][:-100], b""], [bytes(len(whole[0])), whole[1]]):
        loops[0].write_bytes(first)
        loops[1].write_bytes(second)
        assert call(package, 2, 2.5) == [[12.0, 15.0], int(second == whole[1])]
    assert call(package, 2, 2.5) == [[12.0, 15.0], 2]


def test_processes_that_start_together_agree(package):
    wait = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.001)\n"
    orders = [(2, 2.5), (2.5, 2), (2, 2.5), (2.5, 2)]
    code = "import rmtntk._jit.loops\n" + wait + CALL
    running = [start(package, code.replace("{arguments}", repr(order))) for order in orders]
    (package.parent.parent / "go").touch()
    for order, process in zip(orders, running, strict=True):
        results, _ = finish(process)
        assert results == [6.0 * n for n in order]
    assert {path.suffix for path in cached(package)} == {".nbc"}  # nothing half-written is left
    assert call(package, 2, 2.5) == [[12.0, 15.0], 2]


def test_a_cache_that_cannot_be_written_any_more_is_reported_once(package):
    code = """
import json, os, shutil, warnings
from pathlib import Path
from rmtntk._jit.loops import total
cache = Path(os.environ["NUMBA_CACHE_DIR"])
shutil.rmtree(cache)
cache.touch()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results = [total(2), total(2.5)]
print(json.dumps([results, [w.category.__name__ for w in caught]]))
"""
    assert finish(start(package, code)) == [[12.0, 15.0], ["RuntimeWarning"]]


def test_settings_that_change_the_code_are_part_of_it(package):
    call(package, 2)
    assert call(package, 2, NUMBA_BOUNDSCHECK="1") == [[12.0], 0]
    assert call(package, 2, NUMBA_DISABLE_JIT="1") == [[12.0], None]


def test_the_cache_can_be_switched_off(package):
    assert call(package, 2, RMTNTK_CACHE="0") == [[12.0], 0]
    assert cached(package) == []


def read_only(package):
    """Make the folder of the package unusable for a cache, also for root, whom no permission stops."""
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    (package / "__pycache__").write_text("a file where a folder is wanted")


needs_home = pytest.mark.skipif(sys.platform == "win32", reason="there the user's folder is not found by HOME")


@needs_home
def test_a_read_only_installation_uses_the_cache_of_the_user(package, tmp_path):
    read_only(package)
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}
    (tmp_path / "home").mkdir()
    assert call(package, 2, **home) == [[12.0], 0]
    assert call(package, 2, **home) == [[12.0], 1]
    assert list((tmp_path / "home").rglob("*.nbc"))


@needs_home
def test_without_any_folder_loops_work_and_say_so_once(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "site" / "rmtntk", ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "site" / "rmtntk" / "_jit"
    read_only(package)
    nowhere = str(package / "__pycache__" / "below")
    code = """
import json, warnings
import rmtntk  # warnings are errors here
from rmtntk._jit import steps
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    values = [steps.step_sums(-1.0, 1.0, 1.0, 0.0, 1.0)[0], steps.step_sums(-1.0, 1.0, -1.0, 0.0, 1)[0]]
print(json.dumps([rmtntk.__file__, values, [[w.category.__name__, str(w.message)] for w in caught]]))
"""
    process = start(package, code, HOME=nowhere, XDG_CACHE_HOME=nowhere, NUMBA_CACHE_DIR=nowhere)
    file, values, warned = finish(process)
    assert Path(file).is_relative_to(tmp_path)
    assert values == [0.0, pytest.approx(0.4839414490382867, rel=1e-15)]  # 2 φ(1)
    assert [name for name, _ in warned] == ["RuntimeWarning"]
    assert "NUMBA_CACHE_DIR" in warned[0][1]
    assert "RMTNTK_CACHE=0" in warned[0][1]
