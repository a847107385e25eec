"""Pieces of the loops on bit planes, written in LLVM's own language on vectors of eight 64-bit words.

LLVM makes them into whatever the processor has: on AVX-512 with VPOPCNTDQ three instructions per 512 weights and plane
(VPTERNLOGQ, VPOPCNTQ, VPADDQ) with 16 sums in registers; pieces of 256 or 128 bits elsewhere. Beside each stands the
same in NumPy, which runs when Numba's compiler is switched off. No index is checked here.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

LANES = 16  # neurons in a panel: two vectors of eight
GROUP = 8  # planes the innermost loop takes at once
_VECTOR = 8
_I64 = ir.IntType(64)
_WORDS = ir.VectorType(_I64, _VECTOR)


def rows_at_once(planes):
    """Rows whose sums are in registers together: 16 vectors in all, of two a row and plane."""
    if planes == 1:
        return 8
    if planes == 2:
        return 4
    return 2 if planes <= 4 else 1


def _bits(words):
    return np.unpackbits(np.ascontiguousarray(words)[..., None].view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int64)


def tile(panel, words, planes, first, stride, rows, count, coefficients, group, sums):
    """sums[r, i] = Σ_p coefficients[group + p] · popcount(…) for `count` planes of `rows` rows and 16 neurons.

    Groups of planes after the first add to what is there.

    rows : rows_at_once(count), or 1

    panel : uint64 (words · 2 · 16,), word by word the 16 words of *nonzero* and those of *negative*
    planes : uint64, flat; plane p of row r begins at first + (stride r + p) words
    """
    weights = panel[: 32 * words].reshape(words, 2, LANES)
    for r in range(rows):
        for p in range(count):
            start = first + (stride * r + p) * words
            y = planes[start : start + words, None]
            agree = _bits(weights[:, 0] & (weights[:, 1] ^ y)).sum(axis=0)
            place = slice(LANES * r, LANES * r + LANES)
            sums[place] = coefficients[group + p] * agree + (sums[place] if group + p > 0 else 0)


def at_least(sums, first, thresholds, start):
    """Bit i of the result says whether sums[first + i] ≥ thresholds[start + i], for 16 neurons."""
    passed = sums[first : first + LANES] >= thresholds[start : start + LANES]
    return np.uint64((passed * (1 << np.arange(LANES))).sum())


def gather_bit(masks, start, bit):
    """Bit j of the result is bit `bit` of masks[start + j], for 64 bytes."""
    found = (masks[start : start + 64] >> np.uint8(bit)) & np.uint8(1)
    return np.packbits(found, bitorder="little").view(np.uint64)[0]


def add_bits(word, codes, start):
    """codes[start + j] += bit j of the word, for 64 bytes."""
    codes[start : start + 64] += np.unpackbits(np.array([word]).view(np.uint8), bitorder="little")


def row_sum(nonzero, negative, start, words, planes, first, count, coefficients):
    """Σ_p coefficients[p] · popcount(…) for one neuron, whose words begin at `start`, and `count` planes of one row."""
    weight, sign = nonzero[start : start + words], negative[start : start + words]
    total = 0
    for p in range(count):
        y = planes[first + p * words : first + (p + 1) * words]
        total += int(coefficients[p]) * int(_bits(weight & (sign ^ y)).sum())
    return total


def count_ones(word):
    """Number of ones of a 64-bit word."""
    return np.int64(bin(int(word)).count("1"))


def churn(times, full):
    """Popcounts of 16 vectors in registers, `times` over: alone, or `full`, with the logic and the sum of `tile`."""
    return np.int64(0)  # a measure of the processor, nothing without the compiler


def _popcount(builder, value):
    suffix = f"v{value.type.count}i64" if isinstance(value.type, ir.VectorType) else "i64"
    kind = ir.FunctionType(value.type, [value.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.{suffix}"), [value])


def _constant(value):
    return ir.Constant(_I64, value)


def _splat(builder, value, count=_VECTOR):
    kind = ir.VectorType(value.type, count)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def data_of(context, builder, kind, value):
    return make_array(kind)(context, builder, value).data


def _load(builder, pointer, index, kind=_WORDS):
    """Load a vector that begins at an element of an array."""
    place = builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())
    return builder.load(place, align=kind.element.width // 8)


def _agreement(builder, nonzero, negative, y):
    return _popcount(builder, builder.and_(nonzero, builder.xor(negative, y)))


def _tile_body(builder, rows, count, panel, words, planes, first, stride, coefficients, group, sums):
    """The loop over words for one number of planes: rows × planes × 2 sums in registers."""
    vectors = LANES // _VECTOR
    starts = []
    for r in range(rows):
        for p in range(count):
            line = builder.add(builder.mul(stride, _constant(r)), _constant(p))
            starts.append(builder.gep(planes, [builder.add(first, builder.mul(line, words))]))
    before = builder.block
    loop, after = builder.append_basic_block("words"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    word = builder.phi(_I64)
    word.add_incoming(_constant(0), before)
    totals = [builder.phi(_WORDS) for _ in range(len(starts) * vectors)]
    base = builder.mul(word, _constant(2 * LANES))
    nonzero = [_load(builder, panel, builder.add(base, _constant(_VECTOR * v))) for v in range(vectors)]
    negative = [_load(builder, panel, builder.add(base, _constant(LANES + _VECTOR * v))) for v in range(vectors)]
    fresh = []
    for k, start in enumerate(starts):
        y = _splat(builder, builder.load(builder.gep(start, [word])))
        fresh += [
            builder.add(totals[vectors * k + v], _agreement(builder, nonzero[v], negative[v], y))
            for v in range(vectors)
        ]
    following = builder.add(word, _constant(1))
    word.add_incoming(following, loop)
    for total, new in zip(totals, fresh, strict=True):
        total.add_incoming(ir.Constant(_WORDS, [0] * _VECTOR), before)
        total.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, words), loop, after)
    builder.position_at_end(after)
    factors = [
        _splat(builder, builder.load(builder.gep(coefficients, [builder.add(group, _constant(p))])))
        for p in range(count)
    ]
    opening = builder.icmp_signed("==", group, _constant(0))
    for r in range(rows):
        for v in range(vectors):
            place = builder.gep(sums, [_constant(LANES * r + _VECTOR * v)])
            place = builder.bitcast(place, _WORDS.as_pointer())
            total = builder.select(opening, ir.Constant(_WORDS, [0] * _VECTOR), builder.load(place, align=8))
            for p in range(count):
                total = builder.add(total, builder.mul(factors[p], fresh[vectors * (count * r + p) + v]))
            builder.store(total, place, align=8)


@intrinsic
def _tile(typing, panel, words, planes, first, stride, rows, count, coefficients, group, sums):
    signature = types.void(panel, types.int64, planes, types.int64, types.int64, types.int64, types.int64, coefficients,
                           types.int64, sums)  # fmt: skip

    def generate(context, builder, signature, args):
        kinds = signature.args
        panel, planes, coefficients, sums = (data_of(context, builder, kinds[k], args[k]) for k in (0, 2, 7, 9))
        _, words, _, first, stride, rows, count, _, group, _ = args
        end = builder.append_basic_block("end")
        choice = builder.switch(builder.add(count, builder.mul(rows, _constant(2 * GROUP))), end)
        cases = {(rows_at_once(n), n) for n in range(1, GROUP + 1)} | {(1, n) for n in range(1, GROUP + 1)}
        for m, n in sorted(cases):
            block = builder.append_basic_block(f"rows{m}planes{n}")
            choice.add_case(_constant(n + 2 * GROUP * m), block)
            builder.position_at_end(block)
            _tile_body(builder, m, n, panel, words, planes, first, stride, coefficients, group, sums)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _at_least(typing, sums, first, thresholds, start):
    signature = types.uint64(sums, types.int64, thresholds, types.int64)

    def generate(context, builder, signature, args):
        kind = ir.VectorType(_I64, LANES)
        left = _load(builder, data_of(context, builder, signature.args[0], args[0]), args[1], kind)
        right = _load(builder, data_of(context, builder, signature.args[2], args[2]), args[3], kind)
        mask = builder.bitcast(builder.icmp_signed(">=", left, right), ir.IntType(LANES))
        return builder.zext(mask, _I64)

    return signature, generate


@intrinsic
def _gather_bit(typing, masks, start, bit):
    signature = types.uint64(masks, types.int64, types.int64)

    def generate(context, builder, signature, args):
        kind = ir.VectorType(ir.IntType(8), 64)
        values = _load(builder, data_of(context, builder, signature.args[0], args[0]), args[1], kind)
        one = builder.shl(ir.Constant(ir.IntType(8), 1), builder.trunc(args[2], ir.IntType(8)))
        found = builder.and_(values, _splat(builder, one, 64))
        return builder.bitcast(builder.icmp_signed("!=", found, ir.Constant(kind, [0] * 64)), _I64)

    return signature, generate


@intrinsic
def _add_bits(typing, word, codes, start):
    def generate(context, builder, signature, args):
        kind = ir.VectorType(ir.IntType(8), 64)
        place = builder.gep(data_of(context, builder, signature.args[1], args[1]), [args[2]])
        place = builder.bitcast(place, kind.as_pointer())
        bits = builder.zext(builder.bitcast(args[0], ir.VectorType(ir.IntType(1), 64)), kind)
        builder.store(builder.add(builder.load(place, align=1), bits), place, align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, codes, types.int64), generate


def _sum_lanes(builder, value):
    kind = ir.FunctionType(_I64, [_WORDS])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.add.v8i64")
    return builder.call(function, [value])


def _load_some(builder, pointer, index, mask):
    """Load the words of a vector that the mask allows, zeros for the others, and touch no memory there."""
    place = builder.bitcast(builder.gep(pointer, [index]), _WORDS.as_pointer())
    kinds = [place.type, ir.IntType(32), mask.type, _WORDS]
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_WORDS, kinds), "llvm.masked.load.v8i64.p0"
    )
    align = ir.Constant(ir.IntType(32), 8)
    return builder.call(function, [place, align, mask, ir.Constant(_WORDS, [0] * _VECTOR)])


def _row_body(builder, count, nonzero, negative, start, words, planes, first, coefficients):
    """One neuron against some planes of a row, eight words at a time; the last vector may have fewer."""
    zero = ir.Constant(_WORDS, [0] * _VECTOR)
    before = builder.block
    loop, after = builder.append_basic_block("vectors"), builder.append_basic_block("sum")
    builder.branch(loop)
    builder.position_at_end(loop)
    word = builder.phi(_I64)
    totals = [builder.phi(_WORDS) for _ in range(count)]
    word.add_incoming(_constant(0), before)
    left = _splat(builder, builder.sub(words, word))
    mask = builder.icmp_signed("<", ir.Constant(_WORDS, list(range(_VECTOR))), left)
    weight = _load_some(builder, nonzero, builder.add(start, word), mask)
    sign = _load_some(builder, negative, builder.add(start, word), mask)
    fresh = []
    for p, total in enumerate(totals):
        place = builder.add(builder.add(first, builder.mul(words, _constant(p))), word)
        agree = _agreement(builder, weight, sign, _load_some(builder, planes, place, mask))
        fresh.append(builder.add(total, agree))
    following = builder.add(word, _constant(_VECTOR))
    word.add_incoming(following, loop)
    for total, new in zip(totals, fresh, strict=True):
        total.add_incoming(zero, before)
        total.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, words), loop, after)
    builder.position_at_end(after)
    weighted = zero
    for p, new in enumerate(fresh):
        factor = builder.load(builder.gep(coefficients, [_constant(p)]))
        weighted = builder.add(weighted, builder.mul(new, _splat(builder, factor)))
    return _sum_lanes(builder, weighted)


@intrinsic
def _row_sum(typing, nonzero, negative, start, words, planes, first, count, coefficients):
    signature = types.int64(nonzero, negative, types.int64, types.int64, planes, types.int64, types.int64,
                            coefficients)  # fmt: skip

    def generate(context, builder, signature, args):
        kinds = signature.args
        nonzero, negative, planes, factors = (data_of(context, builder, kinds[k], args[k]) for k in (0, 1, 4, 7))
        _, _, start, words, _, first, count, _ = args
        entry = builder.block
        end = builder.append_basic_block("end")
        choice = builder.switch(count, end)
        results = [(_constant(0), entry)]
        for n in range(1, GROUP + 1):
            block = builder.append_basic_block(f"planes{n}")
            choice.add_case(_constant(n), block)
            builder.position_at_end(block)
            value = _row_body(builder, n, nonzero, negative, start, words, planes, first, factors)
            results.append((value, builder.block))
            builder.branch(end)
        builder.position_at_end(end)
        result = builder.phi(_I64)
        for value, block in results:
            result.add_incoming(value, block)
        return result

    return signature, generate


@intrinsic
def _count_ones(typing, word):
    def generate(context, builder, signature, args):
        return _popcount(builder, args[0])

    return types.int64(types.uint64), generate


def _churn_body(builder, times, full):
    """16 independent chains, so that instructions wait for nothing but their turn."""
    n = 16
    weight, sign = (ir.Constant(_WORDS, [seed + 2 * i for i in range(_VECTOR)]) for seed in (-3, 12345))
    before = builder.block
    loop, after = builder.append_basic_block("churn"), builder.append_basic_block("churned")
    builder.branch(loop)
    builder.position_at_end(loop)
    count = builder.phi(_I64)
    chains = [builder.phi(_WORDS) for _ in range(n)]
    for k, chain in enumerate(chains):
        new = _popcount(builder, chain)
        if full:
            new = builder.add(chain, _agreement(builder, weight, sign, chain))
        chain.add_incoming(ir.Constant(_WORDS, [(977 * k + 31 * i) << 20 for i in range(_VECTOR)]), before)
        chain.add_incoming(new, loop)
    following = builder.add(count, _constant(1))
    count.add_incoming(_constant(0), before)
    count.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, times), loop, after)
    builder.position_at_end(after)
    total = chains[0]
    for chain in chains[1:]:
        total = builder.xor(total, chain)
    return _sum_lanes(builder, total)


@intrinsic
def _churn(typing, times, full):
    def generate(context, builder, signature, args):
        some, every, end = (builder.append_basic_block(name) for name in ("some", "every", "end"))
        builder.cbranch(args[1], every, some)
        results = []
        for block, full in ((some, False), (every, True)):
            builder.position_at_end(block)
            value = _churn_body(builder, args[0], full)
            results.append((value, builder.block))
            builder.branch(end)
        builder.position_at_end(end)
        result = builder.phi(_I64)
        for value, block in results:
            result.add_incoming(value, block)
        return result

    return types.int64(types.int64, types.boolean), generate


@overload(churn)
def _(times, full):
    return lambda times, full: _churn(times, full)


@overload(tile)
def _(panel, words, planes, first, stride, rows, count, coefficients, group, sums):
    def compiled(panel, words, planes, first, stride, rows, count, coefficients, group, sums):
        _tile(panel, words, planes, first, stride, rows, count, coefficients, group, sums)

    return compiled


@overload(at_least)
def _(sums, first, thresholds, start):
    return lambda sums, first, thresholds, start: _at_least(sums, first, thresholds, start)


@overload(gather_bit)
def _(masks, start, bit):
    return lambda masks, start, bit: _gather_bit(masks, start, bit)


@overload(add_bits)
def _(word, codes, start):
    def compiled(word, codes, start):
        _add_bits(word, codes, start)

    return compiled


@overload(row_sum)
def _(nonzero, negative, start, words, planes, first, count, coefficients):
    def compiled(nonzero, negative, start, words, planes, first, count, coefficients):
        return _row_sum(nonzero, negative, start, words, planes, first, count, coefficients)

    return compiled


@overload(count_ones)
def _(word):
    return lambda word: _count_ones(word)
