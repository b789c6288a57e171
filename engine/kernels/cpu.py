"""Compiled CPU kernels for what lies between the int8 products of a layer: scales, norms, activations, and the loss.

What: each kernel reads bf16 rows, computes in fp32 and writes the result in one pass over memory. numba compiles it for the vector
instructions of this machine, and libgomp, which torch brings along, runs it on the threads of torch's own operations.

Why: they make int8 products worth their while. A training step is memory-bound outside of its products, and torch would need five
passes to scale rows and two for add and norm. Quantising 1,072 tokens of width 1,536 takes 0.08 ms. With them the engine trains 6.4
times as fast as the Hugging Face Trainer; with bf16 products and torch's operations, 4.6 times (docs/performance.md).

How to turn them off: `training.precision: bf16`. Nothing but that speed is lost. Nothing else imports this file; engine.kernels.int8
does so only where `available()` is true, and the evaluations of such a run do without it too.

How it works: a kernel is a C function of one argument, an array of 64-bit integers that holds addresses of tensors, sizes, and the
bits of floats. GOMP_parallel, which compilers emit for `#pragma omp parallel`, calls it once on every thread, and each thread takes
its part of the rows. A thread pool of our own would compete for the cores on which torch's pool keeps spinning. bf16 has no type in
numba, so the few conversions are written as LLVM instructions.

numba's cache of compiled code is valid for as long as a kernel's own file is unchanged: engine.kernels.decoding, low_rank and
causal_attention, whose kernels use helpers of this file, have to be changed with them.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import carray, cfunc, extending, njit, types
from numba.core.types import Type
from numba.core.typing import Context
from torch import Tensor

# Fast-math without the promise that no number is NaN or infinite, so that a loss that diverges is seen. The error model
# makes a division by zero infinite instead of an exception, which would keep loops from being vectorised.
OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "arcp", "afn", "nsz"}, "error_model": "numpy"}
KERNEL_SIGNATURE = types.void(types.CPointer(types.int64))
LIBGOMP = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libgomp.so.1"))

F32, I8, I16, I32 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
SMALLEST_NORMAL_BF16 = np.uint16(0x0080)  # its bits
INVERSE_SQRT_2PI = np.float32(0.3989422804014327)

for _name in ("omp_get_thread_num", "omp_get_num_threads"):
    llvm.add_symbol(_name, ctypes.cast(getattr(LIBGOMP, _name), ctypes.c_void_p).value)
_thread_number: Any = types.ExternalFunction("omp_get_thread_num", types.int32())
_thread_count: Any = types.ExternalFunction("omp_get_num_threads", types.int32())

Arguments = Sequence[int]  # what a kernel sees of its array of 64-bit integers


def instruction(result: Type, *arguments: Type) -> Callable[[Callable[..., Value]], Any]:
    """Make LLVM instructions callable from kernels. Decorates a function that emits them.

    result, arguments: numba's types of what the function returns and takes beside the LLVM builder.
    """

    def decorate(emit: Callable[..., Value]) -> Any:
        # numba reads the signature, through `wraps`, and takes the first parameter for its typing context.
        @functools.wraps(emit)
        def define(_context: Context, *_types: Type) -> Any:
            return result(*arguments), lambda _context, builder, _signature, values: emit(builder, *values)

        return extending.intrinsic(define)

    return decorate


@instruction(types.voidptr, types.int64)
def to_pointer(builder: IRBuilder, address: Value) -> Value:
    """Convert a kernel's argument to an address: int64 → void *."""
    return builder.inttoptr(address, ir.IntType(8).as_pointer())


@instruction(types.float32, types.int64)
def to_float(builder: IRBuilder, bits: Value) -> Value:
    """Convert a kernel's argument, the bits of a double, to float32."""
    return builder.fptrunc(builder.bitcast(bits, ir.DoubleType()), F32)


@instruction(types.float32, types.uint16)
def bf16_to_float(builder: IRBuilder, bits: Value) -> Value:
    """Convert the bits of a bf16, which is the upper half of a float32, to float32."""
    return builder.bitcast(builder.shl(builder.zext(bits, I32), I32(16)), F32)


