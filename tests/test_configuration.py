"""TOML files: networks read and written, runs configured, and every mistake in them answered in one line."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_cli import assert_failed, run, strict, succeeded

import rmtntk as rn
from rmtntk import cli
from rmtntk.configuration import dump_network, load_network, read_tables, to_toml

NETWORK = """\
[network]
activations = ["relu", "leaky_relu(0.1)"]
weight_std = 1.25
bias-std = 1
centered = false
input_scaling = "fan_in"
tau0 = 0.75
"""


def write(folder, text, name="run.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- Networks


def test_load_network(tmp_path):
    wanted = rn.Network(
        ["relu", rn.activations.leaky_relu(0.1)], weight_std=1.25, bias_std=1.0, centered=False, input_scaling="fan_in",
        tau0=0.75,
    )  # fmt: skip
    path = write(tmp_path, NETWORK)
    assert load_network(path) == wanted
    assert load_network(str(path)) == wanted
    text = '[network]\nactivations = "relu,step([0],[-1,1])"\n[anything]\nx = 1\n'
    assert load_network(write(tmp_path, text)) == rn.Network(["relu", rn.activations.step([0.0], [-1.0, 1.0])])


BAD_NETWORKS = {
    "": "must have a table [network]",
    "[kernel]\n": "must have a table [network]",
    "[network]\n": "`[network] activations` must be given",
    'activations = ["relu"]\n': "`activations` must stand in a table such as [network]",
    '[network]\nactivation = ["relu"]\n': "`[network] activation` must be an argument of a network; did you mean "
    "activations?",
    '[network]\ndepth = 3\nactivations = "relu"': "`[network] depth` must be an argument of a network: one of ",
    "[network]\nactivations = []\n": "must be a list of names",
    "[network]\nactivations = 3\n": "must be a list of names",
    "[network]\nactivations = [1]\n": "must be a list of names",
    '[network]\nactivations = ["rleu"]\n': "'rleu'; did you mean relu?",
    '[network]\nactivations = ["relu", "leaky(0.1)"]\n': "; did you mean leaky_relu?",
    '[network]\nactivations = ["os.getcwd()"]\n': "comma-separated",
    '[network]\nactivations = "relu"\nweight_std = "1"\n': "[network]: `weight_std` must be a real number, got '1'",
    '[network]\nactivations = "relu"\nweight_std = 0\n': "[network]: `weight_std`",
    '[network]\nactivations = "relu"\nweight_std = true\n': "[network]: `weight_std`",
    '[network]\nactivations = "relu"\ntau0 = nan\n': "[network]: `tau0`",
    '[network]\nactivations = "relu"\ntau0 = 2024-01-01\n': "[network]: `tau0`",
    '[network]\nactivations = "relu"\ncentered = 1\n': "[network]: `centered`",
    '[network]\nactivations = "relu"\ninput_scaling = "fanin"\n': "[network]: `input_scaling`",
    '[network]\nactivations = "relu"\nbias-std = 1\nbias_std = 1\n': "must be given once",
    '[network]\nactivations = "relu"\nactivations = "relu"\n': "must be a TOML file: Cannot overwrite",
    '[network]\nactivations = "relu\n': "must be a TOML file",
    "network = [1]\n": "`network` must stand in a table",
}


@pytest.mark.parametrize("text", BAD_NETWORKS)
def test_bad_networks(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert BAD_NETWORKS[text] in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.toml: must be a readable TOML file"):
        load_network(tmp_path / "no.toml")
    with pytest.raises(OSError, match="must be a readable TOML file"):
        load_network(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match=r"bytes\.toml: must be a TOML file"):
        load_network(tmp_path / "bytes.toml")


PARAMETERS = {
    "ab_relu": (0.1, 1.0 / 3.0),
    "hermite": (3,),
    "monomial": (2,),
    "polynomial": ([0.1, -1.0 / 3.0, 2e-17],),
    "rectified_monomial": (2,),
    "step": ([-1.0 / 3.0, 1e-300], [-1.0, 0.1, 1.0 / 7.0]),
}


@pytest.mark.parametrize("name", rn.activations.names())
def test_every_named_activation_is_written_and_read_back(tmp_path, name):
    act = getattr(rn.activations, name)(*PARAMETERS[name]) if name in PARAMETERS else rn.activations.get(name)
    net = rn.Network([act, "relu"], weight_std=1.0 / 3.0, bias_std=1e-17, tau0=1e300)
    assert load_network(write(tmp_path, dump_network(net))) == net


def test_parameters_keep_every_digit(tmp_path):
    values = [1.0 / 3.0, np.nextafter(1.0, 2.0), 1e-7]
    acts = [rn.activations.leaky_relu(value) for value in values]
    acts += [rn.activations.sin_with(0.1, 0.2, 0.3), rn.activations.erf_with(2.0 / 3.0), rn.activations.elu_with(0.7)]
    net = rn.Network(acts)
    again = load_network(write(tmp_path, dump_network(net)))
    assert again == net
    assert [act.parameter("negative_slope") for act in again.activations[:3]] == values


def test_dump_network_refuses_what_has_no_name():
    with pytest.raises(ValueError, match=r"`net` must have activations with names.*a callable in layer 2"):
        dump_network(rn.Network(["relu", rn.activations.custom(np.tanh)]))
    with pytest.raises(TypeError, match="`net` must be a Network"):
        dump_network(["relu"])


# --- TOML

scalars = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),  # nan is not equal to itself: tested apart
)
keys = st.text(st.characters(exclude_categories=["Cs"]))
values = st.one_of(scalars, st.lists(scalars))


@given(st.dictionaries(keys, st.dictionaries(keys, values), max_size=4))
@example({"": {"a b": "\x00\x7f\x85\u2028\"\\\r\n\t\b\f'", "é": [1e-05, 1e22, -0.0, float("inf"), float("-inf")]}})
def test_toml_reads_back_what_was_written(tables):
    again = tomllib.loads(to_toml(tables))
    assert again == tables
    assert repr(again) == repr(tables)  # also 1, 1.0 and True, which are equal, and signs of zeros


def test_toml_of_nan_and_of_what_it_lacks():
    assert np.isnan(tomllib.loads(to_toml({"a": {"b": float("nan")}}))["a"]["b"])
    assert tomllib.loads(to_toml({"a": {"b": np.float64(0.1), "c": (1, 2)}})) == {"a": {"b": 0.1, "c": [1, 2]}}
    for value in (None, {"a": 1}, [[1]], 1j, b"a"):
        with pytest.raises(TypeError, match="`key` must be a string"):
            to_toml({"a": {"key": value}})
    with pytest.raises(ValueError, match="UTF-8"):
        to_toml({"a": {"key": "\ud800"}})


# --- Runs


def parsed(*argv):
    return cli._parser().parse_args([str(word) for word in argv])


def test_options_come_from_the_file_and_the_command_line_overrides_them(tmp_path):
    text = """\
