"""Several threads in one computation, several computations in one process, several processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from numba.core import config
from threadpoolctl import ThreadpoolController

import rmtntk as rn
from rmtntk import _blas, _threads, activations, tiles

# One activation at least for every loop over pairs
FAMILIES = {
    "homogeneous": "relu",
    "identity": "identity",
    "erf": "erf",
    "jump": "sign",
    "step": activations.step([-0.4, 0.9], [-1.0, 0.0, 1.0]),
    "trig": "sin",
    "exponential": activations.exp(0.5),
    "gaussian": "gaussian",
    "gelu": "gelu",
    "rectified": activations.rectified_monomial(2),
    "exp_normalized": activations.exp_normalized(),
    "polynomial": activations.polynomial([0.5, 1.0, -0.3]),
    "smooth": "tanh",
    "custom": activations.custom(np.arctan, derivative=lambda t: 1.0 / (1.0 + t**2), tolerance=1e-8),
}
CONTROLLER = ThreadpoolController()
COUNTS = (1, 2, 3, 5)
LONG = 60.0  # seconds: nothing here takes that long unless it hangs


@pytest.fixture(autouse=True)
def default_threads():
    yield
    rn.set_num_threads(None)


def data(n, p, seed=0, dtype=np.float64):
    return (np.random.default_rng(seed).standard_normal((n, p)) / np.sqrt(p)).astype(dtype)


def blas_threads():
    return [entry["num_threads"] for entry in CONTROLLER.info() if entry["user_api"] == "blas"]


def kernels(net, x, y, dtype):
    fill = {"diagonal": "nan"} if any(act.is_step for act in net.activations) else {}
    found = [*rn.ck_ntk(net, x, dtype=dtype, **fill), *rn.ck_ntk(net, x, y, dtype=dtype, **fill)]
    return [kernel.tobytes() for kernel in found]


# The result does not depend on the number of threads


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_bit_depends_on_the_number_of_threads(name, dtype):
    x, y = data(230, 30, dtype=dtype), data(150, 30, seed=1, dtype=dtype)
    assert len(x) * len(y) >= tiles.ONE_THREAD
    net = rn.Network([FAMILIES[name]] * 2, tau0=1.0)
    results = []
    for count in COUNTS:
        rn.set_num_threads(count)
        results.append(kernels(net, x, y, dtype))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("acts", [["relu", "relu"], ["relu", "erf"]], ids=str)
def test_nor_with_many_tiles_of_all_sizes(acts, dtype, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 256)
    x, y = data(1101, 101, dtype=dtype), data(700, 101, seed=1, dtype=dtype)
    results = []
    for count in COUNTS:
        rn.set_num_threads(count)
        results.append(kernels(rn.Network(acts), x, y, dtype))
    assert all(result == results[0] for result in results)


def test_the_number_of_threads_is_used(monkeypatch):
    seen = []
    monkeypatch.setattr(tiles, "run", lambda task, count, *rest: seen.append(count) or _threads.run(task, count, *rest))
    x, net = data(200, 5), rn.Network(["relu"])
    for count in COUNTS:
        rn.set_num_threads(count)
        rn.ck(net, x)
        rn.ck(net, x[:20])
    assert seen == [number for count in COUNTS for number in (count, 1)]  # small kernels are not worth a second


def test_set_and_get():
    assert rn.get_num_threads() == config.NUMBA_NUM_THREADS
    rn.set_num_threads(np.int64(7))
    assert rn.get_num_threads() == 7
    rn.set_num_threads(None)
    assert rn.get_num_threads() == config.NUMBA_NUM_THREADS


@pytest.mark.parametrize(
    "count, error",
    [(0, ValueError), (-2, ValueError), (1.0, TypeError), (True, TypeError), ("2", TypeError), ([2], TypeError)],
)
def test_bad_number_of_threads(count, error):
    rn.set_num_threads(3)
    with pytest.raises(error, match="`count`"):
        rn.set_num_threads(count)
    assert rn.get_num_threads() == 3


def test_floating_point_settings_of_the_caller_do_not_matter():
    tiny, out = np.full((2, 2), 1e-200), [np.ones((2, 2)) for _ in range(3)]
    with np.errstate(all="raise"):
        _threads.run(lambda k: np.matmul(tiny, tiny, out=out[k]), 3)  # underflows
        assert np.geterr()["under"] == "raise"
    assert not np.array(out).any()


# Errors and interrupts


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("failing", ["first", "last"])
@pytest.mark.parametrize("kind", [ValueError, MemoryError, KeyboardInterrupt])
def test_an_error_reaches_the_caller_and_stops_the_others(kind, failing, count):
    numbers = _threads.Numbers(10**12)  # without a stop nobody would see the end of it
    culprit = 0 if failing == "first" else count - 1
    before, blas = threading.active_count(), blas_threads()
    started = threading.Barrier(count)
    given_up = threading.Timer(LONG, numbers.stop)
    given_up.start()

    def task(k):
        started.wait(LONG)
        for number in numbers:
            if k == culprit and number > 100:
                raise kind("this one")

    try:
        with pytest.raises(kind, match="this one"):
            _threads.run(task, count, numbers)
        assert given_up.is_alive()
    finally:
        given_up.cancel()
        given_up.join()
    assert threading.active_count() == before
    assert blas_threads() == blas
    assert rn.ck(rn.Network(["relu"]), data(200, 5)).shape == (200, 200)  # the lock is free


def test_an_error_inside_a_kernel_reaches_the_caller(monkeypatch):
    x, net, blas = data(300, 5), rn.Network(["relu"]), blas_threads()
    rn.set_num_threads(2)
    want = rn.ck(net, x)

    def broken(*arguments):
        raise RuntimeError("broken loop")

    with monkeypatch.context() as patch:
        patch.setattr(tiles.block, "close_symmetric", broken)
        with pytest.raises(RuntimeError, match="broken loop"):
            rn.ck(net, x)
    assert blas_threads() == blas
    assert (rn.ck(net, x) == want).all()


def test_an_interrupt_goes_before_an_error():
    started = threading.Barrier(2)

    def task(k):
        if k == 1:
            started.wait(LONG)
            raise ValueError("second")
        started.wait(LONG)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _threads.run(task, 2)


def test_without_more_threads_the_caller_does_it_all(monkeypatch):
    def cannot(self):
        raise RuntimeError("can't start new thread")

    x, net = data(300, 5), rn.Network(["relu"])
    want = rn.ck(net, x)
    rn.set_num_threads(4)
    monkeypatch.setattr(threading.Thread, "start", cannot)
    assert (rn.ck(net, x) == want).all()


# Several Python threads


def in_threads(count, work):
    with ThreadPoolExecutor(count) as pool:
        return [future.result(timeout=LONG) for future in [pool.submit(work, k) for k in range(count)]]


@pytest.mark.parametrize("n", [40, 300], ids=["small", "large"])
def test_many_threads_call_at_once(n):
    rn.set_num_threads(2)
    nets = [rn.Network(acts) for acts in (["relu"], ["erf", "relu"], ["tanh"], ["sin", "abs"])]
    x, y = data(n, 8), data(n - 7, 8, seed=1)
    want = [kernels(net, x, y, np.float64) for net in nets]
    blas = blas_threads()
    found = in_threads(4, lambda k: [kernels(nets[k], x, y, np.float64) for _ in range(5)])
    for k in range(4):
        assert found[k] == [want[k]] * 5
    assert blas_threads() == blas


def test_the_number_of_blas_threads_changes_no_bit():
    # nor does it matter whether another thread's kernel has BLAS at one thread: plans multiply matrices too
    x, y = data(300, 8), data(293, 8, seed=1)
    for acts in (["tanh"], ["gelu", "softplus"], ["relu"]):
        want = kernels(rn.Network(acts), x, y, np.float64)
        for count in (1, 3):
            with CONTROLLER.limit(limits=count, user_api="blas"):
                assert kernels(rn.Network(acts), x, y, np.float64) == want
                assert blas_threads() == [count] * len(blas_threads())


def test_no_more_threads_work_than_were_asked_for(monkeypatch):
    rn.set_num_threads(3)
    working, most, blas = 0, [], set()
    guard = threading.Lock()
    outer = threading.active_count() + 4

    def spy(task, count, *rest):
        def counted(k):
            nonlocal working
            with guard:
                working += 1
                most.append(working)
                blas.update(blas_threads())
            try:
                task(k)
            finally:
                with guard:
                    working -= 1
            alive.append(threading.active_count())

        return _threads.run(counted, count, *rest)

    alive: list[int] = []
    monkeypatch.setattr(tiles, "run", spy)
    x, net = data(300, 8), rn.Network(["relu", "erf"])
    in_threads(4, lambda k: [rn.ck(net, x) for _ in range(5)])
    assert len(most) >= 4 * 5 * 3
    assert max(most) <= 3
    assert max(alive) <= outer + 2  # the four callers and two helpers of the one who has the lock
    assert blas == {1}


def test_blas_is_given_back_when_the_last_one_leaves():
    before = blas_threads()
    first_in, second_in = threading.Event(), threading.Event()
    inside: list[list[int]] = []

    def early():
        with _blas.one_blas_thread():
            first_in.set()
            assert second_in.wait(LONG)

    def late():
        assert first_in.wait(LONG)
        with _blas.one_blas_thread():
            second_in.set()
            thread.join(LONG)  # the other has left
            inside.append(blas_threads())

    thread, other = threading.Thread(target=early), threading.Thread(target=late)
    thread.start()
    other.start()
    other.join(LONG)
    assert inside == [[1] * len(before)]
    assert blas_threads() == before


# Several processes: each test has a process of its own, since forking one with threads is warned of

SETUP = """
import os, signal, sys, threading
import numpy as np
import rmtntk as rn
from rmtntk import _threads
from threadpoolctl import threadpool_info

