"""Kernels on disk and on the fly against those in memory: entries, indexing, products, refusals."""

import json
import pickle
import threading

import numpy as np
import pytest
from scipy.sparse.linalg import cg, eigsh

import rmtntk as rn
from rmtntk import activations
from rmtntk.errors import InfiniteDiagonalError, MemoryLimitError, MissingExtraError
from rmtntk.store import (
    DiskSpaceError,
    KernelMatrix,
    StoreError,
    StoreLockedError,
    UnfinishedStoreError,
    blocks,
    budget,
    files,
)

zarr = pytest.importorskip("zarr")

RELU = rn.Network(["relu", "relu"])
STEP = rn.Network([activations.step([-0.6, 0.8], [-1.0, 0.0, 1.0])])


def rows(n, p=20, seed=0, dtype=np.float64):
    return (np.random.default_rng(seed).standard_normal((n, p)) / np.sqrt(p)).astype(dtype)


def in_memory(net, x, kind, y=None, **options):
    return getattr(rn, kind)(net, x, y, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """CK and NTK of 90 rows in tiles of 32, with the same in memory."""
    path = tmp_path_factory.mktemp("store") / "k.zarr"
    x = rows(90)
    ck, ntk = KernelMatrix.compute(RELU, x, path, kind=("ck", "ntk"), tile=32, dtype="float64")
    return path, x, ck, ntk, rn.ck(RELU, x), rn.ntk(RELU, x)


# Products of the same rows in blocks of another shape are summed in another order: some eps of the diagonals' size.
def close(found, want, scale=None):
    scale = np.abs(want).max() if scale is None else scale
    assert found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=0, atol=8 * np.finfo(found.dtype).eps * scale)