[network]
activations = ["tanh", "leaky_relu(0.1)"]

[compress]
data = "digits.npz"
out = "runs/a"
widths = [40, 30]
test-fraction = 0.5
sparsity = 0
readout_bits = 8
quiet = true
label_column = 8

[verify]
sizes = [64, 128, 256]

[info]
model = "m.npz"

[predict]
model = "m.npz"
data = "d.npz"
"""
    path = write(tmp_path, text)
    args = parsed("compress", "--config", path)
    assert (args.activations, args.data, str(args.out)) == ("tanh,leaky_relu(0.1)", "digits.npz", "runs/a")
    assert (args.widths, args.test_fraction, args.sparsity, args.readout_bits) == ((40, 30), 0.5, 0.0, 8)
    assert (args.quiet, args.json, args.label_column) == (True, False, "8")
    assert isinstance(args.sparsity, float)
    args = parsed("compress", f"--config={path}", "--widths", "5", "--activations", "relu", "--no-quiet", "--seed", "9")
    assert (args.widths, args.activations, args.quiet, args.seed, args.data) == ((5,), "relu", False, 9, "digits.npz")
    args = parsed("verify", "--config", path)
    assert (args.sizes, args.activations, args.model) == ((64, 128, 256), "tanh,leaky_relu(0.1)", None)
    assert parsed("info", "--config", path).model == "m.npz"
    args = parsed("predict", "--config", path)
    assert (args.model, args.data, args.json) == ("m.npz", "d.npz", False)
    assert parsed("predict", "--config", path, "other.npz").model == "other.npz"
    assert parsed("predict", "other.npz", "--config", path).model == "other.npz"


def test_the_file_of_the_documentation(tmp_path):
    page = (Path(__file__).resolve().parent.parent / "docs" / "howto-configuration.md").read_text(encoding="utf-8")
    path = write(tmp_path, re.search(r"```toml\n(.*?)```", page, flags=re.DOTALL).group(1))
    args = parsed("kernel", "--config", path, "--out", "ck.npy", "--kind", "ck", "--no-json")
    assert (args.data, args.samples, args.kind, args.json, args.bias_std) == ("points.npz", 80, "ck", False, 0.1)
    assert parsed("spectrum", "--config", path).features == 500
    assert load_network(path) == rn.Network(
        ["relu", rn.activations.leaky_relu(0.1)], weight_std=1.2, bias_std=0.1, centered=True, input_scaling="unit"
    )
    printed = re.search(r"```text\nrmtntk kernel: error: run.toml: (.*?)\n```", page).group(1)
    path.write_text("[kernel]\nsample = 80\n", encoding="utf-8")
    assert_failed(run("kernel", "--config", path), 2, printed)


def test_the_table_of_a_command_goes_before_that_of_the_network(tmp_path):
    path = write(tmp_path, NETWORK + '[kernel]\ndata = "d"\nout = "k.npy"\nactivations = ["erf"]\nuncentered = false\n')
    args = parsed("kernel", "--config", path)
    assert (args.activations, args.uncentered) == ("erf", False)
    assert (args.weight_std, args.bias_std, args.input_scaling, args.tau0) == (1.25, 1.0, "fan_in", 0.75)
    assert all(isinstance(value, float) for value in (args.weight_std, args.bias_std, args.tau0))


@pytest.mark.parametrize("centered", ["false", "true"])  # centring looks at tau0
def test_a_configured_kernel_is_that_of_the_network(tmp_path, centered):
    x = np.random.default_rng(0).standard_normal((20, 6))
    np.savez(tmp_path / "d.npz", x=x)
    text = NETWORK.replace("centered = false", f"centered = {centered}")
    path = write(tmp_path, text + "[kernel]\nraw = true\njson = true\n")
    words = ["--data", tmp_path / "d.npz", "--out", tmp_path / "k.npy"]
    outcome = strict(succeeded(run("kernel", "--config", path, *words)))
    assert outcome["command"]["options"]["weight_std"] == 1.25
    np.testing.assert_array_equal(np.load(tmp_path / "k.npy"), rn.ck(load_network(path), x))


@pytest.mark.parametrize("command", ["equivalent", "spectrum"])
def test_tau0_of_the_network_reaches_the_other_kernels(tmp_path, command):
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).standard_normal((40, 20)))
    path = write(tmp_path, "[network]\nactivations = 'tanh'\ntau0 = 0.75\n[spectrum]\nsamples = 40\nfeatures = 30\n")
    words = ["--data", tmp_path / "d.npz"] if command == "equivalent" else []
    assert strict(succeeded(run(command, "--config", path, *words, "--json")))["tau0"] == 0.75


def test_tau0_of_the_network_reaches_the_match(tmp_path):
    path = write(tmp_path, '[network]\nactivations = "relu"\nweight_std = 1.5\ntau0 = 0.5\ncentered = true\n')
    found = rn.match(load_network(path), 0.5)
    fields = strict(succeeded(run("match", "--config", path, "--json")))
    assert fields["thresholds"] == [act.thresholds.tolist() for act in found.activations]


BAD_RUNS = {
    "[kernle]\n": "[kernle] must be [network] or a command; did you mean kernel?",
    "[rerun]\n": "[rerun] must be [network] or a command",
    "[kernel]\nsample = 3\n": "`[kernel] sample` must be an option of rmtntk kernel; did you mean samples?",
    "[kernel]\nconfig = 'a'\n": "`[kernel] config` must be an option",
    "[kernel]\nhelp = true\n": "`[kernel] help` must be an option",
    "[kernel]\nno-json = true\n": "`[kernel] no-json` must be an option",
    "[compress]\nwidth = [3]\n": "`[compress] width` must be an option of rmtntk compress; did you mean widths?",
    "[kernel]\nsamples = '3'\n": "`[kernel] samples` must be an integer, got '3'",
    "[kernel]\nsamples = 3.0\n": "`[kernel] samples` must be an integer, got 3.0",
    "[kernel]\nsamples = true\n": "`[kernel] samples` must be an integer, got True",
    "[kernel]\nweight-std = 'one'\n": "`[kernel] weight-std` must be a number, got 'one'",
    "[kernel]\nweight-std = true\n": "`[kernel] weight-std` must be a number",
    "[kernel]\nraw = 1\n": "`[kernel] raw` must be true or false, got 1",
    "[kernel]\ndata = 3\n": "`[kernel] data` must be a string, got 3",
    "[kernel]\nout = ['k.npy']\n": "`[kernel] out` must be a string",
    "[kernel]\nkind = 'ntkk'\n": "`[kernel] kind` must be one of 'ck', 'ntk', got 'ntkk'; did you mean ntk?",
    "[compress]\nwidths = '3,3'\n": "`[compress] widths` must be a list of integers such as [64, 64], got '3,3'",
    "[compress]\nwidths = []\n": "`[compress] widths` must be a list of integers",
    "[compress]\nwidths = [3, 3.0]\n": "`[compress] widths` must be a list of integers",
    "[compress]\nreadout-bits = 4\n": "`[compress] readout-bits` must be one of 8, 2, got 4",
    "[kernel]\nactivations = ['rulu']\n": "`[kernel] activations`",
    "[kernel]\nkind = {a = 1}\n": "`[kernel] kind` must be a string",
    "[kernel]\nbias-std = 1\nbias_std = 1\n": "must be given once",
    "[network]\nwidths = [3]\n": "`[network] widths` must be an argument of a network",
    "[network]\nweight_std = -1\n": "[network]: `weight_std`",
    "kind = 'ntk'\n": "`kind` must stand in a table",
    "[kernel\n": "must be a TOML file",
}


@pytest.mark.parametrize("text", BAD_RUNS)
def test_bad_runs_are_answered_in_one_line_before_any_work(tmp_path, text):
    path = write(tmp_path, text)
    # a mistake in the table of another command is one too
    for command in (["kernel", "--data", "no.npz", "--out", "k.npy"], ["match"], ["info"]):
        outcome = run(*command, "--config", path)
        assert_failed(outcome, 2, f"rmtntk {command[0]}: error: {path}: ", BAD_RUNS[text])


def test_bad_values_of_a_file_are_refused_as_those_of_the_command_line_are(tmp_path):
    path = write(tmp_path, "[verify]\nsizes = [64, 128]\n[kernel]\nsamples = 2\ndata = 'no.npz'\nout = 'k.npy'\n")
    assert_failed(run("verify", "--config", path), 2, "three different sizes")
    assert_failed(run("kernel", "--config", path), 2, "`samples` must be at least 8, got 2")


@pytest.mark.parametrize(
    ("command", "line", "words"),
    [
        ("compress", "weight_std = 1.5", "`[network] weight_std` must be left out, got 1.5: rmtntk compress is for"),
        ("compress", "tau0 = 1.0", "rmtntk compress takes it from the data"),
        ("verify", "tau0 = 1.0", "rmtntk verify takes it from the data"),
        ("match", "bias_std = 0.1", "rmtntk match is for networks with bias_std = 0.0"),
        ("match", "centered = false", "rmtntk match is for networks with centered = True"),
    ],
)
def test_a_network_that_a_command_cannot_have_is_refused(tmp_path, command, line, words):
    path = write(tmp_path, f"[network]\nactivations = 'relu'\n{line}\n")
    outcome = run(command, "--config", path, *(["--data", "d", "--out", "o"] if command == "compress" else []))
    assert_failed(outcome, 2, words)
    assert succeeded(run("info", "--config", path))  # info has no network


def test_config_itself(tmp_path):
    path = write(tmp_path, "[match]\ntau0 = 2.0\n")
    assert parsed("match", "--config", path).tau0 == 2.0
    assert_failed(run("match", "--conf", path), 2, "`--config` must be spelled out")
    assert_failed(run("match", "--config", path, "--config", path), 2, "`--config` must be given once")
    assert_failed(run("match", "--config"), 2, "expected one argument")
    assert_failed(run("match", "--config", tmp_path / "no.toml"), 2, "no.toml: must be a readable TOML file")
    assert_failed(run("match", "--config", tmp_path), 2, "must be a readable TOML file")
    assert_failed(run("kernel", "--config", path, "--out", "k.npy"), 2, "--data")  # still missing
    assert "usage:" in succeeded(run("match", "--config", path, "--help"))


def test_lists_of_tables(tmp_path):
    path = write(tmp_path, "[[kernel]]\nsamples = 3\n[[kernel]]\nsamples = 4\n")
    with pytest.raises(ValueError, match=r"\[kernel\] must be one table, got \[\[kernel\]\], a list of 2"):
        read_tables(path)


def test_a_byte_order_mark_and_windows_lines(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes('\ufeff[network]\r\nactivations = ["relu"]\r\n'.encode())
    assert load_network(path) == rn.Network(["relu"])
