"""A ternary network comes back from its file to the bit in every packing, and the file is as small as is said."""

import hashlib
import json
import math
import random
import zipfile
from functools import cache

import numpy as np
import pytest

import rmtntk as rn
from rmtntk import readout
from rmtntk.modelfile import FORMAT, read_model, write_model
from rmtntk.packing import CODED, PACKINGS, WeightKey, encode, entropy_bits, measure, pack, sample_packed
from rmtntk.ternary import TernaryNetwork, storage
from rmtntk.ternary.parts import InputQuantiser

KEY = WeightKey(2**127 + 12345)
RELU2 = rn.Network(["relu", "relu"], tau0=1.0)


def network(shapes=((65, 30), (70, 65)), sparsity=0.9, *, net=RELU2, key=KEY, **parts):
    layers = [sample_packed(KEY, k, *shape, sparsity) for k, shape in enumerate(shapes)]
    return TernaryNetwork(net, net, layers, sparsity, key=key, **parts)


@cache
def fitted():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 30)) / np.sqrt(30)
    model = network()
    model.fit(x, np.arange(60) % 3)
    return model.with_preprocessing(rng.standard_normal(30), 2.5)


def assert_same(arguments, model):
    for one, other in zip(arguments["packed"], model.packed, strict=True):
        np.testing.assert_array_equal(one.nonzero, other.nonzero, strict=True)
        np.testing.assert_array_equal(one.negative, other.negative, strict=True)
        assert one.columns == other.columns
    assert arguments["sparsity"] == model.sparsity
    assert arguments["classes"] == model.classes
    assert arguments["summary"] == model.summary
    for name in ("dense", "net"):
        assert arguments[name].tau0 == getattr(model, name).tau0
        assert [a.name for a in arguments[name].activations] == [a.name for a in getattr(model, name).activations]
    if model.readout is None:
        assert arguments["readout"] is None
    else:
        np.testing.assert_array_equal(arguments["readout"].coefficients, model.readout.coefficients, strict=True)
        np.testing.assert_array_equal(arguments["readout"].intercept, model.readout.intercept, strict=True)
        assert (arguments["readout"].alpha, arguments["readout"].gcv) == (model.readout.alpha, model.readout.gcv)
    if model.preprocessing is None:
        assert arguments["preprocessing"] is None
    else:
        np.testing.assert_array_equal(arguments["preprocessing"].mean, model.preprocessing.mean, strict=True)
        assert arguments["preprocessing"].scale == model.preprocessing.scale


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_brings_the_model_back(tmp_path, packing):
    path = tmp_path / "model.npz"
    size = storage.write(fitted(), path, packing)
    assert size == path.stat().st_size
    arguments = storage.read(path)
    assert_same(arguments, fitted())
    assert arguments["key"] == KEY
    if packing == "auto":
        assert storage.stored_packings(path) == [min(CODED, key=lambda n: len(encode(p, n))) for p in fitted().packed]
    else:
        assert storage.stored_packings(path) == [packing] * 2


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("shapes", [((1, 1), (1, 1)), ((3, 63), (64, 3)), ((129, 127), (65, 129))])
def test_any_shape_and_sparsity(tmp_path, sparsity, shapes):
    model = network(shapes, sparsity)
    for packing in PACKINGS:
        storage.write(model, tmp_path / packing, packing)
        assert_same(storage.read(tmp_path / packing), model)


def test_the_smallest_packing_is_taken_layer_by_layer(tmp_path):
    dense, sparse = sample_packed(KEY, 0, 300, 200, 0.3), sample_packed(KEY, 1, 300, 300, 0.9)
    model = TernaryNetwork(RELU2, RELU2, [dense, sparse], 0.5)
    small = TernaryNetwork(RELU2, RELU2, [pack(np.ones((3, 3))), pack(np.eye(3))], 0.5)
    storage.write(model, tmp_path / "model.npz")
    storage.write(small, tmp_path / "small.npz")
    assert storage.stored_packings(tmp_path / "model.npz") == ["entropy", "entropy"]
    assert storage.stored_packings(tmp_path / "small.npz") == ["trit", "trit"]  # no room for a head
    assert (
        sum(json.loads(json.dumps(read_model(tmp_path / "model.npz")[0]["weights"]))) == measure(model.packed)["auto"]
    )