@instruction(types.uint16, types.float32)
def float_to_bf16(builder: IRBuilder, number: Value) -> Value:
    """Convert a float32 to the bits of the nearest bf16; of two that are equally near, the even one, as torch does."""
    bits = builder.bitcast(number, I32)
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    return builder.trunc(builder.lshr(builder.add(builder.add(bits, odd), I32(0x7FFF)), I32(16)), I16)


@instruction(types.uint16, types.uint16, types.uint16)
def larger_magnitude(builder: IRBuilder, bits: Value, largest: Value) -> Value:
    """Return max(|x|, largest) of bf16 bits, which sort as the magnitudes do."""
    magnitude = builder.and_(bits, I16(0x7FFF))
    return builder.select(builder.icmp_unsigned(">", magnitude, largest), magnitude, largest)


@instruction(types.uint8, types.float32)
def float_to_byte(builder: IRBuilder, number: Value) -> Value:
    """Return the integer part of a float32 from 0 to 255."""
    return builder.trunc(builder.fptosi(number, I32), I8)


@instruction(types.float32, types.float32)
def round_to_integer(builder: IRBuilder, number: Value) -> Value:
    """Round a float32 to the nearest integer, as float32."""
    return builder.call(builder.module.declare_intrinsic("llvm.nearbyint", [F32]), [number])


@instruction(types.float32, types.float32)
def power_of_two(builder: IRBuilder, exponent: Value) -> Value:
    """Return 2ⁿ for an integer n from -126 to 127, as float32: n goes straight into the exponent's bits."""
    return builder.bitcast(builder.shl(builder.add(builder.fptosi(exponent, I32), I32(127)), I32(23)), F32)


@njit(inline="always")
def normal_tail(x: np.float32, density: np.float32) -> np.float32:
    """P(X > |x|) of a normal X, given density = e^(-x²/2); error below 1e-7 (Abramowitz and Stegun 7.1.26)."""
    t = ONE / (ONE + np.float32(0.3275911 * 0.7071067811865476) * abs(x))
    series = np.float32(1.061405429)
    series = series * t + np.float32(-1.453152027)
    series = series * t + np.float32(1.421413741)
    series = series * t + np.float32(-0.284496736)
    series = series * t + np.float32(0.254829592)
    return HALF * series * t * density


@njit(inline="always")
def exponential(x: np.float32) -> np.float32:
    """eˣ for x ≤ 0, zero below -87; relative error below 1e-6.

    eˣ = 2ⁿ · e^rest with n = round(x / ln 2), and e^rest by its Taylor series, as |rest| ≤ ln 2 / 2.
    """
    in_range = x > np.float32(-87)
    x = x if in_range else ZERO
    n = round_to_integer(x * np.float32(1.4426950408889634))
    # ln 2 in two parts, of which the first has few bits, so that n times it is exact (Cody and Waite).
    rest = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
    series = np.float32(1 / 720)
    series = series * rest + np.float32(1 / 120)
    series = series * rest + np.float32(1 / 24)
    series = series * rest + np.float32(1 / 6)
    series = series * rest + HALF
    series = series * rest + ONE
    return (series * rest + ONE) * power_of_two(n) if in_range else ZERO


@njit(inline="always")
def bf16_matrix(address: int, rows: int, width: int) -> np.ndarray:
    """Return a bf16 tensor (rows, width) as its bits."""
    return carray(to_pointer(address), (rows, width), np.uint16)


@njit(inline="always")
def float_vector(address: int, length: int) -> np.ndarray:
    """Return a float32 tensor (length,)."""
    return carray(to_pointer(address), (length,), np.float32)


