"""An integer network as C for devices without floating point, operating system or heap.

`c_plan` folds the layers into tables, `integer_readout` the readout, `c_text` writes them; here are checks and files.
"""

import os
import re
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._files import atomic_write
from rmtntk._typing import IntArray
from rmtntk._validation import check_choice, check_integer
from rmtntk.integer import IntegerNetwork
from rmtntk.ternary.c_plan import LAYOUTS, plan_network
from rmtntk.ternary.c_text import Program
from rmtntk.ternary.integer_readout import FoldedReadout, IntegerReadout, fold_readout

__all__ = ["FoldedReadout", "IntegerReadout", "export_c", "fold_readout", "integer_scores"]


def integer_scores(network: IntegerNetwork, readout: IntegerReadout, codes: ArrayLike) -> IntArray:
    """Return the scores (n, C) of input codes (n, p) by plain int64 arithmetic: what the C code is checked against."""
    _check_network(network)
    _check_readout(network, readout)
    symbols = _integers(codes, "codes", 2)
    width, levels = network.layers[0].weights.columns, len(network.layers[0].values)
    if symbols.shape[1] != width or symbols.min() < 0 or symbols.max() >= levels:
        raise ValueError(
            f"`codes` must have shape (n, {width}) and entries 0 to {levels - 1}, "
            f"got shape {symbols.shape}, entries {symbols.min()} to {symbols.max()}"
        )
    for layer in network.layers:
        acc = layer.values.astype(np.int64)[symbols] @ layer.weights.unpack().T.astype(np.int64)
        symbols = np.zeros(acc.shape, dtype=np.int64)
        for t in range(layer.thresholds.shape[1]):
            symbols += acc >= layer.thresholds[:, t]
    sums = network.outputs.astype(np.int64)[symbols] @ readout.coefficients.astype(np.int64)
    return sums * readout.multiplier.astype(np.int64) + readout.bias


def export_c(
    network: IntegerNetwork,
    readout: IntegerReadout,
    path: str | os.PathLike[str],
    *,
    name: str = "net",
    labels: Sequence[Hashable] | None = None,
    layout: Literal["auto", "planes", "bitmap", "list"] = "auto",
    word_bits: Literal[32, 64] = 32,
    self_test: int = 0,
) -> list[Path]:
    """Write a network and its readout as C99: tables and code in ``net.c``, declarations and sizes in ``net.h``.

    The code defines ``int net_predict(const uint8_t *x)``, the index of the class of largest score (the first of equal
    ones), and ``void net_scores(const uint8_t *x, int64_t *scores)``, with `name` for ``net``. It is freestanding
    (``stdint.h`` and ``stddef.h`` only), reentrant, has no floating point, division, heap or static variable, and gives
    the integers of :func:`integer_scores` on every input.

    Parameters
    ----------
    network : IntegerNetwork
        Inputs of at most 8 bits, at most 256 levels a layer.
    readout : IntegerReadout
        Its last layer's readout (:func:`fold_readout`).
    path : path ending in .c
        Where the code goes; the header has the same name with .h.
    name : str
        A C identifier, the prefix of all public names.
    labels : sequence, optional
        One label a class; ``net_labels[]`` holds them as strings.
    layout : {"auto", "planes", "bitmap", "list"}
        How weights are stored: "planes", two bits each (one if none is 0); "bitmap", one bit and one for every sign;
        "list", one byte a nonzero weight (the step from the last one). "auto" takes the smallest, layer by layer.
    word_bits : {32, 64}
        Size of the words that hold bit planes.
    self_test : int
        If positive, also write ``net_test.c``: a main() that returns 0 if that many random inputs give the scores
        computed here, else 1.

    Returns
    -------
    list of Path
        The files written: all of them or none.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its domain, or 32-bit sums or 64-bit scores could overflow.
    FileNotFoundError
        If the folder does not exist.

    Notes
    -----
    Costs O(number of weights). Code and tables are ASCII, the same on every platform.
    """
    targets = _targets(path, self_test)
    check_choice(layout, "layout", ("auto", *LAYOUTS))
    if word_bits not in (32, 64):
        raise ValueError(f"`word_bits` must be 32 or 64, got {word_bits!r}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"`name` must be a C identifier that starts with a letter, got {name!r}")
    _check_network(network)
    _check_readout(network, readout)
    names = None if labels is None else _strings(labels, len(readout.bias))
    plans = plan_network(network, layout, word_bits)
    sum_type = "int32_t" if max(_reach(network, readout)) < 2**31 else "int64_t"
    program = Program(network, readout, plans, name, targets[1].name, names, word_bits, sum_type)
    texts = [program.source(), program.header_text()]
    if self_test:
        shape = (self_test, plans[0].columns)
        codes = np.random.default_rng(0).integers(0, 2**network.quantiser.bits, size=shape)
        texts.append(program.test_text(codes, integer_scores(network, readout, codes)))
    with ExitStack() as stack:
        streams = [stack.enter_context(atomic_write(target)) for target in targets]
        for stream, text in zip(streams, texts, strict=True):
            stream.write(text.encode("ascii"))
        for stream in streams:  # all are safe on disk before the first takes its name
            stream.flush()
            os.fsync(stream.fileno())
    return targets


# checks ------------------------------------------------------------------------------------------------------------


def _integers(value: ArrayLike, name: str, ndim: int) -> IntArray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"`{name}` must be a non-empty array of integers with {ndim} dimension(s), "
            f"got dtype {array.dtype}, shape {array.shape}"
        )
    return array.astype(np.int64)


