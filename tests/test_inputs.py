"""What may be passed as data, and what is said of everything else, by all calls that take samples."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
from scipy import sparse

import rmtntk as rn
from rmtntk import activations

NET = rn.Network(["relu", "erf"])
FINITE = rn.FiniteNetwork.sample(NET, [6, 5], 4, 0)
# name: (call, takes a second array, has a dtype)
CALLS = {
    "ck": (lambda *a, **k: rn.ck(NET, *a, **k), True, True),
    "nngp": (lambda *a, **k: rn.nngp(NET, *a, **k), True, True),
    "ntk": (lambda *a, **k: rn.ntk(NET, *a, **k), True, True),
    "ck_ntk": (lambda *a, **k: np.stack(rn.ck_ntk(NET, *a, **k)), True, True),
    "kernel_diagonals": (lambda *a: np.stack(rn.kernel_diagonals(NET, *a)), False, False),
    "finite features": (FINITE.features, False, True),
    "finite ck": (FINITE.ck, True, True),
    "finite ntk": (FINITE.ntk, True, True),
}
SECOND = {name: call for name, (call, second, _) in CALLS.items() if second}
TYPED = {name: call for name, (call, _, typed) in CALLS.items() if typed}
each = pytest.mark.parametrize("name", CALLS)
each_second = pytest.mark.parametrize("name", SECOND)
each_typed = pytest.mark.parametrize("name", TYPED)


def halves(n=7, p=4, seed=0):
    """Small multiples of a half: exact in every type of float."""
    return np.round(np.random.default_rng(seed).standard_normal((n, p)) * 4.0) / 2.0


def read_only(x):
    x = x.copy()
    x.setflags(write=False)
    return x


FORMS = {
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": lambda x: x.T.copy().T,
    "broadcast": lambda x: np.lib.stride_tricks.as_strided(x, x.shape, x.strides, writeable=False),
    "read-only": read_only,
    "list": lambda x: x.tolist(),
    "tuples": lambda x: tuple(tuple(row) for row in x),
    "rows": list,
    "matrix": lambda x: x.view(np.matrix),
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "longdouble": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f8"),
    "big-endian float32": lambda x: x.astype(">f4"),
    "little-endian": lambda x: x.astype("<f8"),
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)[1:].view(x.dtype).reshape(x.shape),
}
INTEGERS = ("int8", "int32", "int64", ">i4", "uint8", "bool")


def untouched(given, before):
    return np.array_equal(np.array(given), before)


@each
@pytest.mark.parametrize("form", FORMS)
def test_any_real_array_will_do(name, form):
    call, second, _ = CALLS[name]
    x, y = halves(), halves(5, seed=1)
    given, other = FORMS[form](x), FORMS[form](y)
    before = np.array(given)
    assert call(given).tobytes() == call(x).tobytes()
    if second:
        assert call(given, other).tobytes() == call(x, y).tobytes()
        assert call(given, y).tobytes() == call(x, y).tobytes()  # forms mix
    assert untouched(given, before)


@each
@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_numbers_are_numbers(name, dtype):
    call = CALLS[name][0]
    given = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]]).astype(dtype)
    assert call(given).tobytes() == call(given.astype(np.float64)).tobytes()
    assert call(given.tolist()).tobytes() == call(given.astype(np.float64)).tobytes()


@each_typed
@pytest.mark.parametrize("form", ["fortran", "strided", "read-only", "float32", "big-endian float32", "list"])
def test_any_real_array_will_do_in_float32(name, form):
    call, x = TYPED[name], halves()
    given = FORMS[form](x.astype(np.float32) if form != "float32" else x)
    before = np.array(given)
    found, want = call(given, dtype=np.float32), call(x)
    assert found.dtype == np.float32
    # products of halves are exact; then the layers, each rounding by some eps of float32
    np.testing.assert_allclose(found, want, rtol=0.0, atol=4e-6 * np.abs(want).max())
    assert untouched(given, before)


@each
def test_a_file_mapped_to_memory(name, tmp_path):
    x = halves()
    np.save(tmp_path / "x.npy", x)
    for mode in ("r", "r+", "c"):
        assert CALLS[name][0](np.load(tmp_path / "x.npy", mmap_mode=mode)).tobytes() == CALLS[name][0](x).tobytes()
    assert (np.load(tmp_path / "x.npy") == x).all()


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
@each
def test_data_frames(name):
    import pandas as pd

    call, x = CALLS[name][0], halves()
    frame = pd.DataFrame(x, columns=list("abcd"))
    assert call(frame).tobytes() == call(x).tobytes()
    mixed = frame.assign(a=np.arange(7))  # integers among floats
    assert call(mixed).tobytes() == call(np.column_stack([np.arange(7), x[:, 1:]])).tobytes()
    with pytest.raises(TypeError, match=r"`x` must hold numbers, got dtype object: convert it with astype\(float\)"):
        call(frame.assign(a=np.arange(7) % 2 == 0))  # truth values among floats
    with pytest.raises(TypeError, match="`x` must hold numbers"):
        call(frame.assign(a="text"))
    with pytest.raises(ValueError, match="`x` must be finite, got nan"):
        call(frame.assign(a=[1.0, None, *range(5)]))
    assert (frame.to_numpy() == x).all()


# What is not samples in rows. Of each: error, what the message says is required, and what it says came


def with_entry(value, dtype=np.float64):
    x = halves().astype(dtype)
    x[2, 1] = value
    return x


BAD = {
    "nan": (with_entry(np.nan), ValueError, "finite", r"nan at index \(2, 1\) \(1 of 28"),
    "inf": (with_entry(np.inf), ValueError, "finite", r"inf at index \(2, 1\)"),
    "-inf": (with_entry(-np.inf), ValueError, "finite", r"-inf at index \(2, 1\)"),
    "nan in float16": (with_entry(np.nan, np.float16), ValueError, "finite", "nan"),
    "too large for float64": (with_entry(np.longdouble("1e400"), np.longdouble), ValueError, "finite", "inf"),
    "squares overflow": (with_entry(1e200), ValueError, r"row \(2\)", "overflows float64"),
    "number": (3.0, ValueError, "2 dimension", r"shape \(\)"),
    "1-D": (np.ones(4), ValueError, "samples in rows", r"shape \(4,\)"),
    "3-D": (np.ones((2, 3, 4)), ValueError, "2 dimension", r"\(2, 3, 4\)"),
    "no rows": (np.ones((0, 4)), ValueError, "not be empty", r"\(0, 4\)"),
    "no columns": (np.ones((4, 0)), ValueError, "not be empty", r"\(4, 0\)"),
    "empty list": ([], ValueError, "samples in rows", r"\(0,\)"),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, "rectangular", "inhomogeneous"),
    "complex": (halves().astype(complex), TypeError, "real", "complex128"),
    "object": (halves().astype(object), TypeError, "numbers", "object"),
    "strings": (halves().astype(str), TypeError, "numbers", "dtype <U"),
    "bytes": (halves().astype("S"), TypeError, "numbers", r"dtype \|S"),
    "text": ("samples.csv", TypeError, "numbers", "dtype <U"),
    "dates": (np.zeros((7, 4), dtype="M8[s]"), TypeError, "numbers", "datetime64"),
    "durations": (np.zeros((7, 4), dtype="m8[s]"), TypeError, "numbers", "timedelta64"),
    "records": (np.zeros((7, 4), dtype=[("a", float)]), TypeError, "numbers", "'a'"),
    "none": (None, TypeError, "numbers", "object"),
    "dictionary": ({"a": [1.0]}, TypeError, "numbers", "object"),
    "set": ({1.0, 2.0}, TypeError, "numbers", "object"),
    "masked": (np.ma.masked_greater(halves(), 1.0), TypeError, "not be a masked array", "fill or drop"),
    "csr matrix": (sparse.csr_matrix(halves()), TypeError, "dense", r"csr_matrix: pass \w\.toarray\(\)"),
    "coo array": (sparse.coo_array(halves()), TypeError, "dense", "coo_array"),
}


@each
@pytest.mark.parametrize("bad", BAD)
def test_bad_x_is_named(name, bad):
    value, error, required, came = BAD[bad]
    with pytest.raises(error, match=f"(?s)`x`.*{required}.*{came}"):
        CALLS[name][0](value)


@each_second
@pytest.mark.parametrize("bad", [bad for bad in BAD if bad != "none"])
def test_bad_y_is_named(name, bad):
    value, error, required, came = BAD[bad]
    with pytest.raises(error, match=f"(?s)`y`.*{required}.*{came}"):
        SECOND[name](halves(), value)


@each_second
def test_y_needs_the_features_of_x(name):
    with pytest.raises(ValueError, match=r"`y` must have as many features as `x`, 4, got shape \(5, 3\)"):
        SECOND[name](halves(), halves(5, 3))


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith("finite")])
def test_x_needs_the_features_of_the_weights(name):
    with pytest.raises(ValueError, match="`x` must have the 4 features of the network's weights, got 3"):
        CALLS[name][0](halves(5, 3))


@each_typed
@pytest.mark.parametrize(
    "dtype, error",
    [
        ("int", ValueError),
        ("float16", ValueError),
        ("complex64", ValueError),
        (np.longdouble, ValueError),
        (">f8" if np.little_endian else "<f8", ValueError),
        (object, ValueError),
        (bool, ValueError),
        (None, TypeError),
        ("banana", TypeError),
        (3, TypeError),
        (1.5, TypeError),
        ([], (TypeError, ValueError)),
        ({"names": ["a"]}, (TypeError, ValueError)),
    ],
    ids=str,
)
def test_bad_dtype(name, dtype, error):
    with pytest.raises(error, match="`dtype` must be float32 or float64, got"):
        TYPED[name](halves(), dtype=dtype)


@each_typed
@pytest.mark.parametrize("dtype", ["float64", "f4", "d", float, np.float32, np.dtype("float64")])
def test_spellings_of_dtypes(name, dtype):
    assert TYPED[name](halves(), dtype=dtype).dtype == np.dtype(dtype)


@pytest.mark.parametrize("call", [rn.ck, rn.nngp, rn.ntk, rn.ck_ntk])
@pytest.mark.parametrize("act", ["relu", activations.rectified_monomial(2)], ids=str)
def test_results_that_float32_cannot_hold_are_refused(call, act):
    # each row's square is fine in float32 or float64, the kernel's is not in float32
    net = rn.Network([act] * 2, centered=False, weight_std=1e3, tau0=1e-3)
    x = halves() * (1e15 if act == "relu" else 1e8)
    assert np.isfinite(call(net, x)).all()
    for given in (x, x.astype(np.float32)):
        for second in ((), (given[:3],)):
            with pytest.raises(ValueError, match=r"`dtype` float32 cannot hold .*rescale the data"):
                call(net, given, *second, dtype=np.float32)


def test_the_factor_of_nngp_may_overflow():
    net = rn.Network(["erf"], weight_std=1e20)
    assert np.isfinite(rn.nngp(net, halves())).all()
    with pytest.raises(ValueError, match="`dtype` float32 cannot hold"):
        rn.nngp(net, halves(), dtype=np.float32)
    with pytest.raises(ValueError, match="overflows float64"):
        rn.nngp(rn.Network([activations.step([0.0], [-1e100, 1e100])], weight_std=1e60), halves())


def test_the_ck_of_jumps_is_checked_beside_their_ntk():
    net = rn.Network([activations.step([0.0], [-1e25, 1e25])])
    assert np.isfinite(rn.ck(net, halves())).all()
    with pytest.raises(ValueError, match="`dtype` float32"):
        rn.ck_ntk(net, halves(), dtype=np.float32, diagonal="nan")


@pytest.mark.parametrize("option", ["weight_std", "bias_std"])
def test_scales_whose_squares_overflow_are_refused(option):
    with pytest.raises(ValueError, match=rf"`{option}` must be a finite number in .0, 1e\+150\], got 1e\+155"):
        rn.Network(["relu"], **{option: 1e155})


# Activations that are known by their kernel only

KERNEL_ONLY = {
    "alone": [activations.exp_normalized()],
    "first": [activations.exp_normalized(), "relu"],
    "last": ["relu", activations.exp_normalized(2.0)],
}


@pytest.mark.parametrize("acts", KERNEL_ONLY.values(), ids=KERNEL_ONLY)
@pytest.mark.parametrize(
    "call",
    {
        "coefficients": lambda net, x: rn.coefficients(net, 1.0),
        "equivalent": lambda net, x: rn.equivalent(net, x),
        "equivalent ntk": lambda net, x: rn.equivalent(net, x, kind="ntk", correction="none"),
        "diagonal": lambda net, x: rn.equivalent(net, x, correction="diagonal"),
        **{method: lambda net, x, m=method: rn.match(net, 1.0, method=m) for method in ("tight", "layerwise", "paper")},
        "sample": lambda net, x: rn.FiniteNetwork.sample(net, [3] * net.depth, 4, 0),
        "arrays": lambda net, x: rn.FiniteNetwork.from_arrays(net, [np.ones((4, 4))] * net.depth),
        "compress": lambda net, x: rn.compress(net, x, widths=[3] * net.depth, sparsity=0.5, rng=0),
        "weights": lambda net, x: rn.compress(net, x, widths=[3] * net.depth, sparsity=0.5, rng=0, activations="dense"),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_needs_a_function_refuses_a_kernel(call, acts):
    with pytest.raises(ValueError, match="`net` must have activations that are functions, got exp_normalized"):
        call[1](rn.Network(acts), halves())


@pytest.mark.parametrize("kind", ["ck", "ntk"])
@pytest.mark.parametrize("acts", KERNEL_ONLY.values(), ids=KERNEL_ONLY)
def test_the_second_order_needs_no_function(acts, kind):
    net, errors, sizes = rn.Network(acts), [], (100, 200, 400)
    for n in sizes:
        rng = np.random.default_rng(0)
        # norms differ by more than chance: what the theorem's numbers would have to know
        x = rng.standard_normal((n, n)) / math.sqrt(n) * rng.uniform(0.8, 1.2, (n, 1))
        eq = rn.equivalent(net, x, kind=kind, correction="second_order")
        errors.append(rn.spectral_error(getattr(rn, kind)(net, x), eq))
    # terms of third order: entries like p^{-3/2}, in operator norm 1/n of the kernel's (of order n^0 to n^1)
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] < -0.7
    assert errors[-1] < 0.02


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_integers_beyond_the_floats(value):
    with pytest.raises(ValueError, match="`weight_std` must be a finite number"):
        rn.Network(["relu"], weight_std=value)