@njit(inline="always")
def rows_of_this_thread(rows: int) -> range:
    """Return the rows that this thread computes: an equal share, beside each other."""
    thread, threads = np.int64(_thread_number()), np.int64(_thread_count())
    return range(rows * thread // threads, rows * (thread + 1) // threads)


class Kernel:
    """A compiled function, called with contiguous tensors, integers and floats."""

    def __init__(self, function: Callable[[Arguments], None]) -> None:
        try:
            self._compiled = cfunc(KERNEL_SIGNATURE, cache=True, **OPTIONS)(function)
        except RuntimeError:  # numba found no folder to keep compiled code in
            self._compiled = cfunc(KERNEL_SIGNATURE, **OPTIONS)(function)
        self._address = ctypes.c_void_p(self._compiled.address)

    def __call__(self, *arguments: Tensor | int | float) -> None:
        """Run the kernel on all threads of torch. Tensors are passed by address, floats as the bits of a double."""
        packed = array("q", [each if type(each) is int else as_integer(each) for each in arguments])
        LIBGOMP.GOMP_parallel(self._address, ctypes.c_void_p(packed.buffer_info()[0]), torch.get_num_threads(), 0)


def as_integer(argument: Tensor | float) -> int:
    """Return what a kernel gets of an argument that is no integer: a tensor's address, or the bits of a double."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    bits: int = struct.unpack("q", struct.pack("d", argument))[0]
    return bits


@Kernel
def quantise_rows(arguments: Arguments) -> None:
    """(x, quantised, scales, rows, width): write x: (rows, width) bf16 as bytes, and each row's scale: (rows,).

    scale = max |x| of the row / 127        quantised = round(x / scale) + 128
    """
    rows, width = arguments[3], arguments[4]
    x = bf16_matrix(arguments[0], rows, width)
    quantised = carray(to_pointer(arguments[1]), (rows, width), np.uint8)
    scales = float_vector(arguments[2], rows)
    for row in rows_of_this_thread(rows):
        largest = SMALLEST_NORMAL_BF16  # not zero: the scale of an empty row is divided by
        for column in range(width):
            largest = larger_magnitude(x[row, column], largest)
        scale = bf16_to_float(largest) * np.float32(1 / 127)
        scales[row] = scale
        inverse_scale = ONE / scale
        for column in range(width):
            shifted = bf16_to_float(x[row, column]) * inverse_scale + np.float32(128.5)  # the half rounds
            quantised[row, column] = float_to_byte(shifted)


@Kernel
def scale_rows(arguments: Arguments) -> None:
    """(y, scales, bias, rows, width): y ← y · scale of its row + bias, in place. y: bf16; bias: (width,) fp32."""
    rows, width = arguments[3], arguments[4]
    y = bf16_matrix(arguments[0], rows, width)
    scales = float_vector(arguments[1], rows)
    bias = float_vector(arguments[2], width)
    for row in rows_of_this_thread(rows):
        scale = scales[row]
        for column in range(width):
            y[row, column] = float_to_bf16(bf16_to_float(y[row, column]) * scale + bias[column])


@Kernel
def add_scaled_rows(arguments: Arguments) -> None:
    """(total, y, scales, rows, width): total ← total + y · scale of its row, in place; total, y: bf16."""
    rows, width = arguments[3], arguments[4]
    total = bf16_matrix(arguments[0], rows, width)
    y = bf16_matrix(arguments[1], rows, width)
    scales = float_vector(arguments[2], rows)
    for row in rows_of_this_thread(rows):
        scale = scales[row]
        for column in range(width):
            scaled = bf16_to_float(y[row, column]) * scale
            total[row, column] = float_to_bf16(bf16_to_float(total[row, column]) + scaled)


@Kernel
def add_norm(arguments: Arguments) -> None:
    """(total, x, y, means, inverses, gains, shifts, rows, width, ε): residual addition and layer norm.

    total ← total + x        mean, var: of each row of total        inverse = 1 / √(var + ε)
    y ← (total - mean) · inverse · gain + shift
    """
    rows, width, epsilon = arguments[7], arguments[8], to_float(arguments[9])
    total = bf16_matrix(arguments[0], rows, width)
    x = bf16_matrix(arguments[1], rows, width)
    y = bf16_matrix(arguments[2], rows, width)
    means = float_vector(arguments[3], rows)
    inverses = float_vector(arguments[4], rows)
    gains = float_vector(arguments[5], width)
    shifts = float_vector(arguments[6], width)
    inverse_width = ONE / np.float32(width)
    for row in rows_of_this_thread(rows):
        mean = ZERO
        for column in range(width):
            total[row, column] = float_to_bf16(bf16_to_float(total[row, column]) + bf16_to_float(x[row, column]))
            mean += bf16_to_float(total[row, column])
        mean *= inverse_width
        variance = ZERO
        for column in range(width):
            deviation = bf16_to_float(total[row, column]) - mean
            variance += deviation * deviation
        inverse = ONE / np.sqrt(variance * inverse_width + epsilon)
        means[row] = mean
        inverses[row] = inverse
        for column in range(width):
            normed = (bf16_to_float(total[row, column]) - mean) * inverse
            y[row, column] = float_to_bf16(normed * gains[column] + shifts[column])


@Kernel
def norm_backward(arguments: Arguments) -> None:
    """(dx, dy, x, means, inverses, gains, rows, width): the gradient of a layer norm's input x.

    With g = dy · gain, c = x - mean, and averages over the row:

        dx = inverse · (g - average(g) - c · inverse² · average(g · c))
    """
    rows, width = arguments[6], arguments[7]
    dx = bf16_matrix(arguments[0], rows, width)
    dy = bf16_matrix(arguments[1], rows, width)
    x = bf16_matrix(arguments[2], rows, width)
    means = float_vector(arguments[3], rows)
    inverses = float_vector(arguments[4], rows)
    gains = float_vector(arguments[5], width)
    inverse_width = ONE / np.float32(width)
    for row in rows_of_this_thread(rows):
        mean = means[row]
        inverse = inverses[row]
        average, along = ZERO, ZERO
        for column in range(width):
            scaled = bf16_to_float(dy[row, column]) * gains[column]
            average += scaled
            along += scaled * (bf16_to_float(x[row, column]) - mean)
        average *= inverse_width
        along *= inverse_width * inverse * inverse
        for column in range(width):
            scaled = bf16_to_float(dy[row, column]) * gains[column]
            centred = bf16_to_float(x[row, column]) - mean
            dx[row, column] = float_to_bf16((scaled - average - centred * along) * inverse)


@Kernel
def gelu_with_slope(arguments: Arguments) -> None:
    """(y, x, rows, width): GELU and its slope, which is all that the backward pass needs. With a normal X:

    y ← x · P(X < x)        x ← P(X < x) + x · e^(-x²/2) / √(2π)
    """
    rows, width = arguments[2], arguments[3]
    y = bf16_matrix(arguments[0], rows, width)
    x = bf16_matrix(arguments[1], rows, width)
    for row in rows_of_this_thread(rows):
        for column in range(width):
            number = bf16_to_float(x[row, column])
            density = exponential(-HALF * number * number)
            tail = normal_tail(number, density)
            below = ONE - tail if number > ZERO else tail
            y[row, column] = float_to_bf16(number * below)
            x[row, column] = float_to_bf16(below + number * density * INVERSE_SQRT_2PI)


@Kernel
def rms_norm(arguments: Arguments) -> None:
    """(y, x, inverses, gains, rows, width, ε): y ← x · inverse · gain, with inverse = 1 / √(average of x² over the row + ε)."""
    rows, width, epsilon = arguments[4], arguments[5], to_float(arguments[6])
    y = bf16_matrix(arguments[0], rows, width)
    x = bf16_matrix(arguments[1], rows, width)
    inverses = float_vector(arguments[2], rows)
    gains = float_vector(arguments[3], width)
    for row in rows_of_this_thread(rows):
        squares = ZERO
        for column in range(width):
            number = bf16_to_float(x[row, column])
            squares += number * number
        inverse = ONE / np.sqrt(squares / np.float32(width) + epsilon)
        inverses[row] = inverse
        for column in range(width):
            y[row, column] = float_to_bf16(bf16_to_float(x[row, column]) * inverse * gains[column])


@Kernel
def add_rms_norm_gradient(arguments: Arguments) -> None:
    """(dx, dy, x, inverses, gains, rows, width): dx ← dx + gradient of the norm's input x, with g = dy · gain:

    inverse · (g - x · inverse² · average of g · x over the row)
    """
    rows, width = arguments[5], arguments[6]
    dx = bf16_matrix(arguments[0], rows, width)
    dy = bf16_matrix(arguments[1], rows, width)
    x = bf16_matrix(arguments[2], rows, width)
    inverses = float_vector(arguments[3], rows)
    gains = float_vector(arguments[4], width)
    for row in rows_of_this_thread(rows):
        inverse = inverses[row]
        along = ZERO
        for column in range(width):
            along += bf16_to_float(dy[row, column]) * gains[column] * bf16_to_float(x[row, column])
        along *= inverse * inverse / np.float32(width)
        for column in range(width):
            scaled = bf16_to_float(dy[row, column]) * gains[column]
            gradient = inverse * (scaled - bf16_to_float(x[row, column]) * along)
            dx[row, column] = float_to_bf16(bf16_to_float(dx[row, column]) + gradient)


@njit(inline="always")
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e⁻ˣ)."""
    small = exponential(-abs(x))
    return (ONE if x > ZERO else small) / (ONE + small)


@Kernel
def swiglu(arguments: Arguments) -> None:
    """(y, gate_up, rows, width): y ← gate · sigmoid(gate) · up; gate_up: (rows, 2 × width) has both side by side."""
    rows, width = arguments[2], arguments[3]
    y = bf16_matrix(arguments[0], rows, width)
    gate_up = bf16_matrix(arguments[1], rows, 2 * width)
    for row in rows_of_this_thread(rows):
        for column in range(width):
            gate = bf16_to_float(gate_up[row, column])
            y[row, column] = float_to_bf16(gate * sigmoid(gate) * bf16_to_float(gate_up[row, width + column]))


@Kernel
def swiglu_gradient(arguments: Arguments) -> None:
    """(gate_up, dy, rows, width): overwrite gate_up by its gradient, with s = sigmoid(gate):

    gate ← dy · up · s · (1 + gate · (1 - s))        up ← dy · gate · s
    """
    rows, width = arguments[2], arguments[3]
    gate_up = bf16_matrix(arguments[0], rows, 2 * width)
    dy = bf16_matrix(arguments[1], rows, width)
    for row in rows_of_this_thread(rows):
        for column in range(width):
            gate = bf16_to_float(gate_up[row, column])
            share = sigmoid(gate)
            gradient = bf16_to_float(dy[row, column]) * share
            slope = ONE + gate * (ONE - share)
            up = bf16_to_float(gate_up[row, width + column])
            gate_up[row, column] = float_to_bf16(gradient * up * slope)
            gate_up[row, width + column] = float_to_bf16(gradient * gate)


@njit(inline="always")
def bf16_numbers(address: int, first: int, length: int) -> np.ndarray:
    """Return some numbers of a bf16 tensor as their bits, from its `first` one on. Loops over such a part are vectorised."""
    return carray(to_pointer(address + 2 * first), (length,), np.uint16)


@Kernel
def cross_entropy(arguments: Arguments) -> None:
    """(logits, losses, targets, rows, width): each row's loss in fp32; logits: (rows, width) bf16 become their gradient.

    loss = log Σ e^logits - logit of the target        logits ← softmax(logits) - (1 at the target)
    """
    rows, width = arguments[3], arguments[4]
    logits = bf16_matrix(arguments[0], rows, width)
    losses = float_vector(arguments[1], rows)
    targets = carray(to_pointer(arguments[2]), (rows,), np.int64)
    for row in rows_of_this_thread(rows):
        largest = bf16_to_float(logits[row, 0])
        for column in range(width):
            largest = max(largest, bf16_to_float(logits[row, column]))
        total = ZERO
        for column in range(width):
            total += exponential(bf16_to_float(logits[row, column]) - largest)
        target = targets[row]
        losses[row] = np.log(total) + largest - bf16_to_float(logits[row, target])
        inverse = ONE / total
        own = exponential(bf16_to_float(logits[row, target]) - largest) * inverse - ONE
        for column in range(width):
            logits[row, column] = float_to_bf16(exponential(bf16_to_float(logits[row, column]) - largest) * inverse)
        logits[row, target] = float_to_bf16(own)
