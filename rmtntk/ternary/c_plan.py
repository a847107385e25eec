r"""What the C code of a network holds: layers folded so that it only counts bits or adds small integers.

Let v(code) = low + step · u(code) be the integer value of an input code, u ≥ 0, and u = Σ_b w_b B_b with bits B_b of
the code (its binary digits, or one bit a step of the distinct values, whichever are fewer). With the bit planes
*nonzero* and *negative* of a row of T, of which n_neg entries are −1,

    Σ_b w_b popcount(nonzero & (negative ^ B_b)) = Σ_j T_ij u_j + (Σ_b w_b) n_neg,

one popcount a word and plane: at T = 1 the bit counts B, at T = −1 it counts 1 − B. So θ ≤ acc, acc = Σ_j T_ij v_j,
is a comparison of that count with an integer, into which low, step and n_neg are folded, exactly.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmtntk._typing import AnyArray, IntArray
from rmtntk.integer import IntegerLayer, IntegerNetwork

__all__ = ["LAYOUTS", "SKIP", "Plan", "Symbols", "Table", "narrow", "plan_network"]

LAYOUTS = ("planes", "bitmap", "list")
SKIP = 255  # the entry of a list that steps over that many columns, without a weight
_BYTES = {f"{sign}int{bits}_t": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}


class Table(NamedTuple):
    """A constant array of the C file, in flash."""

    name: str
    ctype: str
    array: AnyArray
    comment: str

    @property
    def nbytes(self) -> int:
        """Bytes it takes in flash."""
        return self.array.size * _BYTES[self.ctype]

    @property
    def is_plane(self) -> bool:
        """Whether it holds words of bits."""
        return self.name.endswith(("_nonzero", "_negative"))


class Symbols(NamedTuple):
    """values = low + step · u(code), u = Σ_b weights_b · (bit b of pattern(code))."""

    low: int
    step: int
    u: IntArray
    weights: tuple[int, ...]
    pattern: IntArray


@dataclass(frozen=True, eq=False)
class Plan:
    """A layer as it will be written.

    Attributes
    ----------
    number : int
        1 for the first.
    layout : {"planes", "bitmap", "list"}
    rows, columns, levels : int
        Neurons, inputs, levels of a neuron.
    symbols : Symbols
        How it reads its inputs.
    start : int
        The sum starts here: minus what the stored thresholds were lowered by.
    skips : bool
        Whether any entry of a list only skips columns.
    tables : tuple of Table
    """

    number: int
    layout: str
    rows: int
    columns: int
    levels: int
    symbols: Symbols
    start: int
    skips: bool
    tables: tuple[Table, ...]

    @property
    def flash(self) -> int:
        """Bytes of its tables."""
        return sum(table.nbytes for table in self.tables)

    @property
    def reads_planes(self) -> bool:
        """Whether its inputs are bit planes; otherwise they are bytes."""
        return self.layout != "list"

    def has(self, what: str) -> bool:
        """Whether it has a table of that kind."""
        return any(table.name == f"layer{self.number}_{what}" for table in self.tables)

    def plane_words(self, word_bits: int) -> int:
        """Words of its inputs as bit planes."""
        return len(self.symbols.weights) * math.ceil(self.columns / word_bits)

    def input_bytes(self, word_bits: int) -> int:
        """Bytes of its inputs in RAM, whole words."""
        words = self.plane_words(word_bits) if self.reads_planes else math.ceil(8 * self.columns / word_bits)
        return words * word_bits // 8


def narrow(low: int, high: int) -> str:
    """Return the narrowest C type of at most 32 bits that holds every integer from `low` to `high`."""
    for bits in (8, 16, 32):
        if low >= 0 and high < 2**bits and bits < 32:  # 32-bit sums are signed: compare them with nothing else
            return f"uint{bits}_t"
        if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1):
            return f"int{bits}_t"
    raise ValueError(f"no integer type of 32 bits holds {low} to {high}")


def plan_network(network: IntegerNetwork, layout: str, word_bits: int) -> list[Plan]:
    """Choose and fill the tables of every layer; `layout` "auto" takes the smallest, of equal ones the fastest."""
    plans: list[Plan] = []
    for k, layer in enumerate(network.layers):
        options = [_plan_layer(layer, k + 1, kind, word_bits) for kind in (LAYOUTS if layout == "auto" else (layout,))]
        plans.append(min(options, key=lambda plan: plan.flash))
    return plans


def _plan_layer(layer: IntegerLayer, number: int, layout: str, word_bits: int) -> Plan:
    dense = layer.weights.unpack()
    rows, columns = dense.shape
    symbols = _symbols(layer.values.astype(np.int64))
    weight = sum(symbols.weights)
    n_positive, n_negative = (dense > 0).sum(axis=1), (dense < 0).sum(axis=1)
    if 2 * weight * int((n_positive + n_negative).max()) + 2 >= 2**31:  # twice: thresholds may be lowered
        raise ValueError(
            f"`network.layers[{number - 1}]` must have sums inside 30 bits, its values {layer.values.min()} to "
            f"{layer.values.max()} can leave them: round the values to fewer bits"
        )
    # acc = low · rowsum + step · s: θ ≤ acc iff s ≥ ceil((θ − low · rowsum)/step), with s between low_s and high_s
    top = int(symbols.u.max())
    base = symbols.low * (n_positive - n_negative)[:, None]
    low_s, high_s = -top * n_negative[:, None], top * n_positive[:, None]
    theta = np.clip(layer.thresholds.astype(np.int64), base + symbols.step * low_s, base + symbols.step * high_s + 1)
    folded = -((base - theta) // symbols.step)
    kind = layout
    if layout != "list":
        folded = folded + weight * n_negative[:, None]
        if (dense != 0).all():
            kind = "planes"  # no zeros to mark: signs only, either way
    start, ctype, folded = _lowered(folded)
    prefix = f"layer{number}_"
    tables, skips = _weights(dense, prefix, kind, word_bits)
    codes = np.arange(len(symbols.u))
    if kind == "list":
        if (symbols.u != codes).any():
            tables.append(Table(prefix + "value", narrow(0, top), symbols.u, "integer that an input code stands for"))
    elif (symbols.pattern != codes).any():
        least = narrow(0, int(symbols.pattern.max()))
        tables.append(Table(prefix + "pattern", least, symbols.pattern, "bits that an input code sets, one a plane"))
    comment = "a row a neuron: its level is the number of thresholds <= its sum"
    tables.append(Table(prefix + "threshold", ctype, folded, comment))
    return Plan(number, kind, rows, columns, folded.shape[1] + 1, symbols, start, skips, tuple(tables))


def _symbols(values: IntArray) -> Symbols:
    distinct = np.unique(values)
    if len(distinct) == 1:  # a constant: one plane, of zeros
        zeros = np.zeros(len(values), dtype=np.int64)
        return Symbols(int(distinct[0]), 1, zeros, (1,), zeros)
    step = int(np.gcd.reduce(np.diff(distinct)))
    u, ladder = (values - distinct[0]) // step, (distinct - distinct[0]) // step
    digits = int(u.max()).bit_length()
    if len(ladder) - 1 <= digits:
        rank = np.searchsorted(ladder, u)
        return Symbols(int(distinct[0]), step, u, tuple(np.diff(ladder).tolist()), 2**rank - 1)
    return Symbols(int(distinct[0]), step, u, tuple(2**b for b in range(digits)), u)


def _lowered(folded: IntArray) -> tuple[int, str, IntArray]:
    """Subtract the least threshold if the rest then fits into a narrower type."""
    low, high = int(folded.min()), int(folded.max())
    plain, moved = narrow(low, high), narrow(0, high - low)
    if _BYTES[moved] < _BYTES[plain]:
        return -low, moved, folded - low
    return 0, plain, folded


def _weights(dense: NDArray[np.int8], prefix: str, kind: str, word_bits: int) -> tuple[list[Table], bool]:
    word = f"uint{word_bits}_t"
    if kind == "list":
        entries, counts = _entries(dense)
        comment = f"steps from weight to weight, row after row, +1 first; {SKIP}: a step with no weight at its end"
        number = "a row a neuron: number of steps to weights +1, to weights -1"
        tables = [
            Table(prefix + "entry", "uint8_t", entries, comment),
            Table(prefix + "count", narrow(0, int(counts.max())), counts, number),
        ]
        return tables, bool((entries == SKIP).any())
    tables = []
    if (dense == 0).any():
        comment = "a row a neuron, bit j of a row: weight j is not 0"
        tables.append(Table(prefix + "nonzero", word, _words(dense != 0, word_bits), comment))
    if kind == "planes":
        comment = "a row a neuron, bit j of a row: weight j is -1"
        tables.append(Table(prefix + "negative", word, _words(dense < 0, word_bits), comment))
    else:
        signs = np.packbits(dense[dense != 0] < 0, bitorder="little")
        comment = "a bit a nonzero weight, row after row: it is -1"
        tables.append(Table(prefix + "sign", "uint8_t", signs if len(signs) else np.zeros(1, np.uint8), comment))
    return tables, False


def _words(mask: NDArray[np.bool_], word_bits: int) -> AnyArray:
    rows, columns = mask.shape
    padded = np.zeros((rows, word_bits * math.ceil(columns / word_bits)), dtype=np.bool_)
    padded[:, :columns] = mask
    return np.packbits(padded, axis=1, bitorder="little").view(f"<u{word_bits // 8}")


def _entries(dense: NDArray[np.int8]) -> tuple[NDArray[np.uint8], IntArray]:
    """Steps from weight to weight, those of +1 and then those of −1 of every row; their numbers, (rows, 2)."""
    halves = np.stack([dense > 0, dense < 0], axis=1).reshape(2 * len(dense), -1)
    half, column = np.nonzero(halves)
    if len(half) == 0:
        return np.zeros(1, dtype=np.uint8), np.zeros((len(dense), 2), dtype=np.int64)  # C has no empty arrays
    before = np.concatenate([[0], column[:-1]])
    before[np.concatenate([[True], half[1:] != half[:-1]])] = 0
    skips, step = np.divmod(column - before, SKIP)
    ends = np.cumsum(skips + 1)
    entries = np.full(int(ends[-1]), SKIP, dtype=np.uint8)
    entries[ends - 1] = step
    counts = np.bincount(half, weights=skips + 1, minlength=len(halves))
    return entries, counts.astype(np.int64).reshape(-1, 2)
