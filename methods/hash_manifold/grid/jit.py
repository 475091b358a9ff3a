"""How this package compiles with Numba: a row of features at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from geometry import jit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `geometry.jit.kernel`; products and sums may fuse, which is what the original does, nothing else.

    Tuples among the arguments have their length in their type: passing (0,) * 8 compiles for the number 8.
    """
    return jit.kernel(function, fastmath={"contract"})


def _row(context: Any, builder: Any, kind: Any, value: Any, position: Any, width: int) -> tuple[Any, Any]:
    """Pointer to `width` numbers of a flat array from a position on, and their value as float32 vector."""
    array = context.make_array(kind)(context, builder, value)
    element = ir.HalfType() if kind.dtype == types.uint16 else ir.FloatType()
    address = builder.gep(array.data, [position])
    pointer = builder.bitcast(address, ir.VectorType(element, width).as_pointer())
    loaded = builder.load(pointer)
    loaded.align = kind.dtype.bitwidth // 8
    return pointer, _widen(builder, loaded, width)


def _widen(builder: Any, vector: Any, width: int) -> Any:
    if vector.type.element == ir.HalfType():
        return builder.fpext(vector, ir.VectorType(ir.FloatType(), width))
    return vector


def _splat(builder: Any, scalar: Any, width: int) -> Any:
    """A vector of `width` times the same number."""
    vector = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    for lane in range(width):
        vector = builder.insert_element(vector, scalar, ir.Constant(ir.IntType(32), lane))
    return vector


def _emit_add_row(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    target, at, source, begin, weight, _ = args
    width = len(signature.args[-1])
    half, halves = ir.HalfType(), ir.VectorType(ir.HalfType(), width)
    pointer, total = _row(context, builder, signature.args[0], target, at, width)
    _, row = _row(context, builder, signature.args[2], source, begin, width)
    if types.uint16 in (signature.args[0].dtype, signature.args[2].dtype):
        weight = builder.fpext(builder.fptrunc(weight, half), ir.FloatType())
    product = builder.fmul(_splat(builder, weight, width), row, flags=["contract"])
    total = builder.fadd(product, total, flags=["contract"])
    if signature.args[0].dtype == types.uint16:
        total = builder.fptrunc(total, halves)
    stored = builder.store(total, pointer)
    stored.align = signature.args[0].dtype.bitwidth // 8
    return context.get_dummy_value()


def _emit_dot_rows(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    first, at, second, begin, _ = args
    width = len(signature.args[-1])
    _, a = _row(context, builder, signature.args[0], first, at, width)
    _, b = _row(context, builder, signature.args[2], second, begin, width)
    product = builder.fmul(a, b)
    lanes = [builder.extract_element(product, ir.Constant(ir.IntType(32), i)) for i in range(width)]
    total = lanes[0]
    for lane in lanes[1:]:
        total = builder.fadd(total, lane)
    return total


@intrinsic
def add_row(typingctx, target, at, source, begin, weight, features):
    """target[at : at + F] += weight * source[begin : begin + F], as one vector operation.

    target, source: flat arrays of float32, or of uint16 that holds the bits of float16. With one of the
    latter the weight is rounded to float16, and so is the sum where it is the target. features: a tuple whose
    length is F.
    """
    wanted = (target, types.int64, source, types.int64, types.float32, features)
    return types.void(*wanted), _emit_add_row


@intrinsic
def dot_rows(typingctx, first, at, second, begin, features):
    """The float32 inner product of first[at : at + F] and second[begin : begin + F]; see `add_row`."""
    return types.float32(first, types.int64, second, types.int64, features), _emit_dot_rows


def _emit_adam_row(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kind, width = signature.args[0], len(signature.args[-1])
    vector = ir.VectorType(ir.FloatType(), width)
    beta1, beta2, size, correction, eps = (
        _splat(builder, builder.extract_value(args[6], i), width) for i in range(5)
    )
    one = _splat(builder, ir.Constant(ir.FloatType(), 1.0), width)
    rows = [_row(context, builder, kind, table, args[3], width) for table in args[:3]]
    (value_at, value), (first_at, first), (second_at, second) = rows
    _, gradient = _row(context, builder, signature.args[4], args[4], args[5], width)

    def mixed(old: Any, new: Any, keep: Any) -> Any:
        change = builder.fmul(builder.fsub(one, keep), new, flags=["contract"])
        return builder.fadd(builder.fmul(keep, old, flags=["contract"]), change, flags=["contract"])

    first = mixed(first, gradient, beta1)
    second = mixed(second, builder.fmul(gradient, gradient), beta2)
    root = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector]), f"llvm.sqrt.v{width}f32"
    )
    divisor = builder.fadd(builder.fdiv(builder.call(root, [second]), correction), eps)
    value = builder.fsub(value, builder.fmul(size, builder.fdiv(first, divisor)))
    for new, pointer in ((value, value_at), (first, first_at), (second, second_at)):
        builder.store(new, pointer).align = 4
    return context.get_dummy_value()


@intrinsic
def prefetch(typingctx, array, position):
    """Ask for the cache line of a flat array's element, without waiting for it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte.type], kind)
        builder.call(function, [byte, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


@intrinsic
def count_bits(typingctx, word):
    """How many bits of a uint64 are set, as int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), emit


@intrinsic
def adam_row(typingctx, values, first, second, at, gradients, begin, settings, features):
    """Adam's step for the numbers at ... at + F of flat float32 tables: values, first and second moments.

    gradients: flat, of which begin ... begin + F are used. settings: float32 (beta1, beta2, step size, root
    of the second moment's bias correction, eps). features: a tuple whose length is F.
    """
    tables = (values, first, second, types.int64, gradients, types.int64)
    return types.void(*tables, settings, features), _emit_adam_row
