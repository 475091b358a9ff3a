"""One resampled pixel of four channels as vector operations, for the compiled kernels of planes.

Arrays of texels are contiguous, four numbers to a texel: float32, float64, or 16 bits that are widened as
they are read (uint16 holds the bits of float16, int16 those of bfloat16). `at` is the position of the first
number of the texel above left, `below` of that one row down; the texels right of them follow. What is
weighted and summed is in the precision of the weights (top, bottom, left, right).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_INT32 = ir.IntType(32)
_FUSED = ["contract"]


def _element(kind: Any) -> Any:
    """How LLVM calls the numbers of an array."""
    if kind.dtype in (types.uint16, types.int16):
        return ir.HalfType() if kind.dtype == types.uint16 else ir.IntType(16)
    return ir.DoubleType() if kind.dtype == types.float64 else ir.FloatType()


def _pointer(context: Any, builder: Any, kind: Any, value: Any, position: Any, width: int) -> Any:
    """Where `width` numbers of an array lie, from a position on."""
    data = context.make_array(kind)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [position]), ir.VectorType(_element(kind), width).as_pointer())


def _load(builder: Any, pointer: Any, kind: Any) -> Any:
    """The numbers there, 16 bits as float32."""
    loaded = builder.load(pointer)
    loaded.align = kind.dtype.bitwidth // 8
    width = loaded.type.count
    if kind.dtype == types.uint16:
        return builder.fpext(loaded, ir.VectorType(ir.FloatType(), width))
    if kind.dtype == types.int16:
        wide = ir.VectorType(_INT32, width)
        shifted = builder.shl(builder.zext(loaded, wide), ir.Constant(wide, [16] * width))
        return builder.bitcast(shifted, ir.VectorType(ir.FloatType(), width))
    return loaded


def _store(builder: Any, vector: Any, pointer: Any, kind: Any) -> None:
    builder.store(vector, pointer).align = kind.dtype.bitwidth // 8


def _shuffle(builder: Any, vector: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _splat(builder: Any, scalar: Any, width: int) -> Any:
    """A vector of `width` times the same number."""
    undefined = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    return _shuffle(builder, builder.insert_element(undefined, scalar, _INT32(0)), [0] * width)


def _weighted(builder: Any, first: Any, a: Any, second: Any, b: Any) -> Any:
    """first * a + second * b, of two vectors and two numbers."""
    width = a.type.count
    products = (
        builder.fmul(_splat(builder, weight, width), vector, flags=_FUSED)
        for weight, vector in ((first, a), (second, b))
    )
    return builder.fadd(*products, flags=_FUSED)


def _sampled(context: Any, builder: Any, kind: Any, args: Any) -> Any:
    """Four channels of the texels (texels, at, below, top, bottom, left, right)."""
    texels, at, below, top, bottom, left, right = args
    upper, lower = (
        _load(builder, _pointer(context, builder, kind, texels, position, 8), kind)
        for position in (at, below)
    )
    both = _weighted(builder, top, upper, bottom, lower)
    halves = (_shuffle(builder, both, list(range(begin, begin + 4))) for begin in (0, 4))
    return _weighted(builder, left, next(halves), right, next(halves))


@intrinsic
def sample_pixel(typingctx, texels, at, below, top, bottom, left, right, out, position):
    """out[position : position + 4] = the weighted sum of the four texels."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sampled = _sampled(context, builder, signature.args[0], args[:7])
        kind = signature.args[7]
        _store(builder, sampled, _pointer(context, builder, kind, args[7], args[8], 4), kind)
        return context.get_dummy_value()

    weight, index = out.dtype, types.int64
    return types.void(texels, index, index, *[weight] * 4, out, index), emit


@intrinsic
def blend_pixel(
    typingctx, texels, at, below, top, bottom, left, right, through, premultiplied, total, position
):
    """Add what is seen of the sampled colour to total[position : position + 3], and its weight to the next.

    The weight is the sampled alpha times `through`; a premultiplied (bool) colour counts `through` alone.
    Returns the sampled alpha.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sampled = _sampled(context, builder, signature.args[0], args[:7])
        kind, one = signature.args[9], ir.Constant(sampled.type.element, 1.0)
        alpha = builder.extract_element(sampled, _INT32(3))
        factor = builder.fmul(builder.select(args[8], one, alpha), args[7])
        scale = builder.insert_element(_splat(builder, factor, 4), args[7], _INT32(3))
        pointer = _pointer(context, builder, kind, args[9], args[10], 4)
        share = builder.fmul(scale, sampled, flags=_FUSED)
        _store(builder, builder.fadd(share, _load(builder, pointer, kind), flags=_FUSED), pointer, kind)
        return alpha

    weight, index = total.dtype, types.int64
    arguments = (texels, index, index, *[weight] * 5, types.boolean, total, index)
    return weight(*arguments), emit


@intrinsic
def add_pixel(typingctx, texels, at, below, top, bottom, left, right, source, position):
    """Add source[position : position + 4] to the four texels (float32 or float64), times their weights."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, origin = signature.args[0], signature.args[7]
        value = _load(builder, _pointer(context, builder, origin, args[7], args[8], 4), origin)
        for row, vertical in ((args[1], args[3]), (args[2], args[4])):
            for step, horizontal in ((0, args[5]), (4, args[6])):
                position = builder.add(row, ir.Constant(row.type, step))
                pointer = _pointer(context, builder, kind, args[0], position, 4)
                weight = _splat(builder, builder.fmul(vertical, horizontal), 4)
                share = builder.fmul(weight, value, flags=_FUSED)
                total = builder.fadd(share, _load(builder, pointer, kind), flags=_FUSED)
                _store(builder, total, pointer, kind)
        return context.get_dummy_value()

    weight, index = texels.dtype, types.int64
    return types.void(texels, index, index, *[weight] * 4, source, index), emit
