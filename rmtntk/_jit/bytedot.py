"""A layer with inputs of many bits: products of bytes, where the processor has an instruction for them.

VPDPBUSD of AVX-512 VNNI multiplies 64 unsigned by 64 signed bytes and adds them up by fours: one instruction for 64
weights, where eight bit planes take three. Weights are spread from bits to bytes for 32 neurons at a time, in a buffer
that stays in cache. Numba knows no such instruction, so it is called by LLVM's name for it; without it, callers use
`bitplane`, whose results are the same.
"""

from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, overload

from rmtntk._jit._options import njit
from rmtntk._jit.bitwords import at_least, data_of

NEURONS = 32  # two vectors of 16 sums
ROWS = 8
_LANES = 16
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_SUMS = ir.VectorType(_I32, _LANES)
_BYTES = ir.VectorType(ir.IntType(8), 64)


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether the processor that loops are compiled for has the instruction."""
    if config.DISABLE_JIT:  # type: ignore[attr-defined]  # Numba sets its options at import
        return False
    from numba.core.registry import cpu_target

    return "+avx512vnni" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def spread(nonzero, negative, out):
    """out[j] = the weight in bit j of two words, for 64 signed bytes."""
    bits = [np.unpackbits(np.array([word]).view(np.uint8), bitorder="little") for word in (nonzero, negative)]
    out[:] = bits[0].astype(np.int8) - 2 * bits[1].astype(np.int8)


def dot_tile(panel, quads, codes, first, stride, start, sums):
    """sums[r, i] = start[i] + Σ_j panel[j, i] codes[first + r stride + j] for 8 rows and 32 neurons.

    panel : int32 (quads · 32,), four weights in each, those of columns 4 q … 4 q + 3 in 32 neurons for every q
    codes : int32, flat, four bytes in each
    start : int32 (32,)
    sums : int64 (8 · 32,)
    """
    weights = panel[: NEURONS * quads].view(np.int8).reshape(quads, NEURONS, 4).astype(np.int64)
    for r in range(ROWS):
        row = codes[first + r * stride : first + r * stride + quads].view(np.uint8).reshape(quads, 4).astype(np.int64)
        sums[NEURONS * r : NEURONS * (r + 1)] = start + np.einsum("qik,qk->i", weights, row)


@intrinsic
def _spread(typing, nonzero, negative, out):
    def generate(context, builder, signature, args):
        def mask(word):
            return builder.bitcast(word, ir.VectorType(ir.IntType(1), 64))

        ones, zeros = (ir.Constant(_BYTES, [value] * 64) for value in (1, 0))
        weight = builder.or_(builder.sext(mask(args[1]), _BYTES), ones)  # −1 or 1
        weight = builder.select(mask(args[0]), weight, zeros)
        place = builder.bitcast(data_of(context, builder, signature.args[2], args[2]), _BYTES.as_pointer())
        builder.store(weight, place, align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, out), generate


@intrinsic
def _dot_tile(typing, panel, quads, codes, first, stride, start, sums):
    signature = types.void(panel, types.int64, codes, types.int64, types.int64, start, sums)

    def generate(context, builder, signature, args):
        panel, codes, start, sums = (data_of(context, builder, signature.args[k], args[k]) for k in (0, 2, 5, 6))
        _, quads, _, first, stride, _, _ = args
        vectors = NEURONS // _LANES

        def vector(pointer, index):
            return builder.load(builder.bitcast(builder.gep(pointer, [index]), _SUMS.as_pointer()), align=4)

        def constant(value):
            return ir.Constant(_I64, value)

        rows = [builder.gep(codes, [builder.add(first, builder.mul(stride, constant(r)))]) for r in range(ROWS)]
        initial = [vector(start, constant(_LANES * v)) for v in range(vectors)]
        dot = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_SUMS, [_SUMS] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )
        before = builder.block
        loop, after = builder.append_basic_block("quads"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        quad = builder.phi(_I64)
        quad.add_incoming(constant(0), before)
        totals = [builder.phi(_SUMS) for _ in range(ROWS * vectors)]
        weights = [
            vector(panel, builder.add(builder.mul(quad, constant(NEURONS)), constant(_LANES * v)))
            for v in range(vectors)
        ]
        fresh = []
        undefined = ir.Constant(_SUMS, ir.Undefined)
        for r in range(ROWS):
            four = builder.insert_element(undefined, builder.load(builder.gep(rows[r], [quad])), ir.Constant(_I32, 0))
            four = builder.shuffle_vector(four, undefined, ir.Constant(_SUMS, [0] * _LANES))
            fresh += [builder.call(dot, [totals[vectors * r + v], four, weights[v]]) for v in range(vectors)]
        following = builder.add(quad, constant(1))
        quad.add_incoming(following, loop)
        for k, (total, new) in enumerate(zip(totals, fresh, strict=True)):
            total.add_incoming(initial[k % vectors], before)
            total.add_incoming(new, loop)
        builder.cbranch(builder.icmp_signed("<", following, quads), loop, after)
        builder.position_at_end(after)
        wide = ir.VectorType(_I64, _LANES)
        for k, total in enumerate(fresh):
            place = builder.bitcast(builder.gep(sums, [constant(_LANES * k)]), wide.as_pointer())
            builder.store(builder.sext(total, wide), place, align=8)
        return context.get_dummy_value()

    return signature, generate


@overload(spread)
def _(nonzero, negative, out):
    def compiled(nonzero, negative, out):
        _spread(nonzero, negative, out)

    return compiled


@overload(dot_tile)
def _(panel, quads, codes, first, stride, start, sums):
    def compiled(panel, quads, codes, first, stride, start, sums):
        _dot_tile(panel, quads, codes, first, stride, start, sums)

    return compiled


@njit()
def fill_panel(nonzero, negative, first, buffer, fours, panel):
    """Spread the weights of 32 neurons to bytes, zeros beyond the last; `fours` is `buffer`, four bytes in each."""
    neurons, words = nonzero.shape
    lanes = min(NEURONS, neurons - first)
    if lanes < NEURONS:
        panel[:] = 0
    for lane in range(lanes):
        for w in range(words):
            spread(nonzero[first + lane, w], negative[first + lane, w], buffer)
            for q in range(16):
                panel[(16 * w + q) * NEURONS + lane] = fours[q]


@njit()
def layer(nonzero, negative, codes, n_rows, offsets, thresholds, buffer, fours, panel, start, sums, out):
    """Thermometer planes of a layer's codes, as `bitplane.layer` makes them of planes, with the same thresholds.

    codes : int32, flat (n_rows, 16 · words), bytes by fours, rows padded to a multiple of 8
    offsets : int64 (neurons,), what the thresholds have been moved by
    start : int32 (32,)
    """
    neurons, words = nonzero.shape
    blocks = (neurons + _LANES - 1) // _LANES
    n_thresholds = thresholds.shape[0] // (blocks * _LANES)
    width = 4 * ((neurons + 63) // 64)
    for first in range(0, neurons, NEURONS):
        fill_panel(nonzero, negative, first, buffer, fours, panel)
        for lane in range(NEURONS):
            start[lane] = offsets[first + lane] if first + lane < neurons else 0
        here = first // _LANES
        for row in range(0, n_rows, ROWS):
            dot_tile(panel, 16 * words, codes, row * 16 * words, 16 * words, start, sums)
            for r in range(ROWS):
                for j in range(n_thresholds):
                    for half in range(min(2, blocks - here)):
                        reached = at_least(
                            sums, r * NEURONS + half * _LANES, thresholds, (j * blocks + here + half) * _LANES
                        )
                        out[((row + r) * n_thresholds + j) * width + here + half] = reached


@njit()
def repeat(panel, quads, codes, start, sums, times):
    """The innermost loop again and again, on what is in the first cache: the floor of the benchmark."""
    for _ in range(times):
        dot_tile(panel, quads, codes, 0, quads, start, sums)
