"""Arrays of other libraries as input, without copies where none is needed; the adapters of the documentation."""

import re
import warnings
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import rmtntk as rn
from rmtntk import _validation

PAGE = Path(__file__).parents[1] / "docs" / "howto-adapters.md"
NET = rn.Network(["relu", "erf"], tau0=1.0)
FINITE = rn.FiniteNetwork.sample(NET, [6, 5], 4, 0)
LABELS = np.arange(12) % 2
CPU, CUDA, PINNED, METAL = 1, 2, 3, 8  # DLPack's numbers of devices


def halves(n=12, p=4, seed=0):
    """Small multiples of a half: exact in every type of float."""
    return np.round(np.random.default_rng(seed).standard_normal((n, p)) * 4.0) / 2.0


class OnlyDlpack:
    """An array of another library, of which nothing but DLPack is known."""

    def __init__(self, array, device=None):
        self._array, self._device = array, device

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__() if self._device is None else (self._device, 0)


class OldDlpack(OnlyDlpack):
    """The same before DLPack 1.0."""

    def __dlpack__(self, stream=None):
        return self._array.__dlpack__()


class OnlyArray:
    """An array of another library that NumPy reads by `__array__`."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array if dtype is None else self._array.astype(dtype)


class JaxLike(OnlyArray):
    """Both ways, on some device."""

    def __init__(self, array, device=CPU):
        super().__init__(array)
        self._kind, self.device = device, "TpuDevice(id=0)"

    def __dlpack__(self, **options):
        raise AssertionError("NumPy's own way goes first")

    def __dlpack_device__(self):
        return self._kind, 0


def dask_array(x):
    return pytest.importorskip("dask.array").from_array(x, chunks=(5, 3))


def zarr_array(x):
    return pytest.importorskip("zarr").create_array({}, data=x, chunks=(5, 3))


def torch_tensor(x):
    return pytest.importorskip("torch").from_numpy(x)


def frame(x):
    return pytest.importorskip("pandas").DataFrame(x)


FORMS = {
    "dlpack": OnlyDlpack,
    "dlpack, pinned": lambda x: OnlyDlpack(x, PINNED),
    "dlpack, old": OldDlpack,
    "dlpack, strided": lambda x: OnlyDlpack(np.repeat(x, 3, axis=1)[:, ::3]),
    "dlpack, fortran": lambda x: OnlyDlpack(np.asfortranarray(x)),
    "dlpack, float32": lambda x: OnlyDlpack(x.astype(np.float32)),
    "array": OnlyArray,
    "jax": JaxLike,
    "dask": dask_array,
    "zarr": zarr_array,
    "torch": torch_tensor,
    "torch, transposed": lambda x: torch_tensor(x.T.copy()).T,
    "torch, half": lambda x: torch_tensor(x).half(),
    "pandas": frame,
}
RIDGE = rn.equivalent(NET, halves(), correction="second_order")
TILED = rn.KernelMatrix.on_the_fly(NET, halves(), tile=5)
TERNARY = rn.compress(rn.Network(["relu"]), halves(), widths=[8], rng=0)
# what is computed from rows (12, 4)
CALLS = {
    "ck": lambda x: rn.ck(NET, x),
    "ntk": lambda x: rn.ntk(NET, x, x),
    "ck_ntk": lambda x: np.stack(rn.ck_ntk(NET, x)),
    "nngp": lambda x: rn.nngp(NET, x),
    "diagonals": lambda x: np.stack(rn.kernel_diagonals(NET, x)),
    "equivalent": lambda x: rn.equivalent(NET, x, LABELS).to_dense(),
    "second order": lambda x: rn.equivalent(NET, x, correction="second_order").to_dense(),
    "mixture": lambda x: rn.GaussianMixture.from_data(x, LABELS).means,
    "finite": FINITE.ntk,
    "compress": lambda x: rn.compress(rn.Network(["relu"]), x, widths=[8], rng=0).features(halves()),
    "features": TERNARY.features,
    "fit": lambda x: rn.compress(rn.Network(["relu"]), halves(), widths=[8], rng=0).fit(x, LABELS).predict(x),
    "tiles": lambda x: np.asarray(rn.KernelMatrix.on_the_fly(NET, x, tile=5)),
    "ridge_solve": lambda x: rn.ridge_solve(RIDGE, x, 1.0).x,
    "ridge_solve in tiles": lambda x: rn.ridge_solve(TILED, x, 1.0).x,
    "product": lambda x: TILED.matvec(x),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_other_libraries(name, form):
    x = halves()
    given = FORMS[form](x.copy())
    found = CALLS[name](given)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == CALLS[name](x).tolist()
    assert np.array_equal(x, _validation.check_data(given))  # nobody wrote to it


@pytest.mark.parametrize("form", ["torch", "pandas", "dask", "zarr", "array", "dlpack"])
def test_estimators_take_them(form):
    pytest.importorskip("sklearn")
    from rmtntk.estimators import NTKClassifier, NTKRegressor

    x = np.random.default_rng(0).standard_normal((30, 4))
    y = x[:, 0] > 0
    given = FORMS[form](x)
    np.testing.assert_array_equal(
        NTKClassifier(depth=1).fit(given, y).decision_function(given),
        NTKClassifier(depth=1).fit(x, y).decision_function(x),
    )
    want = NTKRegressor(depth=1, alpha=0.1).fit(x, x[:, 1]).predict(x)
    np.testing.assert_array_equal(NTKRegressor(depth=1, alpha=0.1).fit(given, x[:, 1]).predict(given), want)


@pytest.mark.parametrize("form", [np.asarray, OnlyDlpack, OldDlpack, OnlyArray, torch_tensor])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nothing_is_copied_that_need_not_be(form, dtype):
    x = halves(64, 8).astype(dtype)
    single = dtype == np.float32
    found = _validation.check_data(form(x), keep_float32=single)
    assert found.dtype == dtype
    assert np.shares_memory(found, x)
    first, second = _validation.check_pair(form(x), form(x), keep_float32=single, finite=False)
    assert np.shares_memory(first, x)
    assert np.shares_memory(second, x)
    if not single:
        assert np.shares_memory(_validation.check_columns(form(x), "b", 64)[0], x)
        square = np.eye(8)
        assert np.shares_memory(_validation.check_square(form(square), "k"), square)
    turned = _validation.check_data(form(np.asfortranarray(x)), keep_float32=single)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, x)


def test_memory_maps_are_not_read_twice(tmp_path):
    np.save(tmp_path / "x.npy", halves())
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(_validation.check_data(x), x)


@pytest.mark.parametrize(
    "name",
    [name for name in CALLS if name not in ("fit", "ridge_solve", "ridge_solve in tiles", "product", "mixture")],
)
@pytest.mark.parametrize("given", [OnlyDlpack(halves(), CUDA), JaxLike(halves(), METAL)], ids=["CUDA", "Metal"])
def test_other_devices_are_refused(name, given):
    where = "device 2:0 of DLPack" if isinstance(given, OnlyDlpack) else re.escape("TpuDevice(id=0)")
    with pytest.raises(TypeError, match=rf"`x` must be in the CPU's memory, got a \w+ on {where}: pass x\.cpu\(\)"):
        CALLS[name](given)


def test_the_argument_is_named():
    away = OnlyDlpack(halves(), CUDA)
    with pytest.raises(TypeError, match=r"`y` must be in the CPU's memory.*pass y\.cpu\(\)"):
        rn.ck(NET, halves(), away)
    for kernel in (RIDGE, TILED):
        with pytest.raises(TypeError, match=r"`b` must be in the CPU's memory.*pass b\.cpu\(\)"):
            rn.ridge_solve(kernel, away, 1.0)
    with pytest.raises(TypeError, match=r"`v` must be in the CPU's memory"):
        TILED.matvec(away)
    with pytest.raises(TypeError, match=r"`k` must be in the CPU's memory"):
        rn.spectral_error(away, np.eye(3))


class Broken(OnlyArray):
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("a tracer that has no values")


class BrokenDlpack(OnlyDlpack):
    def __dlpack__(self, **options):
        raise BufferError("bfloat16 has no number in this DLPack")


@pytest.mark.parametrize("kind", [Broken, BrokenDlpack])
def test_what_cannot_be_read_is_named(kind):
    with pytest.raises(
        TypeError, match=rf"`x` must be what NumPy makes an array of, got a {kind.__name__}: .* (no|has)"
    ):
        rn.ntk(NET, kind(halves()))


@pytest.mark.parametrize("value, shape", [(np.ones(4), r"\(4,\)"), (np.ones((2, 0)), r"\(2, 0\)")])
def test_shapes_are_checked_as_ever(value, shape):
    with pytest.raises(ValueError, match=rf"`x` must .*got shape {shape}"):
        rn.ck(NET, OnlyDlpack(value))


@pytest.mark.parametrize("form", [OnlyDlpack, OnlyArray, dask_array, zarr_array, torch_tensor, frame])
def test_labels_count_by_value(form):
    x, labels = halves(), LABELS.astype(np.int64)
    if form in (dask_array, zarr_array):
        given = form(labels[:, None])[:, 0]
    else:
        given = form(labels[:, None])[0] if form is frame else form(labels)
    names, index = _validation.check_labels(given, 12)
    assert names == [0, 1]
    assert all(type(name) is int for name in names)
    np.testing.assert_array_equal(index, labels)
    np.testing.assert_array_equal(rn.equivalent(NET, x, given).to_dense(), rn.equivalent(NET, x, labels).to_dense())


def test_float32_is_as_symmetric_as_float32_can_be():
    matrix = np.array([[1.0, 0.5], [0.5 + 1e-7, 1.0]], dtype=np.float32)
    for form in (np.asarray, OnlyDlpack, OnlyArray, torch_tensor if find_spec("torch") else OnlyArray):
        assert _validation.check_square(form(matrix), "k").dtype == np.float64
    with pytest.raises(ValueError, match="`k` must be symmetric"):
        _validation.check_square(OnlyDlpack(matrix.astype(np.float64)), "k")


def test_the_norm_of_the_difference_takes_kernels_of_any_kind():
    from scipy.sparse.linalg import aslinearoperator

    dense, eq = rn.ck(NET, halves()), rn.equivalent(NET, halves(), correction="second_order")
    want = np.linalg.norm(dense - eq.to_dense(), 2) / np.linalg.norm(dense, 2)
    tiled = rn.KernelMatrix.on_the_fly(NET, halves(), kind="ck", tile=5)
    for k in (dense, OnlyDlpack(dense), tiled):
        for candidate in (eq, eq.to_dense(), OnlyDlpack(eq.to_dense()), aslinearoperator(eq.to_dense())):
            assert rn.spectral_error(k, candidate) == pytest.approx(want, rel=1e-6)


# ---------------------------------------------------------------------------------------------------------- PyTorch
def test_tensors_that_cannot_be_read():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(halves())
    for given, error in (
        (x.clone().requires_grad_(), r"`x` must not require gradients.*got a Tensor that does: pass x\.detach\(\)"),
        (x.clone().requires_grad_() * 2.0, r"`x` must not require gradients"),
        (torch.nn.Parameter(x), r"got a Parameter that does: pass x\.detach\(\)"),
        (x.to("meta"), r"`x` must be in the CPU's memory, got a Tensor on meta: pass x\.cpu\(\)"),
        (x.to_sparse(), r"`x` must be what NumPy makes an array of, got a Tensor: .*to_dense"),
        (x.bfloat16(), r"`x` must be what NumPy makes an array of, got a Tensor: .*BFloat16"),
        (x.to(torch.complex128), "`x` must be real, got complex128"),
    ):
        with pytest.raises(TypeError, match=error):
            rn.ck(NET, given)
    assert rn.ck(NET, x.clone().requires_grad_().detach()).tolist() == rn.ck(NET, halves()).tolist()
    with pytest.raises(ValueError, match=r"`x` must be finite, got nan at index \(0, 0\)"):
        rn.ck(NET, torch.full((3, 4), float("nan")))


# --------------------------------------------------------------------------------------------- the page's adapters
def blocks():
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(*libraries):
    """Run the page's blocks that need no library and those that need these; return their names."""
    known = {"torch", "gpytorch", "cola"}
    names: dict[str, object] = {}
    for k, block in enumerate(blocks()):
        needed = {name for name in known if re.search(rf"^import {name}$", block, re.MULTILINE)}
        if needed <= set(libraries):
            exec(compile(block, f"{PAGE.name}, block {k + 1}", "exec"), names)
    return names


