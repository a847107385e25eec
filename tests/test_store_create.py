"""Directories that creators leave, or do not; the solvers' interface to kernels in tiles."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rmtntk as rn
from rmtntk.store import KernelMatrix, files, identity, locks
from rmtntk.store.blocks import Blocks

pytest.importorskip("zarr")

NET = rn.Network(["relu"])
LEFT = re.compile(r"\.k\.[0-9a-f]{12}\.tmp")


def rows(n, p=20, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p)) / np.sqrt(p)


def left(folder):
    return [entry.name for entry in folder.iterdir() if LEFT.fullmatch(entry.name)]


@pytest.mark.skipif(sys.platform == "win32", reason="directories have no locks there")
def test_a_killed_creator_leaves_nothing_for_long(tmp_path):
    script = f"""
        import os, signal
        import rmtntk as rn
        from rmtntk.store import KernelMatrix, files
        import numpy as np
        files._local_store()
        def die(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        os.rename = die
        KernelMatrix.compute(rn.Network(["relu"]), np.eye(4), {str(tmp_path / "k")!r}, tile=2)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(left(tmp_path)) == 1
    assert (tmp_path / left(tmp_path)[0] / "zarr.json").exists()  # killed before the new name
    KernelMatrix.compute(NET, rows(4), tmp_path / "other", tile=2)
    assert len(left(tmp_path)) == 1  # that of another store is not ours to remove
    kernel = KernelMatrix.compute(NET, rows(4), tmp_path / "k", tile=2)
    assert left(tmp_path) == []
    np.testing.assert_allclose(np.asarray(kernel), rn.ntk(NET, rows(4)), rtol=0, atol=1e-14)


@pytest.mark.skipif(sys.platform == "win32", reason="directories have no locks there")
def test_one_that_is_held_stays_and_so_does_what_looks_alike(tmp_path):
    path = tmp_path / "k"
    names = [".k.0123456789ab", ".k.0123456789ab.tmpx", ".k.0123456789AB.tmp", ".kk.0123456789ab.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".k.00000000000f.tmp").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".k.0000000000aa.tmp").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".k.0000000000bb.tmp").mkdir()
    with locks.new_directory(path) as held:
        (held / "content").write_text("")
        locks.sweep(path)
        assert (held / "content").exists()
        assert not (tmp_path / ".k.0000000000bb.tmp").exists()
    assert not held.exists()
    assert all((tmp_path / name).is_dir() for name in names)
    assert (tmp_path / ".k.00000000000f.tmp").exists()
    assert (tmp_path / ".k.0000000000aa.tmp").is_symlink()
    assert (tmp_path / "elsewhere").is_dir()


def test_a_directory_swept_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    made, mkdir = [], os.mkdir

    def swept(path, *args, **options):
        mkdir(path, *args, **options)
        made.append(path)
        if len(made) == 1:
            os.rmdir(path)  # what a sweep between the making and the lock does

    monkeypatch.setattr(os, "mkdir", swept)
    with locks.new_directory(tmp_path / "k") as folder:
        assert folder == made[1]
        assert folder.is_dir()
    assert left(tmp_path) == []


def test_creators_at_the_same_time(tmp_path):
    content = identity.identity(Blocks(NET, rows(8), None, ("ck", "ntk"), np.float64, None), 4)
    for k in range(6):
        path = tmp_path / str(k) / "k"
        path.parent.mkdir()
        (path.parent / ".k.0123456789ab.tmp").mkdir()
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(files.create, path, content, whole=True) for _ in range(4)]:
                future.result()
        store = files.open_store(path)
        assert store.identity == content
        store.prepare("ntk")
        assert [entry.name for entry in path.parent.iterdir()] == ["k"]


# ---------------------------------------------------------------------------------------------- solvers' interface
@pytest.fixture(scope="module", params=["stored", "live"])
def kernel(request, tmp_path_factory):
    x = rows(60)
    if request.param == "live":
        return KernelMatrix.on_the_fly(NET, x, tile=32)
    return KernelMatrix.compute(NET, x, tmp_path_factory.mktemp("store") / "k", tile=32)


def test_the_solvers_take_a_kernel_in_tiles(kernel):
    dense = np.asarray(kernel)
    found = rn.eigenpairs(kernel, 3, which="magnitude", tol=1e-9)
    own = kernel.eigenpairs(3, which="magnitude", tol=1e-9)
    assert isinstance(found, rn.Eigenpairs)
    assert found.method == "lanczos"
    np.testing.assert_array_equal(found.values, own.values)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(dense)[::-1][:3], rtol=1e-12)
    b, seen = rows(60, 2, seed=1), []
    solved = rn.ridge_solve(kernel, b, 0.1, tol=1e-10, landmarks=5, progress=lambda n, r: seen.append(r))
    assert isinstance(solved, rn.RidgeSolution)
    assert solved.method == "cg"
    assert len(seen) == solved.n_iter > 0
    want = np.linalg.solve(dense + 0.1 * np.eye(60), b)
    assert np.linalg.norm(solved.x - want) <= 1e-10 * np.linalg.norm(b) / 0.1  # residual over ridge
    assert rn.ridge_solve(kernel, b[:, 0], 0.1, method="cg").x.shape == (60,)
    assert not rn.ridge_solve(kernel, b, 1e-3, landmarks=0, maxiter=1, throw=False).converged
    with pytest.raises(rn.ConvergenceError, match="maxiter"):
        rn.eigenpairs(kernel, 5, maxiter=1)


def test_what_tiles_cannot_do_is_refused(kernel):
    b = np.ones(60)
    with pytest.raises(ValueError, match="`method` must be 'auto' or 'cg' for a kernel in tiles, got 'direct'"):
        rn.ridge_solve(kernel, b, 0.1, method="direct")
    with pytest.raises(ValueError, match="`precision` must be 'double' for a kernel in tiles, got 'mixed'"):
        rn.ridge_solve(kernel, b, 0.1, precision="mixed")
    cross = KernelMatrix.on_the_fly(NET, rows(60), y=rows(60, seed=1), tile=32)
    with pytest.raises(ValueError, match="`operator` must be a symmetric kernel for a ridge system"):
        rn.ridge_solve(cross, b, 0.1)
    with pytest.raises(ValueError, match="`operator` must be a symmetric kernel for eigenpairs"):
        rn.eigenpairs(cross, 1)
    for wrong in (np.asarray(kernel), None):
        with pytest.raises(TypeError, match=r"`operator` must be an Equivalent, .* or a Kernel"):
            rn.eigenpairs(wrong, 1)