def test_a_seed_takes_no_room(tmp_path):
    model = network(((500, 784), (400, 500)))
    sizes = {packing: storage.write(model, tmp_path / packing, packing) for packing in PACKINGS}
    assert sizes["seed"] < 2500  # two layers of 49 bytes, the header and the archive's own members
    with zipfile.ZipFile(tmp_path / "auto") as archive:  # deflating coded weights gains nothing
        assert archive.getinfo("weights.npy").compress_type == zipfile.ZIP_STORED
    assert sizes["auto"] == sizes["entropy"] < sizes["bitmap"] < sizes["trit"] < sizes["2bit"]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_the_file_is_as_small_as_its_weights_and_readout(tmp_path, sparsity):
    shapes = ((1000, 784), (800, 1000))
    model = network(shapes, sparsity)
    rng = np.random.default_rng(1)
    ridge = readout.Ridge(rng.standard_normal((800, 10)), rng.standard_normal(10), 0.1, 0.2)
    bound = entropy_bits(model.packed) / 8
    header = 2500
    assert storage.write(model, tmp_path / "unfitted.npz") <= 1.03 * bound + header
    model = network(shapes, sparsity, readout=ridge)
    assert storage.write(model, tmp_path / "model.npz") <= 1.03 * bound + 8 * 810 * 10 + header
    assert storage.write(model, tmp_path / "seed.npz", "seed") <= 8 * 810 * 10 + header


def test_the_same_model_has_the_same_file(tmp_path):
    storage.write(fitted(), tmp_path / "a.npz")
    storage.write(fitted(), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_seed_needs_a_key(tmp_path):
    with pytest.raises(ValueError, match=r'`packing` "seed" needs a model whose weights were made from a key'):
        storage.write(network(key=None), tmp_path / "model.npz", "seed")
    with pytest.raises(ValueError, match="and these differ"):
        storage.write(network(key=WeightKey(7)), tmp_path / "model.npz", "seed")
    with pytest.raises(ValueError, match="`packing` must be one of"):
        storage.write(network(), tmp_path / "model.npz", "zip")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_key_comes_back_without(tmp_path):
    storage.write(network(key=None), tmp_path / "model.npz")
    arguments = storage.read(tmp_path / "model.npz")
    assert arguments.get("key") is None
    assert storage.recipes(network(key=None)) is None
    assert [recipe.layer for recipe in storage.recipes(network())] == [0, 1]


def test_a_quantiser_is_stored(tmp_path):
    model = network(quantiser=InputQuantiser(8, -0.1, 1.0 / 3.0))
    storage.write(model, tmp_path / "model.npz")
    assert storage.read(tmp_path / "model.npz")["quantiser"] == InputQuantiser(8, -0.1, 1.0 / 3.0)


def readouts():
    rng = np.random.default_rng(2)
    coefficients, intercept, gram = rng.standard_normal((70, 3)), rng.standard_normal(3), np.eye(70)
    ridge = readout.Ridge(coefficients, intercept, 0.0, math.inf)
    logistic = readout.Logistic(coefficients, intercept, 0.5, 0.25, None, 7, 1e-9)
    return [
        ridge,
        logistic,
        *(readout.quantise(r, bits, gram, np.zeros(70)) for r in (ridge, logistic) for bits in (8, 2)),
    ]


@pytest.mark.parametrize("wanted", readouts(), ids=lambda r: f"{r.kind}{r.bits}")
def test_readouts_of_every_kind_are_stored(tmp_path, wanted):
    model = network(readout=wanted)
    storage.write(model, tmp_path / "model.npz")
    found = storage.read(tmp_path / "model.npz")["readout"]
    assert type(found) is type(wanted)
    (header, arrays), (found_header, found_arrays) = wanted.describe(), found.describe()
    assert found_header == header
    assert set(found_arrays) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found_arrays[name], array, strict=True)


