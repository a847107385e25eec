"""Tiles on a Dask cluster of several processes, one of them killed, against a single process."""

import os
import signal
import threading

import numpy as np
import pytest

import rmtntk as rn
from rmtntk.errors import MemoryLimitError
from rmtntk.store import KernelMatrix, StoreError, budget

pytest.importorskip("zarr")
distributed = pytest.importorskip("distributed")

from rmtntk.store import distributed as ours  # noqa: E402 - after the skip

NET = rn.Network(["relu", "tanh"])


def data(n):
    return (np.random.default_rng(0).standard_normal((n, 30)) / 30**0.5).astype(np.float32)


def tiles(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.glob("*/c/*/[0-9]*")}


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with (
        distributed.LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
            worker_dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore")  # Dask's own, while processes of its die
def test_a_cluster_whose_worker_is_killed(client, tmp_path, monkeypatch):
    x = data(320)
    options = {"kind": ("ck", "ntk"), "tile": 16}
    KernelMatrix.compute(NET, x, tmp_path / "single", **options)
    victims = list(client.run(os.getpid).values())
    seen = []

    def kill(progress):
        seen.append(progress.done)
        if len(seen) == 20:
            os.kill(victims[0], signal.SIGKILL)

    ck, _ = ours.compute_distributed(client, NET, x, tmp_path / "many", progress=kill, **options)
    assert victims[0] not in client.run(os.getpid).values()
    assert seen == list(range(1, ck.n_tiles + 1))
    assert tiles(tmp_path / "many") == tiles(tmp_path / "single")
    np.testing.assert_array_equal(ck.to_dask().compute(scheduler=client), np.asarray(ck))
    # either goes on where the other stopped
    for name in ("ck/c/3/5", "ntk/c/0/0"):
        (tmp_path / "many" / name).unlink()
    ours.compute_distributed(client, NET, x, tmp_path / "many", **options)
    assert tiles(tmp_path / "many") == tiles(tmp_path / "single")
    with pytest.raises(StoreError, match="another kernel"):
        ours.compute_distributed(client, NET, x + 1, tmp_path / "many", **options)
    monkeypatch.setattr(ours, "__version__", "0.0.1")  # here, not in the workers
    with pytest.raises(StoreError, match=r"the worker .* has rmtntk"):
        ours.compute_distributed(client, NET, x, tmp_path / "other", **options)


def test_arguments(tmp_path):
    with pytest.raises(TypeError, match="`client`"):
        ours.compute_distributed(threading.Thread(), NET, data(5), tmp_path / "k")


@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_the_memory_of_workers_is_asked_before_anything_is_sent(client, tmp_path, monkeypatch):
    x = data(100)
    sent = []
    monkeypatch.setattr(client, "scatter", lambda *args, **options: sent.append(args))
    with pytest.raises(MemoryLimitError, match=r"`memory_limit` must be at least .* a worker holds .*take a larger"):
        ours.compute_distributed(client, NET, x, tmp_path / "k", tile=16, memory_limit="20MiB")
    held = max(client.run(budget.resident).values())
    with pytest.raises(MemoryLimitError, match=r"a tile of 3000 rows needs .*; take tile=\d+"):
        ours.compute_distributed(client, NET, data(3000), tmp_path / "k", tile=3000, memory_limit=held + (140 << 20))
    assert not (tmp_path / "k").exists()
    monkeypatch.undo()
    assert not sent
    kernel = ours.compute_distributed(client, NET, x, tmp_path / "k", tile=16, memory_limit="4GiB")
    KernelMatrix.compute(NET, x, tmp_path / "single", tile=16)
    assert tiles(tmp_path / "k") == tiles(tmp_path / "single")
    assert kernel.n_tiles_done == kernel.n_tiles