x = np.random.default_rng(0).standard_normal((300, 8)) / 3.0
net = rn.Network(["relu", "erf"])

def blas():
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]

def work(seed=0):
    return rn.ck_ntk(net, x)[1].tobytes(), rn.get_num_threads(), threading.active_count()
"""

FORK = """
def child(body):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs is killed
        try:
            body()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def script(tmp_path, *parts, **environment):
    file = tmp_path / "script.py"
    file.write_text("\n".join(textwrap.dedent(part) for part in parts), encoding="utf-8")
    outside = {key: value for key, value in os.environ.items() if key != "NUMBA_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, str(file)], env=outside | environment, capture_output=True, text=True, timeout=4 * LONG
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_fork
def test_a_child_forked_after_a_kernel_computes(tmp_path):
    body = """
    rn.set_num_threads(3)
    before, want = blas(), work()[0]
    def body():
        assert blas() == before
        assert rn.get_num_threads() == 3
        assert work()[0] == want
        assert blas() == before
    child(body)
    assert work()[0] == want
    """
    script(tmp_path, SETUP, FORK, body)


@needs_fork
def test_a_child_forked_inside_another_threads_kernel_computes(tmp_path):
    body = """
    rn.set_num_threads(2)
    before, want = blas(), work()[0]
    inside, leave = threading.Event(), threading.Event()
    def slow(k):
        inside.set()
        assert leave.wait(60)
    thread = threading.Thread(target=_threads.run, args=(slow, 2))
    thread.start()
    assert inside.wait(60)
    assert blas() == [1] * len(before)
    def body():
        assert blas() == before, "the parent's computation goes on in the parent only"
        assert work()[0] == want
        assert blas() == before
    child(body)
    assert blas() == [1] * len(before)
    leave.set()
    thread.join()
    assert blas() == before
    """
    script(tmp_path, SETUP, FORK, body)


@needs_fork
def test_a_child_forked_inside_its_own_kernel_may_leave_it(tmp_path):
    body = """
    before = blas()
    def both(k):
        if k == 0:
            child(lambda: None)
    _threads.run(both, 2)
    pid = []
    def fork(k):
        pid.append(os.fork())
    _threads.run(fork, 1)  # the child leaves the computation as well
    assert blas() == before
    assert len(work()[0]) == 8 * 300 * 300
    assert blas() == before
    if pid[0] == 0:
        os._exit(0)
    assert os.waitpid(pid[0], 0)[1] == 0
    """
    script(tmp_path, SETUP, FORK, body)


POOL = """
if __name__ == "__main__":
    import multiprocessing
    want = work()[0]
    with multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else METHOD).Pool(2) as pool:
        results = pool.map_async(work, range(4)).get(timeout=120)
    for bits, count, alive in results:
        assert bits == want
        assert count == COUNT, count
    rn.set_num_threads(3)
    assert work()[1] == 3
"""


@pytest.mark.parametrize("given", [None, "2"])
@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_pools_compute_with_one_thread_a_worker_unless_told(method, given, tmp_path):
    environment = {} if given is None else {"NUMBA_NUM_THREADS": given}
    script(tmp_path, SETUP, f"METHOD, COUNT = {method!r}, {int(given or 1)}", POOL, **environment)


@needs_fork
def test_what_the_parent_set_holds_in_forked_workers(tmp_path):
    body = "METHOD, COUNT = 'fork', 3\nrn.set_num_threads(3)"
    script(tmp_path, SETUP, body, POOL)


@pytest.mark.skipif(find_spec("joblib") is None, reason="joblib is not installed")
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(backend, tmp_path):
    body = f"""
    if __name__ == "__main__":
        import joblib
        want = work()[0]
        results = joblib.Parallel(n_jobs=2, backend={backend!r}, timeout=120)(
            joblib.delayed(work)(k) for k in range(4)
        )
        cores = joblib.cpu_count()
        for bits, count, alive in results:
            assert bits == want
            assert {backend!r} == "threading" or 2 * count <= max(2, cores), count
    """
    script(tmp_path, SETUP, body)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to send")
def test_ctrl_c_stops_all_threads(tmp_path):
    file = tmp_path / "script.py"
    body = """
    import signal, time
    # a shell starts its background jobs with this signal ignored, and children of such a test run inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = blas()
    numbers = _threads.Numbers(10**12)
    taken = []
    def task(k):
        for number in numbers:
            taken.append(number)
            if len(taken) == 10:
                print("ready", flush=True)
            time.sleep(0.001)
    try:
        _threads.run(task, 3, numbers)
    except KeyboardInterrupt:
        assert blas() == before
        assert threading.active_count() == 1
        work()
        print("stopped", flush=True)
    """
    file.write_text(SETUP + textwrap.dedent(body), encoding="utf-8")
    with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert out == "stopped\n"
    assert process.returncode == 0


# Kernels of rows that are nearly parallel


def nearly_parallel(n=40):
    x = np.random.default_rng(0).standard_normal((1, 8)) + 0.02 * np.random.default_rng(1).standard_normal((n, 8))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_slow_kernel_says_so_once(monkeypatch):
    monkeypatch.setattr(tiles, "_PATIENCE", 0.0)
    monkeypatch.setattr(tiles, "_tile_shape", lambda n, m: (16, 16))  # several tiles, so that there is a share done
    with pytest.warns(RuntimeWarning, match="nearly parallel") as caught:
        kernel = rn.ck(rn.Network(["elu"]), nearly_parallel())
    assert len(caught) == 1
    assert np.isfinite(kernel).all()


def test_kernels_with_a_closed_form_need_no_patience(monkeypatch):
    monkeypatch.setattr(tiles, "_PATIENCE", 0.0)
    rn.ck(rn.Network(["relu", "gelu"]), nearly_parallel())  # a warning would be an error