def imported(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # linear_operator: torch.jit is deprecated
        return pytest.importorskip(name)


def test_the_page_skips_what_needs_a_library_and_nothing_else():
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^```python\n", text, flags=re.MULTILINE)
    for before, block in pairwise(parts):
        skipped = before.endswith("<!--- skip: next -->\n")
        assert skipped == bool(re.search(r"^import (torch|gpytorch|cola)$", block, re.MULTILINE))


def test_the_pages_torch():
    imported("torch")
    names = run("torch")
    np.testing.assert_array_equal(names["kernel"].numpy(), rn.ntk(names["net"], names["data"].numpy()))


def test_the_pages_gaussian_process_is_ours():
    gpytorch = imported("gpytorch")
    torch = imported("torch")
    pytest.importorskip("sklearn")
    from rmtntk.estimators import NTKRegressor

    names = run("torch", "gpytorch")
    net, x = names["net"], names["x"]
    y = np.sin(3 * x[:150, 0])
    kernel, cross = rn.ntk(net, x[:150]), rn.ntk(net, x[150:], x[:150])
    noisy = kernel + 0.1 * np.eye(150)
    np.testing.assert_allclose(names["mean"].numpy(), cross @ rn_ridge(net, x[:150], y), atol=1e-6)
    explained = np.einsum("ij,ji->i", cross, np.linalg.solve(noisy, cross.T))
    np.testing.assert_allclose(names["variance"].numpy(), rn.ntk(net, x[150:]).diagonal() - explained, atol=1e-6)
    # the same from the estimator, whose network takes its own tau0
    ours = NTKRegressor("relu", depth=2, alpha=0.1, standardize=None, fit_intercept=False).fit(x[:150], y)
    mean, deviation = ours.predict(x[150:], return_std=True)
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = torch.tensor(0.1, dtype=torch.float64)
    process = names["Process"](
        torch.from_numpy(x[:150]), torch.from_numpy(y), likelihood, names["NTK"](ours.network_)
    ).eval()  # fmt: skip
    with torch.no_grad():
        posterior = process(torch.from_numpy(x[150:]))
    np.testing.assert_allclose(posterior.mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(posterior.variance.numpy(), deviation**2 / ours.signal_variance_, atol=1e-6)
    # the marginal likelihood, and its gradient in the noise; none in the inputs
    process.train(), likelihood.train()
    inputs = torch.from_numpy(x[:150]).requires_grad_()
    process.set_train_data(inputs, torch.from_numpy(y), strict=False)
    value = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, process)(process(inputs), torch.from_numpy(y))
    value.backward()
    noisy = rn.ntk(ours.network_, x[:150]) + 0.1 * np.eye(150)
    weights = np.linalg.solve(noisy, y)
    want = -0.5 * (y @ weights + np.linalg.slogdet(noisy)[1] + 150 * np.log(2 * np.pi)) / 150
    assert value.item() == pytest.approx(want, abs=1e-6)
    slope = 0.5 * (weights @ weights - np.trace(np.linalg.inv(noisy))) / 150
    chain = torch.sigmoid(likelihood.noise_covar.raw_noise).item()  # of noise = 1e-4 + softplus(raw)
    assert likelihood.noise_covar.raw_noise.grad.item() == pytest.approx(slope * chain, rel=1e-5)
    assert inputs.grad is None or not inputs.grad.any()


def rn_ridge(net, x, y):
    """(K + 0.1 I)⁻¹ y by our own solver."""
    return rn.ridge_solve(rn.KernelMatrix.on_the_fly(net, x, tile=64), y, 0.1, tol=1e-10).x


@pytest.mark.filterwarnings("ignore")  # CoLA's own, and those of its dispatcher
def test_the_pages_cola_operator():
    cola = imported("cola")
    names = run("cola")
    x, tiled = names["x"], names["tiled"]
    for kernel in (tiled, names["approximate"]):
        dense = np.asarray(kernel) if kernel is tiled else kernel.to_dense()
        noisy = dense + 0.1 * np.eye(200)
        operator = cola.PSD(names["Shifted"](kernel, ridge=0.1))
        np.testing.assert_allclose(operator @ x, noisy @ x, atol=1e-12)
        solver = cola.linalg.inv(operator, cola.linalg.CG(tol=1e-10, max_iters=200))
        np.testing.assert_allclose(solver @ x[:, :2], np.linalg.solve(noisy, x[:, :2]), atol=1e-6)
        found, _ = cola.linalg.eig(operator, k=3, alg=cola.linalg.Lanczos(max_iters=100, tol=1e-10))
        np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(noisy)[-3:], rtol=1e-6)
    dense = np.asarray(tiled) + 0.1 * np.eye(200)
    np.testing.assert_allclose(names["weights"], np.linalg.solve(dense, x[:, :2]), atol=1e-6)
    np.testing.assert_allclose(np.sort(names["eigenvalues"]), np.linalg.eigvalsh(dense)[-3:], rtol=1e-6)
    vectors = np.asarray(names["eigenvectors"].to_dense())
    assert np.linalg.norm(dense @ vectors - vectors * names["eigenvalues"]) < 1e-6


def test_targets_labels_and_weights_of_estimators():
    pytest.importorskip("sklearn")
    from rmtntk.estimators import NTKClassifier, NTKRegressor

    generator = np.random.default_rng(3)
    x = generator.standard_normal((30, 4))
    y, weights = x[:, 1].copy(), 0.5 + generator.random(30)
    classes = (y > 0).astype(int)
    for make, target in ((lambda: NTKClassifier(depth=1), classes), (lambda: NTKRegressor(depth=1, alpha=0.1), y)):
        plain = make().fit(x, target, sample_weight=weights)
        given = make().fit(OnlyDlpack(x), OnlyDlpack(target), sample_weight=OnlyDlpack(weights))
        np.testing.assert_array_equal(given.predict(x), plain.predict(x))
        want = plain.score(x, target, sample_weight=weights)
        assert given.score(OnlyDlpack(x), OnlyDlpack(target), sample_weight=OnlyDlpack(weights)) == want


@pytest.mark.parametrize("bad", [None, np.inf])
def test_targets_of_objects_must_be_finite(bad):
    pytest.importorskip("sklearn")
    from rmtntk.estimators import NTKRegressor

    x = np.random.default_rng(3).standard_normal((30, 4))
    with pytest.raises(ValueError, match="`y` must be finite"):
        NTKRegressor(depth=1).fit(x, np.array([bad, *x[1:, 0]], dtype=object))