# --- Files of version 1


def write_version_1(model, path):
    """As version 1 did: bit planes, a ridge, a checksum of the content in the header."""
    networks = {name: storage._describe(getattr(model, name)) for name in ("dense", "net")}
    ridge, preprocessing = model.readout, model.preprocessing
    header = {
        **networks,
        "columns": [layer.columns for layer in model.packed],
        "sparsity": model.sparsity,
        "classes": model.classes,
        "alpha": None if ridge is None else ridge.alpha,
        "gcv": None if ridge is None else ridge.gcv,
        "scale": None if preprocessing is None else preprocessing.scale,
        "summary": model.summary,
    }
    arrays = {}
    for k, layer in enumerate(model.packed):
        arrays[f"nonzero{k}"], arrays[f"negative{k}"] = layer.nonzero, layer.negative
    if ridge is not None:
        arrays["coefficients"], arrays["intercept"] = ridge.coefficients, ridge.intercept
    if preprocessing is not None:
        arrays["mean"] = preprocessing.mean
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name}:{arrays[name].dtype.str}:{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    full = {**header, "format": FORMAT, "version": 1, "sha256": digest.hexdigest()}
    np.savez_compressed(path, header=np.frombuffer(json.dumps(full, sort_keys=True).encode(), np.uint8), **arrays)


@pytest.mark.parametrize("fit", [False, True])
def test_files_of_version_1_are_read(tmp_path, fit):
    model = fitted() if fit else network()
    write_version_1(model, tmp_path / "old.npz")
    arguments = storage.read(tmp_path / "old.npz")
    assert_same(arguments, model)
    assert "key" not in arguments
    assert storage.stored_packings(tmp_path / "old.npz") == ["2bit", "2bit"]
    again = TernaryNetwork.load(tmp_path / "old.npz")
    storage.write(again, tmp_path / "new.npz")  # and can be written as version 2
    assert_same(storage.read(tmp_path / "new.npz"), model)


# --- Damage


def test_damage_anywhere_is_noticed(tmp_path):
    path = tmp_path / "model.npz"
    storage.write(fitted(), path)
    content = path.read_bytes()
    rng = random.Random(0)
    for place in rng.sample(range(len(content)), 100):
        altered = bytearray(content)
        altered[place] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(altered))
        with pytest.raises(rn.ModelFileError):
            storage.read(path)


CONTENT = {
    "no weights": lambda h, a: a.pop("weights"),
    "no lengths": lambda h, a: h.pop("weights"),
    "empty lengths": lambda h, a: h.update(weights=[]),
    "too long": lambda h, a: h.update(weights=[h["weights"][0], h["weights"][1] + 1]),
    "moved": lambda h, a: h.update(weights=[h["weights"][0] + 1, h["weights"][1] - 1]),
    "negative": lambda h, a: h.update(weights=[-1, sum(h["weights"]) + 1]),
    "text": lambda h, a: h.update(weights="many"),
    "damaged": lambda h, a: a.update(weights=a["weights"][::-1]),
    "key": lambda h, a: h.update(key="xyz"),
    "large key": lambda h, a: h.update(key="1" * 40),
    "quantiser": lambda h, a: h.update(quantiser=[8, 0.0]),
    "readout": lambda h, a: h.update(readout={"kind": "unheard of"}),
    "network": lambda h, a: h.update(net={"activations": [["unheard of", {}]]}),
}


@pytest.mark.parametrize("change", CONTENT)
def test_sound_files_of_other_content_are_refused(tmp_path, change):
    storage.write(fitted(), tmp_path / "model.npz")
    header, arrays = read_model(tmp_path / "model.npz")
    CONTENT[change](header, arrays)
    write_model(tmp_path / "model.npz", header, arrays)
    with pytest.raises(rn.ModelFileError, match="header this rmtntk does not understand"):
        storage.read(tmp_path / "model.npz")