def _targets(path: str | os.PathLike[str], self_test: int) -> list[Path]:
    source = Path(path)
    if source.suffix != ".c" or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]*", source.name):
        raise ValueError(f"`path` must end in .c and have a name of letters, digits, _ . + - only, got {str(source)!r}")
    check_integer(self_test, "self_test", low=0, high=1000)
    targets = [source, source.with_suffix(".h")]
    if self_test:
        targets.append(source.with_name(f"{source.stem}_test.c"))
    for target in targets:
        if target.is_dir():
            raise IsADirectoryError(f"`path` must name files, but {target} is a directory")
    return targets


def _check_network(network: IntegerNetwork) -> None:
    if not isinstance(network, IntegerNetwork):
        raise TypeError(f"`network` must be an rmtntk.integer.IntegerNetwork, got {network!r}")
    bits = check_integer(network.quantiser.bits, "network.quantiser.bits")
    if not 1 <= bits <= 8:
        raise ValueError(
            f"`network` must have inputs of 1 to 8 bits for uint8_t, got {bits}: compress with input_bits=8"
        )
    if not network.layers:
        raise ValueError("`network.layers` must not be empty")
    width, levels = network.layers[0].weights.columns, 2**bits
    for k, layer in enumerate(network.layers):
        where = f"network.layers[{k}]"
        values = _integers(layer.values, f"{where}.values", 1)
        thresholds = _integers(layer.thresholds, f"{where}.thresholds", 2)
        rows, columns = layer.weights.shape
        if columns != width or len(values) != levels or len(thresholds) != rows:
            raise ValueError(
                f"`{where}` must take {width} inputs of {levels} levels and have a row of thresholds a neuron, got "
                f"weights {layer.weights.shape}, {len(values)} values, thresholds {thresholds.shape}"
            )
        if (thresholds[:, 1:] < thresholds[:, :-1]).any():
            raise ValueError(f"`{where}.thresholds` must ascend in every row")
        width, levels = rows, thresholds.shape[1] + 1
        if levels > 256:
            raise ValueError(f"`{where}` must have at most 256 levels, got {levels}")
    if len(_integers(network.outputs, "network.outputs", 1)) != levels:
        raise ValueError(f"`network.outputs` must have one entry per level, {levels}, got {len(network.outputs)}")


def _check_readout(network: IntegerNetwork, readout: IntegerReadout) -> None:
    if not isinstance(readout, IntegerReadout):
        raise TypeError(f"`readout` must be an IntegerReadout, got {readout!r}: fold_readout makes one")
    coefficients = np.asarray(readout.coefficients)
    if coefficients.dtype not in (np.dtype(np.int8), np.dtype(np.int16)):
        raise TypeError(f"`readout.coefficients` must be int8 or int16, got {coefficients.dtype}: use fold_readout")
    q = _integers(coefficients, "readout.coefficients", 2)
    rows, classes = q.shape
    if rows != network.layers[-1].weights.shape[0]:
        raise ValueError(
            f"`readout.coefficients` must have a row a neuron, {network.layers[-1].weights.shape[0]}, got {rows}"
        )
    if readout.multiplier.dtype != np.int32 or readout.bias.dtype != np.int64:
        raise TypeError(f"`readout` must hold int32 and int64, got {readout.multiplier.dtype} and {readout.bias.dtype}")
    if readout.multiplier.shape != (classes,) or readout.bias.shape != (classes,):
        raise ValueError(
            f"`readout` must have {classes} multipliers and biases, "
            f"got shapes {readout.multiplier.shape}, {readout.bias.shape}"
        )
    for c, sums in enumerate(_reach(network, readout)):  # Python integers: no overflow while looking for one
        if sums * abs(int(readout.multiplier[c])) + abs(int(readout.bias[c])) >= 2**63 or sums >= 2**63:
            raise ValueError(f"`readout` must have scores inside 64 bits, class {c} can leave them: use fold_readout")


def _reach(network: IntegerNetwork, readout: IntegerReadout) -> list[int]:
    top = int(np.abs(network.outputs.astype(np.int64)).max())
    return [int(total) * top for total in np.abs(readout.coefficients.astype(np.int64)).sum(axis=0)]


def _strings(labels: Sequence[Hashable], classes: int) -> list[str]:
    if isinstance(labels, str) or len(labels) != classes:
        raise ValueError(f"`labels` must hold one label a class, {classes}, got {labels!r}")
    return [_string(str(label)) for label in labels]


def _string(text: str) -> str:
    plain = [chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()]
    return '"' + "".join(plain) + '"'
