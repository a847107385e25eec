"""C99 text of a planned network: tables, one function a layer, entry points, header, self-test."""

import math
from typing import NamedTuple

import numpy as np

from rmtntk._typing import IntArray
from rmtntk.integer import IntegerNetwork
from rmtntk.ternary.c_plan import SKIP, Plan, Table, narrow
from rmtntk.ternary.integer_readout import IntegerReadout

__all__ = ["Program"]


class Program(NamedTuple):
    """All that the text depends on."""

    network: IntegerNetwork
    readout: IntegerReadout
    plans: list[Plan]
    name: str
    header: str
    labels: list[str] | None
    word_bits: int
    sum_type: str

    @property
    def classes(self) -> int:
        """Number of scores."""
        return len(self.readout.bias)

    @property
    def mask(self) -> str:
        """C that drops the bits of an input which do not count."""
        bits = self.network.quantiser.bits
        return "" if bits == 8 else f" & {2**bits - 1}"

    @property
    def buffers(self) -> tuple[int, int]:
        """Bytes of the two buffers: layer k reads number (k − 1) mod 2; a first list reads the inputs themselves."""
        needs = [plan.input_bytes(self.word_bits) for plan in self.plans]
        if not self.plans[0].reads_planes:
            needs[0] = 0
        return max(needs[::2], default=0), max(needs[1::2], default=0)

    @property
    def ram(self) -> int:
        """Bytes of all arrays on the stack of a prediction."""
        return sum(self.buffers) + self.classes * (8 + int(self.sum_type[3:5]) // 8)

    @property
    def flash(self) -> int:
        """Bytes of all tables, labels not counted."""
        return sum(plan.flash for plan in self.plans) + sum(table.nbytes for table in self._final())

    def source(self) -> str:
        """Text of the .c file."""
        parts = [
            f"/* {self.name}: a network with ternary weights in integer arithmetic, made by rmtntk.\n"
            f" * How to use it, and what it needs: {self.header}. */\n",
            f'#include "{self.header}"\n\n#include <stddef.h>\n',
            *self._helpers(),
        ]
        for plan in self.plans:
            what = f"{plan.columns} inputs of {len(plan.symbols.u)} levels, {plan.rows} neurons of {plan.levels} levels"
            parts.append(f"/* ---- layer {plan.number}: {what}; {plan.layout}, {plan.flash} bytes ---- */\n")
            parts += [_declaration(table) for table in plan.tables]
        parts.append("/* ---- readout ---- */\n")
        parts += [_declaration(table) for table in self._final()]
        if self.labels is not None:
            parts.append(
                f"const char *const {self.name}_labels[{self.classes}] = {{\n{_wrapped(self.labels, '    ')}\n}};\n"
            )
        parts.append("/* ---- code ---- */\n")
        if self.plans[0].reads_planes:
            parts.append(self._split())
        parts += [self._layer(k) for k in range(len(self.plans))]
        parts.append(self._entry_points())
        return "\n".join(parts)

    def header_text(self) -> str:
        """Text of the .h file."""
        upper, quantiser, plans = self.name.upper(), self.network.quantiser, self.plans
        widths = "-".join(str(width) for width in (plans[0].columns, *(plan.rows for plan in plans), self.classes))
        labels = f"\n/* Label of every class. */\nextern const char *const {self.name}_labels[{upper}_CLASSES];\n"
        return f"""\
/* {self.name}: a network {widths} with ternary weights in integer arithmetic, made by rmtntk.
 *
 * x holds {upper}_INPUTS codes of {quantiser.bits} bit(s), one a byte: code = round((input - low) / step) with
 * low = {quantiser.low:.17g}, step = {quantiser.step:.17g}; higher bits of a byte are ignored.
 * C99, no floating point, no heap, no static variables: reentrant. */
#ifndef RMTNTK_{upper}_H
#define RMTNTK_{upper}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_INPUTS {plans[0].columns}
#define {upper}_CLASSES {self.classes}
/* Bytes of the constant tables; code and labels come on top. */
#define {upper}_FLASH_BYTES {self.flash}
/* Bytes of all arrays {self.name}_predict has on the stack; saved registers and scalars come on top. */
#define {upper}_RAM_BYTES {self.ram}

/* Class of largest score, from 0; of equal scores the first. */
int {self.name}_predict(const uint8_t *x);

/* All {upper}_CLASSES scores. */
void {self.name}_scores(const uint8_t *x, int64_t *scores);
{labels if self.labels is not None else ""}
#ifdef __cplusplus
}}
#endif

#endif
"""

    def test_text(self, codes: IntArray, scores: IntArray) -> str:
        """Text of a program that returns 0 if the scores of the codes are these, else 1."""
        upper, name = self.name.upper(), self.name
        best = Table("expected_class", "int32_t", scores.argmax(axis=1), "their classes")
        tables = [
            Table("input", "uint8_t", codes, "input codes"),
            Table("expected", "int64_t", scores, "their scores"),
            best,
        ]
        declarations = "\n".join(_declaration(table) for table in tables)
        return f"""\
/* Self-test of {name}: main() returns 0 if every score is what rmtntk computed, else 1. */
#include "{self.header}"

#include <stddef.h>

{declarations}
int main(void)
{{
    for (size_t n = 0; n < {len(codes)}; n++) {{
        int64_t scores[{upper}_CLASSES];
        {name}_scores(input[n], scores);
        for (size_t c = 0; c < {upper}_CLASSES; c++) {{
            if (scores[c] != expected[n][c]) {{
                return 1;
            }}
        }}
        if ({name}_predict(input[n]) != expected_class[n]) {{
            return 1;
        }}
    }}
    return 0;
}}
"""

    # parts of the source ---------------------------------------------------------------------------------------

    def _final(self) -> list[Table]:
        outputs, q = self.network.outputs.astype(np.int64), self.readout.coefficients
        least = narrow(int(outputs.min()), int(outputs.max()))
        return [
            Table("output", least, outputs, "integer that a level of the last layer stands for"),
            Table("coefficient", f"int{8 * q.dtype.itemsize}_t", q, "a row a neuron, a column a class"),
            Table("multiplier", "int32_t", self.readout.multiplier, "score = multiplier * sum + bias"),
            Table("bias", "int64_t", self.readout.bias, "score = multiplier * sum + bias"),
        ]

    def _helpers(self) -> list[str]:
        parts: list[str] = []
        bits = self.word_bits
        if any(plan.reads_planes for plan in self.plans):
            option = f"{self.name.upper()}_PORTABLE_POPCOUNT"
            builtin = "__builtin_popcountl" if bits == 32 else "__builtin_popcountll"
            m1, m2, m4, m8 = (_hex(int.from_bytes(bytes([byte]) * (bits // 8)), bits) for byte in (0x55, 0x33, 0x0F, 1))
            parts.append(f"""\
typedef uint{bits}_t word;

/* Number of ones. Define {option} where the compiler would call a library for it. */
static int32_t ones(word v)
{{
#if defined(__GNUC__) && !defined({option})
    return (int32_t){builtin}(v);
#else
    v = v - ((v >> 1) & {m1}); /* ones in every two bits, */
    v = (v & {m2}) + ((v >> 2) & {m2}); /* in every four, */
    v = (v + (v >> 4)) & {m4}; /* in every byte, */
    return (int32_t)((v * {m8}) >> {bits - 8}); /* and the sum of all bytes in the highest */
#endif
}}
""")
        if any(plan.layout == "bitmap" for plan in self.plans):
            parts.append("""\
/* Bits of the weights -1 in a word: the next bits of the string of signs, one a nonzero weight. */
static word signs(word nonzero, const uint8_t *sign, uint32_t *position)
{
    word negative = 0;
    while (nonzero != 0) {
        const word rest = nonzero & (nonzero - 1u); /* all but the lowest one */
        if (((sign[*position >> 3] >> (*position & 7u)) & 1) != 0) {
            negative |= nonzero ^ rest;
        }
        nonzero = rest;
        *position += 1u;
    }
    return negative;
}
""")
        return parts

    def _split(self) -> str:
        first = self.plans[0]
        return f"""\
/* Inputs to bit planes: planes 0, 1, ... of inputs 0 to {self.word_bits - 1}, then of the next {self.word_bits}, ... */
static void split(const uint8_t *x, word *out)
{{
    for (size_t k = 0; k < {first.plane_words(self.word_bits)}; k++) {{
        out[k] = 0;
    }}
    for (size_t i = 0; i < {first.columns}; i++) {{
{_set_bits(first, f"x[i]{self.mask}", self.word_bits)}
    }}
}}
"""

    def _layer(self, k: int) -> str:
        plan, following = self.plans[k], self.plans[k + 1] if k + 1 < len(self.plans) else None
        tag = f"layer{plan.number}"
        source = "const word *in" if plan.reads_planes else "const uint8_t *in"
        if following is None:
            target = f"{self.sum_type} *sums"
        else:
            target = "word *out" if following.reads_planes else "uint8_t *out"
        lines = [f"static void {tag}({source}, {target})", "{"]
        if plan.layout == "bitmap":
            lines.append("    uint32_t position = 0; /* in the string of signs */")
        elif plan.layout == "list":
            lines.append(f"    const uint8_t *entry = {tag}_entry;")
        if following is not None and following.reads_planes:
            words = following.plane_words(self.word_bits)
            lines += [f"    for (size_t k = 0; k < {words}; k++) {{", "        out[k] = 0;", "    }"]
        lines += [f"    for (size_t i = 0; i < {plan.rows}; i++) {{", f"        int32_t sum = {plan.start};"]
        lines += _count(plan, self.word_bits) if plan.reads_planes else _add(plan, self.mask if k == 0 else "")
        lines += [
            "        size_t level = 0;",
            f"        for (size_t t = 0; t < {plan.levels - 1}; t++) {{",
            f"            level += (size_t)(sum >= {tag}_threshold[i][t]);",
            "        }",
        ]
        if following is None:
            lines += self._read_out()
        elif following.reads_planes:
            lines.append(_set_bits(following, "level", self.word_bits))
        else:
            lines.append("        out[i] = (uint8_t)level;")
        return "\n".join([*lines, "    }", "}", ""])

    def _read_out(self) -> list[str]:
        lines = [
            f"        const {self.sum_type} value = output[level];",
            "        if (value != 0) {",
            f"            for (size_t c = 0; c < {self.classes}; c++) {{",
            "                sums[c] += value * coefficient[i][c];",
            "            }",
            "        }",
        ]
        if (self.network.outputs == 0).any():
            return lines
        return [lines[0], *(line[4:] for line in lines[2:5])]

    def _entry_points(self) -> str:
        upper, name = self.name.upper(), self.name
        word = "word" if any(plan.reads_planes for plan in self.plans) else "uint8_t"
        unit = self.word_bits // 8 if word == "word" else 1
        lines = [f"void {name}_scores(const uint8_t *x, int64_t *scores)", "{"]
        lines += [
            f"    {word} {buffer}[{size // unit}];" for buffer, size in zip("ab", self.buffers, strict=True) if size
        ]
        lines.append(f"    {self.sum_type} sums[{self.classes}] = {{0}};")
        if self.plans[0].reads_planes:
            lines.append("    split(x, a);")
        for k, plan in enumerate(self.plans):
            source = _buffer(k, plan, word) if k or plan.reads_planes else "x"
            last = k + 1 == len(self.plans)
            lines.append(f"    layer{k + 1}({source}, {'sums' if last else _buffer(k + 1, self.plans[k + 1], word)});")
        return (
            "\n".join(lines)
            + f"""
    for (size_t c = 0; c < {self.classes}; c++) {{
        scores[c] = (int64_t)multiplier[c] * sums[c] + bias[c];
    }}
}}

int {name}_predict(const uint8_t *x)
{{
    int64_t scores[{upper}_CLASSES];
    int best = 0;
    {name}_scores(x, scores);
    for (int c = 1; c < {upper}_CLASSES; c++) {{
        if (scores[c] > scores[best]) {{
            best = c;
        }}
    }}
    return best;
}}
"""
        )


def _buffer(k: int, reader: Plan, word: str) -> str:
    buffer = "ab"[k % 2]
    return buffer if reader.reads_planes or word == "uint8_t" else f"(uint8_t *){buffer}"


def _count(plan: Plan, word_bits: int) -> list[str]:
    """Lines that count the bits of row i."""
    tag, planes, masked = f"layer{plan.number}", len(plan.symbols.weights), plan.has("nonzero")
    lines = [f"        for (size_t w = 0; w < {math.ceil(plan.columns / word_bits)}; w++) {{"]
    if masked:
        lines.append(f"            const word nonzero = {tag}_nonzero[i][w];")
    if plan.layout == "planes":
        lines.append(f"            const word negative = {tag}_negative[i][w];")
    else:
        lines.append(f"            const word negative = signs(nonzero, {tag}_sign, &position);")
    for b, weight in enumerate(plan.symbols.weights):
        bits = f"negative ^ in[{planes} * w + {b}]"
        factor = f"{weight} * " if weight > 1 else ""
        lines.append(f"            sum += {factor}ones({f'nonzero & ({bits})' if masked else bits});")
    return [*lines, "        }"]


def _add(plan: Plan, mask: str) -> list[str]:
    """Lines that add up the inputs on the list of row i."""
    tag, symbol = f"layer{plan.number}", f"in[column]{mask}"
    value = f"{tag}_value[{symbol}]" if plan.has("value") else symbol
    lines = ["        size_t column = 0;"]
    for half, sign in enumerate("+-"):
        if half:
            lines.append("        column = 0;")
        lines += [
            f"        for (size_t n = (size_t){tag}_count[i][{half}]; n > 0; n--) {{",
            "            const uint8_t step = *entry++;",
            "            column += step;",
        ]
        if plan.skips:
            lines += [f"            if (step == {SKIP}) {{", "                continue;", "            }"]
        lines += [f"            sum {sign}= {value};", "        }"]
    return lines


def _set_bits(reader: Plan, code: str, word_bits: int) -> str:
    """Lines that set the bits of neuron or input i in the planes which the layer `reader` reads."""
    planes = len(reader.symbols.weights)
    pattern = f"layer{reader.number}_pattern[{code}]" if reader.has("pattern") else f"({code})"
    return f"""\
        const uint32_t pattern = (uint32_t){pattern};
        for (size_t b = 0; b < {planes}; b++) {{
            out[{planes} * (i / {word_bits}) + b] |= (word)((pattern >> b) & 1u) << (i % {word_bits});
        }}"""


# tables --------------------------------------------------------------------------------------------------------------


def _hex(value: int, bits: int) -> str:
    return f"0x{value:0{bits // 4}X}{'u' if bits == 32 else 'ull'}"


def _literals(table: Table) -> list[str]:
    flat = table.array.ravel().tolist()
    if table.is_plane:
        bits = 8 * table.array.dtype.itemsize
        return [_hex(value, bits) for value in flat]
    if table.ctype == "int64_t":
        return [f"{'-' if value < 0 else ''}INT64_C({abs(value)})" for value in flat]
    return [f"{value}u" if table.ctype.startswith("u") else str(value) for value in flat]


def _wrapped(items: list[str], indent: str) -> str:
    each = max(1, (118 - len(indent)) // (max(map(len, items)) + 2))
    return "\n".join(indent + ", ".join(items[k : k + each]) + "," for k in range(0, len(items), each))


def _declaration(table: Table) -> str:
    items = _literals(table)
    shape = "".join(f"[{extent}]" for extent in table.array.shape)
    ctype = "word" if table.is_plane else table.ctype
    head = f"/* {table.comment} */\nstatic const {ctype} {table.name}{shape} = {{\n"
    if table.array.ndim == 1:
        return head + _wrapped(items, "    ") + "\n};\n"
    width = table.array.shape[1]
    rows = [items[k : k + width] for k in range(0, len(items), width)]
    if max(sum(map(len, row)) + 2 * width for row in rows) <= 56:  # short rows: several a line
        return head + _wrapped(["{" + ", ".join(row) + "}" for row in rows], "    ") + "\n};\n"
    return head + "\n".join("    {\n" + _wrapped(row, "        ") + "\n    }," for row in rows) + "\n};\n"