# --------------------------------------------------------------------------------------------- entries
@pytest.mark.parametrize("n, tile", [(1, 4), (5, 1), (7, 7), (33, 16), (33, 1000), (70, 32)])
@pytest.mark.parametrize("kind", ["ck", "nngp", "ntk"])
def test_any_number_of_rows_in_any_tiles(tmp_path, n, tile, kind):
    net = rn.Network(["relu", "erf"], weight_std=1.3, bias_std=0.2)
    x = rows(n)
    kernel = KernelMatrix.compute(net, x, tmp_path / "k", kind=kind, tile=tile, dtype="float64")
    want = in_memory(net, x, kind)
    found = np.asarray(kernel)
    close(found, want)
    assert (found == found.T).all()
    assert kernel.n_tiles == kernel.n_tiles_done == sum(range(1, -(-n // tile) + 1))
    # closed forms of each row: nothing to sum in another order
    np.testing.assert_array_equal(kernel.diagonal(), want.diagonal())
    np.testing.assert_array_equal(found.diagonal(), want.diagonal())


@pytest.mark.parametrize(
    "acts",
    [
        ["relu"] * 3,
        ["tanh", "tanh"],
        ["elu"],
        ["gelu", "sin"],
        [activations.custom(lambda t: t / (1 + t * t), derivative=lambda t: (1 - t * t) / (1 + t * t) ** 2)],
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_families_and_types(tmp_path, acts, dtype):
    net = rn.Network(acts)
    x = rows(150, 30, dtype=dtype)
    x[7] = x[100]  # a pair at ρ = 1 in different tiles
    x[8] = -x[101]
    found = KernelMatrix.compute(net, x, tmp_path / "k", kind=("ck", "ntk"), tile=64, dtype=dtype)
    for kernel in found:
        assert kernel.dtype == dtype
        want = in_memory(net, x, kernel.kind, dtype=dtype)
        # float32 products differ in the last place of x·y, which layers carry on
        close(np.asarray(kernel), want)
        live = KernelMatrix.on_the_fly(net, x, kind=kernel.kind, tile=64, dtype=dtype)
        np.testing.assert_array_equal(np.asarray(live), np.asarray(kernel))


def test_tables_of_each_block_give_the_same_kernel(tmp_path, monkeypatch):
    x = rows(100)
    for acts in (["tanh"], ["elu", "relu"]):
        net = rn.Network(acts)
        source = blocks.Blocks(net, x, None, ("ck", "ntk"), "float64", None)
        source.prepare(whole=False)
        want = rn.ck_ntk(net, x)
        for kind, kernel in zip(("ck", "ntk"), want, strict=True):
            for part in ((slice(0, 40), slice(0, 40)), (slice(0, 40), slice(40, 100))):
                found = source.block(*part)[kind]
                # series may have other numbers of terms: within the activations' tolerance, 1e-10 of the diagonal
                np.testing.assert_allclose(found, kernel[part], rtol=0, atol=1e-10 * kernel.max())
        np.testing.assert_allclose(source.diagonal("ntk"), want[1].diagonal(), rtol=1e-14)


def test_rectangular(tmp_path):
    x, y = rows(50), rows(37, seed=1)
    net = rn.Network(["relu", "tanh"], bias_std=0.1)
    kernel = KernelMatrix.compute(net, x, tmp_path / "k", kind="ntk", y=y, tile=16, dtype="float64")
    want = rn.ntk(net, x, y)
    assert not kernel.is_symmetric
    assert kernel.n_tiles == 4 * 3
    close(np.asarray(kernel), want)
    v, w = rows(37, 3), rows(50, 2)
    np.testing.assert_allclose(kernel @ v, want @ v, atol=1e-13)
    np.testing.assert_allclose(w.T @ kernel, w.T @ want, atol=1e-13)
    operator = kernel.as_linear_operator()
    np.testing.assert_allclose(operator.T @ w, want.T @ w, atol=1e-13)
    np.testing.assert_allclose(operator.rmatvec(w[:, 0]), want.T @ w[:, 0], atol=1e-13)
    np.testing.assert_array_equal(kernel.diagonal(), np.asarray(kernel).diagonal())
    with pytest.raises(ValueError, match="symmetric"):
        kernel.eigenpairs(2)
    with pytest.raises(ValueError, match="symmetric"):
        kernel.ridge_solve(w, 1.0)


def test_the_scale_is_that_of_all_the_data(tmp_path):
    x = rows(60) * np.linspace(0.5, 2.0, 60)[:, None]  # no two tiles have the same tau0
    kernel = KernelMatrix.compute(rn.Network(["tanh"]), x, tmp_path / "k", kind="ck", tile=16)
    assert (kernel.kind, kernel.dtype) == ("ck", np.float64)
    close(np.asarray(kernel), rn.ck(rn.Network(["tanh"]), x))


def test_memory_map(tmp_path):
    x = rows(60, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    first = KernelMatrix.compute(RELU, mapped, tmp_path / "k", tile=32, dtype="float32")
    KernelMatrix.compute(RELU, x, tmp_path / "k", tile=32, dtype="float32")  # the same values: the same store
    own = KernelMatrix.compute(RELU, x, tmp_path / "own", tile=32, dtype="float32")
    np.testing.assert_array_equal(np.asarray(first), np.asarray(own))


def test_rows_at_odd_addresses(tmp_path):
    x = rows(60, dtype=np.float32)
    odd = np.frombuffer(b"." + x.tobytes(), dtype=np.float32, offset=1).reshape(x.shape)
    assert not odd.flags.aligned
    live = [KernelMatrix.on_the_fly(RELU, data, tile=32, dtype="float32") for data in (x, odd)]
    np.testing.assert_array_equal(np.asarray(live[0]), np.asarray(live[1]))


# ------------------------------------------------------------------------------- activations that jump
def test_infinite_diagonals(tmp_path):
    x = rows(40)
    with pytest.raises(InfiniteDiagonalError, match="diagonal="):
        KernelMatrix.compute(STEP, x, tmp_path / "k", kind="ntk", tile=16)
    assert not (tmp_path / "k").exists()  # before any work
    with pytest.raises(InfiniteDiagonalError):
        KernelMatrix.on_the_fly(STEP, x, kind="ntk")
    values = np.arange(1.0, 41.0)
    for name, diagonal in (("nan", "nan"), ("number", 3.0), ("array", values)):
        kernel = KernelMatrix.compute(STEP, x, tmp_path / name, kind="ntk", tile=16, dtype="float64", diagonal=diagonal)
        want = rn.ntk(STEP, x, diagonal=diagonal)
        np.testing.assert_allclose(np.asarray(kernel), want, atol=1e-13)
        np.testing.assert_array_equal(kernel.diagonal(), want.diagonal())
        live = KernelMatrix.on_the_fly(STEP, x, kind="ntk", tile=16, dtype="float64", diagonal=diagonal)
        np.testing.assert_array_equal(live.diagonal(), want.diagonal())
    with pytest.raises(StoreError, match="`diagonal`"):
        KernelMatrix.compute(STEP, x, tmp_path / "array", kind="ntk", tile=16, dtype="float64", diagonal=values + 1)
    x[30] = x[2]
    with pytest.raises(InfiniteDiagonalError, match="rows 2 and 30"):
        KernelMatrix.compute(STEP, x, tmp_path / "twice", kind="ntk", tile=16, diagonal=values)


# -------------------------------------------------------------------------------------------- indexing
KEYS = [
    3, -1, np.int64(4), slice(None), slice(5, 40), slice(60, 10, -7), slice(0, 0), [1, 40, 40, 2], [],
    np.array([[0, 50], [3, 89]]),
    (3, 5), (5, 3), (80, 2), (slice(3, 70), 4), (4, slice(3, 70)), (slice(None, None, 3), slice(50, 10, -2)),
    ([1, 50, 7], [2, 3, 80]), ([50, 1], slice(None)), (slice(10, 60), [70, 1, 1]), np.ix_([1, 70, 33], [80, 0]),
    ([[1], [50]], [[2, 60, 3]]), (5, [1, 80]), ([1, 80], 5), (..., 3), (3, ...), ...,
    (slice(None), ...), (slice(2, 3), slice(5, 5)),
    (np.arange(90) % 7 == 0, slice(None)), (np.arange(90) % 7 == 0, np.arange(90) % 30 == 1), np.arange(90) > 80,
    np.add.outer(np.arange(90), np.arange(90)) % 11 == 0, (np.array(3), np.array([4, 5])), ([-1, -90], [0, -2]),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=lambda key: str(key)[:30].replace("\n", " "))
def test_indexing_is_numpys(pair, key):
    try:
        want = np.asarray(pair[2])[key]
    except IndexError:  # masks of different lengths, in NumPy too
        with pytest.raises((IndexError, ValueError)):
            pair[2][key]
        return
    found = pair[2][key]
    np.testing.assert_array_equal(found, want)
    assert np.shape(found) == np.shape(want)
    assert type(found) is type(want)


@pytest.mark.parametrize(
    "key",
    [90, -91, (0, 90), [0, 90], 1.5, "a", (1, 2, 3), None, np.ones(89, bool), np.ones((2, 2), bool), (..., ...)],
    ids=str,
)
def test_bad_indices(pair, key):
    if key is not None:  # NumPy would add an axis
        with pytest.raises(IndexError):
            np.zeros((90, 90))[key]
    with pytest.raises(IndexError):
        pair[2][key]


def test_mirrored_tiles_are_read_once(pair, monkeypatch):
    kernel = KernelMatrix.open(pair[0], kind="ck", cache=0)
    seen = []
    read = files.Store.read
    monkeypatch.setattr(files.Store, "read", lambda self, kind, i, j: (seen.append((i, j)), read(self, kind, i, j))[1])
    np.asarray(kernel)
    assert sorted(seen) == [(i, j) for i in range(3) for j in range(i, 3)]
    seen.clear()
    kernel @ np.ones((90, 50))
    assert sorted(seen) == [(i, j) for i in range(3) for j in range(i, 3)]


# -------------------------------------------------------------------------------------------- products
@pytest.mark.parametrize("live", [False, True], ids=["stored", "on the fly"])
@pytest.mark.parametrize("cache", [0, 3 * 32 * 32 * 8, "1MiB"])
def test_products(pair, live, cache):
    path, x, _, _, want, _ = pair
    if live:
        kernel = KernelMatrix.on_the_fly(RELU, x, kind="ck", tile=32, cache=cache)
    else:
        kernel = KernelMatrix.open(path, kind="ck", cache=cache)
    block = rows(90, 4)
    for _ in range(2):  # from the cache as well
        np.testing.assert_allclose(kernel @ block, want @ block, rtol=0, atol=1e-14 * np.abs(want).sum())
        np.testing.assert_array_equal(kernel @ block[:, 0], (kernel @ block[:, :1])[:, 0])
        np.testing.assert_allclose(block.T @ kernel, block.T @ want, rtol=0, atol=1e-14 * np.abs(want).sum())
    assert kernel._cache.nbytes <= budget.parse_bytes(cache, "cache")
    assert kernel.trace() == pytest.approx(np.trace(want), rel=1e-14)
    with pytest.raises(ValueError, match="90 entries"):
        kernel @ np.ones(89)
    with pytest.raises(ValueError, match="finite"):
        kernel @ np.full(90, np.nan)


def test_float32_tiles_are_summed_in_float64(tmp_path):
    x = rows(500, dtype=np.float32)
    kernel = KernelMatrix.compute(RELU, x, tmp_path / "k", tile=128, dtype="float32")
    dense = np.asarray(kernel).astype(np.float64)
    v = np.ones(500)
    np.testing.assert_allclose(kernel @ v, dense @ v, rtol=1e-12)
    assert (kernel @ v.astype(np.float32)).dtype == np.float32


def test_eigenvalues_and_systems(pair):
    _, _, ck, _, want, _ = pair
    values = np.linalg.eigvalsh(want)[::-1]
    operator = ck.as_linear_operator()
    np.testing.assert_allclose(eigsh(operator, k=3, v0=np.ones(90))[0][::-1], values[:3], rtol=1e-12)
    found = ck.eigenpairs(3)
    assert found.converged
    np.testing.assert_allclose(found.values, values[:3], rtol=1e-12)  # errors are residuals squared over gaps
    for k in range(3):
        v = found.vectors[:, k]
        assert np.linalg.norm(want @ v - found.values[k] * v) <= 2e-8 * values[0]
    b = rows(90, 2)
    ridge = 1e-2
    exact = np.linalg.solve(want + ridge * np.eye(90), b)
    for landmarks in (None, 0, 90):
        solved = ck.ridge_solve(b, ridge, landmarks=landmarks, tol=1e-10)
        assert solved.converged
        # the error is at most the residual over the ridge
        assert np.linalg.norm(solved.x - exact) <= 1e-10 * np.linalg.norm(b) / ridge
    assert ck.ridge_solve(b[:, 0], ridge).x.shape == (90,)
    assert (ck.ridge_solve(np.zeros(90), ridge).x == 0.0).all()
    x, info = cg(operator + ridge * rn_identity(90), b[:, 0], rtol=1e-10, maxiter=500)
    assert info == 0
    assert np.linalg.norm(x - exact[:, 0]) <= 1e-9 * np.linalg.norm(b) / ridge
    with pytest.raises(rn.ConvergenceError, match="maxiter"):
        ck.ridge_solve(b, 1e-9, landmarks=0, maxiter=1)
    assert not ck.eigenpairs(5, maxiter=1, throw=False).converged
    with pytest.raises(rn.ConvergenceError, match="maxiter"):
        ck.eigenpairs(5, maxiter=1)


def rn_identity(n):
    from scipy.sparse.linalg import aslinearoperator

    return aslinearoperator(np.eye(n))


def test_scipy_takes_the_kernel_itself(pair):
    _, _, ck, _, want, _ = pair
    found = eigsh(ck, k=2, v0=np.ones(90), return_eigenvectors=False)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(want)[-2:], rtol=1e-12)


def test_a_matrix_that_is_not_positive_is_found_out(tmp_path):
    net = rn.Network(["relu"])
    kernel = KernelMatrix.compute(net, rows(60), tmp_path / "k", tile=32, dtype="float64", y=None)
    kernel._source = Negated(kernel._source)
    kernel._cache.source = kernel._source
    with pytest.raises(rn.ConvergenceError, match="not positive definite"):
        kernel.ridge_solve(np.ones(60), 0.0, landmarks=0)


class Negated:
    def __init__(self, source):
        self.__dict__.update(source.__dict__)
        self.source = source
        self.threaded = False

    def tile(self, i, j):
        return -self.source.tile(i, j)

    def diagonal(self):
        return None


def test_cost(pair):
    _, x, ck, _, _, _ = pair
    live = KernelMatrix.on_the_fly(RELU, x, tile=32, cache="1MiB")
    cost = live.cost()
    assert cost.n_tiles == 6
    assert cost.n_cached == 0
    assert cost.multiplications == 20 * sum(32 * w for w in (90, 58)) + 20 * 26 * 26
    assert cost.seconds > 0.0
    live @ np.ones(90)
    assert live.cost().n_cached == 6
    assert live.cost().multiplications == 0.0
    stored = ck.cost()
    assert stored.bytes_read == ck.nbytes_stored > 0
    assert np.isnan(stored.seconds)


# ----------------------------------------------------------------------------------- the store as such
def test_others_can_read_it(pair):
    path, _, _, _, want, _ = pair
    group = zarr.open_group(path, mode="r")
    assert sorted(name for name, _ in group.arrays()) == ["ck", "ntk"]
    array = group["ck"]
    assert array.metadata.zarr_format == 3
    assert any("crc32c" in str(codec).lower() for codec in array.compressors)
    upper = np.triu_indices(90)
    close(array[:][upper], want[upper])
    assert np.isnan(array[40:, :30]).all()  # stored once
    assert len(list((path / "ck" / "c").glob("*/*"))) == 6


def test_open(pair):
    path = pair[0]
    ck = KernelMatrix.open(path, kind="ck")
    ntk, again = KernelMatrix.open(path, kind=("ntk", "ck"))
    np.testing.assert_array_equal(np.asarray(ck), np.asarray(again))
    assert ntk.kind == "ntk"
    assert "6 of 6 tiles" in repr(ck)
    assert ck.path == path
    assert len(ck) == 90
    with pytest.raises(ValueError, match="`kind`"):
        KernelMatrix.open(path)
    with pytest.raises(ValueError, match="'nngp'"):
        KernelMatrix.open(path, kind="nngp")
    copy = pickle.loads(pickle.dumps(ck))
    np.testing.assert_array_equal(np.asarray(copy), np.asarray(ck))
    with pytest.raises(FileNotFoundError):
        KernelMatrix.open(path / "nowhere")


def test_dask(pair):
    pytest.importorskip("dask.array")
    _, x, ck, _, _, _ = pair
    view = ck.to_dask()
    assert view.chunks == ((32, 32, 26), (32, 32, 26))
    assert view.dtype == ck.dtype
    np.testing.assert_array_equal(view.compute(scheduler="threads"), np.asarray(ck))
    np.testing.assert_array_equal(view[40:, :50].compute(scheduler="synchronous"), ck[40:, :50])
    assert view.name == KernelMatrix.open(ck.path, kind="ck").to_dask().name  # the same kernel, the same name
    live = KernelMatrix.on_the_fly(RELU, x, kind="ck", tile=32).to_dask()
    np.testing.assert_array_equal(live.compute(scheduler="synchronous"), np.asarray(ck))


def test_without_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"rmtntk\[store\]"):
        KernelMatrix.compute(RELU, rows(5), tmp_path / "k")
    with pytest.raises(MissingExtraError, match=r"rmtntk\[store\]"):
        KernelMatrix.open(tmp_path / "k")
    assert not (tmp_path / "k").exists()
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(MissingExtraError, match=r"rmtntk\[distributed\]"):
        KernelMatrix.on_the_fly(RELU, rows(5)).to_dask()


# --------------------------------------------------------------------------- going on, and refusing to
def test_the_same_call_returns_the_store_without_computing(tmp_path, monkeypatch):
    x = rows(50)
    first = KernelMatrix.compute(RELU, x, tmp_path / "k", tile=16)
    monkeypatch.setattr(blocks.Blocks, "block", lambda *a: pytest.fail("computed again"))
    again = KernelMatrix.compute(RELU, x.copy(), tmp_path / "k", tile=16)
    named = KernelMatrix.compute(rn.Network([activations.get("relu")] * 2), x, tmp_path / "k", tile=16)
    for kernel in (again, named):
        np.testing.assert_array_equal(np.asarray(kernel), np.asarray(first))


def custom(slope):
    return activations.custom(lambda t: slope * t / (1 + t * t))


CHANGES = {
    "activation": ({"net": rn.Network(["relu", "erf"])}, "network"),
    "parameter": ({"net": rn.Network(["relu", activations.leaky_relu(0.1)])}, "network"),
    "weights": ({"net": rn.Network(["relu", "relu"], weight_std=1.1)}, "network"),
    "bias": ({"net": rn.Network(["relu", "relu"], bias_std=0.1)}, "network"),
    "centring": ({"net": rn.Network(["relu", "relu"], centered=False)}, "network"),
    "scaling": ({"net": rn.Network(["relu", "relu"], input_scaling="fan_in")}, "network"),
    "tau0": ({"net": rn.Network(["relu", "relu"], tau0=2.0)}, "tau0"),
    "data": ({"x": rows(50, seed=3)}, "data `x`"),
    "one value": ({"x": np.where(np.arange(50)[:, None] == 7, np.nextafter(rows(50), 9), rows(50))}, "data `x`"),
    "more data": ({"x": rows(51)}, "shape"),
    "y": ({"y": rows(50)}, "symmetry"),
    "kind": ({"kind": "ntk"}, "`kind`"),
    "kinds": ({"kind": ("ck", "ntk")}, "`kind`"),
    "tile": ({"tile": 17}, "`tile`"),
    "dtype": ({"dtype": "float32"}, "`dtype`"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_call_is_refused(tmp_path, change):
    options = {"net": RELU, "x": rows(50), "kind": "ck", "tile": 16, "dtype": "float64"}
    KernelMatrix.compute(path=tmp_path / "k", **options)
    before = contents(tmp_path / "k")
    with pytest.raises(StoreError, match="another kernel") as caught:
        KernelMatrix.compute(path=tmp_path / "k", **(options | CHANGES[change][0]))
    assert CHANGES[change][1] in str(caught.value)
    assert contents(tmp_path / "k") == before


def test_functions_are_told_apart_by_their_values(tmp_path):
    x = rows(20)
    KernelMatrix.compute(rn.Network([custom(1.0)]), x, tmp_path / "k")
    KernelMatrix.compute(rn.Network([custom(1.0)]), x, tmp_path / "k")  # another object, the same function
    with pytest.raises(StoreError, match="network"):
        KernelMatrix.compute(rn.Network([custom(1.0 + 1e-12)]), x, tmp_path / "k")


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def interrupted(path, after, **options):
    """Stop a computation after some tiles."""

    def stop(progress):
        if progress.done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KernelMatrix.compute(path=path, progress=stop, **options)


def tiles(path):
    return {name: content for name, content in contents(path).items() if "/c/" in name}


def test_an_interrupted_run_goes_on(tmp_path):
    options = {"net": rn.Network(["tanh"]), "x": rows(100), "kind": ("ck", "ntk"), "tile": 16, "dtype": "float64"}
    KernelMatrix.compute(path=tmp_path / "whole", **options)
    interrupted(tmp_path / "k", 5, **options)
    kernel = KernelMatrix.open(tmp_path / "k", kind="ck")
    found = kernel.n_tiles_done
    assert 5 <= found < kernel.n_tiles == 28
    with pytest.raises(UnfinishedStoreError, match=r"tile \(6, 6\) of 'ck' has not been computed yet"):
        kernel[99, 99]
    assert kernel[0, 0] == KernelMatrix.open(tmp_path / "whole", kind="ck")[0, 0]
    with pytest.raises(UnfinishedStoreError):
        kernel @ np.ones(100)
    seen = []
    KernelMatrix.compute(path=tmp_path / "k", progress=seen.append, **options)
    assert [state.done for state in seen] == list(range(found + 1, 29))
    assert seen[-1].remaining == 0.0
    assert all(state.total == 28 and state.seconds > 0.0 for state in seen)
    assert tiles(tmp_path / "k") == tiles(tmp_path / "whole")
    np.asarray(kernel)  # the reader that was open sees the rest


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_damaged_tiles_are_noticed_and_made_again(tmp_path, damage):
    options = {"net": RELU, "x": rows(60), "kind": "ck", "tile": 16, "path": tmp_path / "k"}
    KernelMatrix.compute(**options)
    before = tiles(tmp_path / "k")
    file = tmp_path / "k" / "ck" / "c" / "1" / "2"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    kernel = KernelMatrix.open(tmp_path / "k")
    with pytest.raises(StoreError, match=r"tile \(1, 2\)"):
        kernel[20, 40]
    with pytest.raises(StoreError, match=r"tile \(1, 2\)"):
        kernel @ np.ones(60)
    (tmp_path / "k" / "ck" / "c" / "1" / ".2.abc.tmp").write_bytes(b"left by a killed writer")
    KernelMatrix.compute(**options)
    assert tiles(tmp_path / "k") == before


def test_a_store_begun_by_another_version_is_not_mixed(tmp_path):
    options = {"net": RELU, "x": rows(60), "tile": 16}
    interrupted(tmp_path / "k", 2, **options)
    document = json.loads((tmp_path / "k" / "zarr.json").read_text())
    document["attributes"]["rmtntk"]["rmtntk"] = "0.0.1"
    (tmp_path / "k" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"0\.0\.1"):
        KernelMatrix.compute(path=tmp_path / "k", **options)


def test_foreign_and_altered_directories(tmp_path):
    x = rows(20)
    (tmp_path / "file").write_text("text")
    with pytest.raises(StoreError, match="the file"):
        KernelMatrix.compute(RELU, x, tmp_path / "file")
    with pytest.raises(StoreError, match="the file"):
        KernelMatrix.open(tmp_path / "file")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("text")
    zarr.create_group(tmp_path / "group", attributes={"a": 1})
    for name in ("foreign", "group"):
        before = contents(tmp_path / name)
        with pytest.raises(StoreError):
            KernelMatrix.compute(RELU, x, tmp_path / name)
        with pytest.raises(StoreError):
            KernelMatrix.open(tmp_path / name)
        assert contents(tmp_path / name) == before
    (tmp_path / "empty").mkdir()
    KernelMatrix.compute(RELU, x, tmp_path / "empty", kind="ck", dtype="float32")
    with pytest.raises(FileNotFoundError, match="existing directory"):
        KernelMatrix.compute(RELU, x, tmp_path / "no" / "parent")
    document = (tmp_path / "empty" / "zarr.json").read_text()
    for old, new, message in (
        ('"bias_std": 0.0', '"bias_std": 0.5', "altered"),
        ('"version": 1', '"version": 99', "version 99"),
        (document[len(document) // 2 :], "", "did not write"),
    ):
        assert old in document
        (tmp_path / "empty" / "zarr.json").write_text(document.replace(old, new))
        with pytest.raises(StoreError, match=message):
            KernelMatrix.open(tmp_path / "empty")
    (tmp_path / "empty" / "zarr.json").write_text(document)
    inner = tmp_path / "empty" / "ck" / "zarr.json"
    inner.write_text(inner.read_text().replace("float32", "float64"))
    with pytest.raises(StoreError, match="altered"):
        KernelMatrix.open(tmp_path / "empty")


def test_an_unwritable_directory(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "mkdir", refuse)
        with pytest.raises(PermissionError, match="`path`"):
            KernelMatrix.compute(RELU, rows(20), tmp_path / "k")
    assert list(tmp_path.iterdir()) == []
    options = {"net": RELU, "x": rows(60), "tile": 16, "path": tmp_path / "k"}
    interrupted(after=2, **options)
    store = files.open_store(tmp_path / "k")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError, match="must be writable"), store.lock():
        pass


def test_two_writers(tmp_path):
    options = {"net": RELU, "x": rows(60), "tile": 16, "path": tmp_path / "k"}
    errors = []

    def meanwhile(progress):
        if progress.done == 2:

            def other():
                try:
                    KernelMatrix.compute(**options)
                except StoreError as error:
                    errors.append(error)

            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert KernelMatrix.open(tmp_path / "k")[0, 0] > 0.0  # readers are welcome

    KernelMatrix.compute(progress=meanwhile, **options)
    assert [type(error) for error in errors] == [StoreLockedError]
    KernelMatrix.compute(**options)


# ------------------------------------------------------------------------------------- disk and memory
def test_a_full_disk(tmp_path, monkeypatch):
    options = {"net": RELU, "x": rows(100), "tile": 16, "kind": ("ck", "ntk")}
    KernelMatrix.compute(path=tmp_path / "whole", **options)
    write = files.write_file
    count = iter(range(1000))

    def fill_up(path, content):
        if "c" in path.parts and next(count) > 20:
            with open(path.with_name(f".{path.name}.x.tmp"), "wb") as stream:
                stream.write(bytes(content)[:10])
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(files, "write_file", fill_up)
    with pytest.raises(DiskSpaceError, match=r"of 28 tiles are finished and kept") as caught:
        KernelMatrix.compute(path=tmp_path / "k", **options)
    assert isinstance(caught.value, OSError)
    monkeypatch.undo()
    kernel = KernelMatrix.open(tmp_path / "k", kind="ck")
    assert 5 <= kernel.n_tiles_done < 28
    kernel[0, 0]
    KernelMatrix.compute(path=tmp_path / "k", **options)
    assert tiles(tmp_path / "k") == tiles(tmp_path / "whole")


def test_room_on_the_disk_is_checked_before(tmp_path, monkeypatch):
    from rmtntk.store import compute

    options = {"net": RELU, "x": rows(100), "tile": 16, "dtype": "float64", "path": tmp_path / "k"}
    entries = sum(16 * (100 - i) for i in range(0, 96, 16)) + 4 * 4
    monkeypatch.setattr(compute, "disk_free", lambda path: 8 * entries - 1)
    with pytest.raises(DiskSpaceError, match="free"):
        KernelMatrix.compute(**options)
    assert not (tmp_path / "k").exists()
    monkeypatch.setattr(compute, "disk_free", lambda path: 8 * entries)
    interrupted(after=10, **options)
    monkeypatch.setattr(compute, "disk_free", lambda path: 8 * 16 * 16 * 10)
    with pytest.raises(DiskSpaceError):
        KernelMatrix.compute(**options)
    KernelMatrix.compute(check_disk=False, **options)


def test_a_tile_larger_than_the_memory_limit(tmp_path):
    x = rows(4000)
    limit = budget.resident() + 150 * 2**20
    with pytest.raises(MemoryLimitError, match=r"take tile=\d+") as caught:
        KernelMatrix.compute(RELU, x, tmp_path / "k", tile=4000, dtype="float64", memory_limit=limit)
    assert not (tmp_path / "k").exists()
    with pytest.raises(MemoryLimitError):
        KernelMatrix.on_the_fly(RELU, x, tile=4000, dtype="float64", memory_limit=limit)
    with pytest.raises(MemoryLimitError, match="`memory_limit`"):
        KernelMatrix.compute(RELU, x, tmp_path / "k", memory_limit="10MiB")
    better = int(str(caught.value).split("take tile=")[1])
    assert better < 4000
    KernelMatrix.on_the_fly(RELU, x, tile=better, dtype="float64", memory_limit=limit)


def test_results_that_do_not_fit(pair, monkeypatch):
    kernel = KernelMatrix.open(pair[0], kind="ck")
    monkeypatch.setattr(budget, "available_memory", lambda: 90 * 90 * 8 - 1)
    with pytest.raises(MemoryLimitError, match="kernel\\[:1000\\]"):
        np.asarray(kernel)
    with pytest.raises(MemoryLimitError, match="fewer rows"):
        kernel[:]
    assert kernel[:89].shape == (89, 90)
    np.asarray(kernel, dtype=np.float32)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # before, copy=False only asks for none
        with pytest.raises(ValueError, match="copy"):
            np.array(kernel, copy=False)


def test_a_bar(tmp_path, capsys):
    pytest.importorskip("tqdm")
    KernelMatrix.compute(RELU, rows(60), tmp_path / "k", tile=16, progress=True)
    assert "/10 [" in capsys.readouterr().err
    KernelMatrix.compute(RELU, rows(60), tmp_path / "quiet", tile=16)  # stderr is no terminal here
    assert capsys.readouterr().err == ""


def test_bad_arguments(tmp_path):
    x = rows(10)
    bad = x.copy()
    bad[3, 2] = np.nan
    for options, error, message in (
        ({"x": bad}, ValueError, "`x` must be finite"),
        ({"x": x[0]}, ValueError, "samples in rows"),
        ({"x": np.zeros((3, 2))}, ValueError, "positive finite norm"),
        ({"y": rows(4, 19)}, ValueError, "as many features"),
        ({"net": "relu"}, TypeError, "`net`"),
        ({"kind": "gram"}, ValueError, "`kind`"),
        ({"kind": ()}, TypeError, "`kind`"),
        ({"kind": ("ck", "ck")}, ValueError, "once"),
        ({"tile": 0}, ValueError, "`tile`"),
        ({"tile": 2.5}, TypeError, "`tile`"),
        ({"dtype": "float16"}, ValueError, "`dtype`"),
        ({"memory_limit": "much"}, ValueError, "`memory_limit`"),
        ({"memory_limit": -1}, ValueError, "`memory_limit`"),
        ({"cache": "1XB"}, ValueError, "`cache`"),
        ({"progress": 3}, TypeError, "`progress`"),
        ({"path": 3}, TypeError, "`path`"),
        ({"path": ""}, TypeError, "`path`"),
        ({"x": 1e20 * x, "dtype": "float32"}, ValueError, "float32"),
    ):
        with pytest.raises(error, match=message):
            KernelMatrix.compute(**({"net": RELU, "x": x, "path": tmp_path / "k"} | options))
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="single"):
        KernelMatrix.on_the_fly(RELU, x, kind=("ck", "ntk"))


@pytest.mark.parametrize(
    "text, count", [("2GiB", 2**31), ("1.5 MB", 1_500_000), ("7", 7), ("3kib", 3072), (12, 12), (np.int64(5), 5)]
)
def test_sizes(text, count):
    assert budget.parse_bytes(text, "memory_limit") == count


def test_a_ridge_that_drowns_the_kernel(tmp_path):
    x = np.random.default_rng(0).standard_normal((40, 3))
    kernel = KernelMatrix.on_the_fly(rn.Network(["relu"]), x, kind="ck", tile=16)
    with pytest.raises(rn.ConvergenceError, match="after 0 iterations"):
        rn.ridge_solve(kernel, np.ones(40), 1e300)
