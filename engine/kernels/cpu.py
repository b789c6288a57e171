"""The parts of a layer that are no matrix product, on bf16, each in one pass over its rows; computed in fp32.

Residual and layer norm take half the time of torch's two operations; scales per row would be five of them.
A kernel is a function of one argument, an array of integers: addresses of tensors, sizes, and floats by their bits. numba
compiles it for this machine's vectors. It runs on the thread pool of torch's own operations: a second pool would wait for
the cores that the first one keeps spinning on. All stands in one file, because numba keeps compiled kernels for as long as
the file that they are in stays as it was.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, extending, njit, types
from torch import Tensor

# All of fast-math but the promise that no number is NaN or infinite; and a division by zero is no exception.
OPTIONS: Any = {"fastmath": {"reassoc", "contract", "arcp", "afn", "nsz"}, "error_model": "numpy"}
SIGNATURE = types.void(types.CPointer(types.int64))
intrinsic: Any = extending.intrinsic  # its types do not say that the first argument is numba's own
F32, I8, I16, I32 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)

_pool = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libgomp.so.1"))
for _name in ("omp_get_thread_num", "omp_get_num_threads"):
    llvm.add_symbol(_name, ctypes.cast(getattr(_pool, _name), ctypes.c_void_p).value)
_thread_number: Any = types.ExternalFunction("omp_get_thread_num", types.int32())
_thread_count: Any = types.ExternalFunction("omp_get_num_threads", types.int32())


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, _: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), code


@intrinsic
def _float(_: Any, bits: Any) -> Any:
    """A float argument of a kernel."""

    def code(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.fptrunc(builder.bitcast(values[0], ir.DoubleType()), F32)

    return types.float32(types.int64), code


@intrinsic
def _widen(_: Any, half: Any) -> Any:
    """bf16 bits → float32."""

    def code(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(values[0], I32), I32(16)), F32)

    return types.float32(types.uint16), code


@intrinsic
def _narrow(_: Any, number: Any) -> Any:
    """float32 → the nearest bf16's bits; of two as near, the even one, as torch does."""

    def code(_: Any, builder: Any, __: Any, values: Any) -> Any:
        bits = builder.bitcast(values[0], I32)
        odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
        return builder.trunc(builder.lshr(builder.add(builder.add(bits, odd), I32(0x7FFF)), I32(16)), I16)

    return types.uint16(types.float32), code


@intrinsic
def _larger_magnitude(_: Any, half: Any, largest: Any) -> Any:
    """|half| or `largest`, whichever is more; bf16 bits, which sort as magnitudes do."""

    def code(_: Any, builder: Any, __: Any, values: Any) -> Any:
        magnitude = builder.and_(values[0], I16(0x7FFF))
        return builder.select(builder.icmp_unsigned(">", magnitude, values[1]), magnitude, values[1])

    return types.uint16(types.uint16, types.uint16), code


@intrinsic
def _to_byte(_: Any, number: Any) -> Any:
    """float32 from 0 to 255 → its whole part."""

    def code(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.trunc(builder.fptosi(values[0], I32), I8)

    return types.uint8(types.float32), code


@intrinsic
def _whole(_: Any, number: Any) -> Any:
    """float32 → the nearest whole one."""

    def code(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.nearbyint", [F32]), values)

    return types.float32(types.float32), code


@intrinsic
def _power_of_two(_: Any, exponent: Any) -> Any:
    """2 to a whole float32 from -126 to 127."""

    def code(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.bitcast(builder.shl(builder.add(builder.fptosi(values[0], I32), I32(127)), I32(23)), F32)

    return types.float32(types.float32), code


@njit(inline="always")
def _normal_tail(x: Any, density: Any) -> Any:
    """P(X > |x|), given e^(-x²/2); error below 1e-7 (Abramowitz and Stegun 7.1.26)."""
    t = ONE / (ONE + np.float32(0.3275911 * 0.7071067811865476) * abs(x))
    series = np.float32(1.061405429)
    series = series * t + np.float32(-1.453152027)
    series = series * t + np.float32(1.421413741)
    series = series * t + np.float32(-0.284496736)
    series = series * t + np.float32(0.254829592)
    return HALF * series * t * density


@njit(inline="always")
def _exponential(x: Any) -> Any:
    """e to the x for x ≤ 0, zero below -87; relative error below 1e-6: 2^n times the Taylor series of the rest, |rest| ≤ ln 2 / 2."""
    seen = x > np.float32(-87)
    x = x if seen else ZERO
    n = _whole(x * np.float32(1.4426950408889634))
    rest = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)  # ln 2 in two parts
    series = np.float32(1 / 720)
    series = series * rest + np.float32(1 / 120)
    series = series * rest + np.float32(1 / 24)
    series = series * rest + np.float32(1 / 6)
    series = series * rest + HALF
    series = series * rest + ONE
    return (series * rest + ONE) * _power_of_two(n) if seen else ZERO


@njit(inline="always")
def _halves(address: Any, rows: Any, width: Any) -> Any:
    """A bf16 tensor as its bits: (rows, width)."""
    return carray(_pointer(address), (rows, width), np.uint16)


@njit(inline="always")
def _bytes(address: Any, rows: Any, width: Any) -> Any:
    """A uint8 tensor: (rows, width)."""
    return carray(_pointer(address), (rows, width), np.uint8)


@njit(inline="always")
def _floats(address: Any, length: Any) -> Any:
    """A float32 tensor: (length,)."""
    return carray(_pointer(address), (length,), np.float32)


@njit(inline="always")
def _my_rows(rows: Any) -> Any:
    """This thread's part of the rows."""
    thread, threads = np.int64(_thread_number()), np.int64(_thread_count())
    return range(rows * thread // threads, rows * (thread + 1) // threads)


class Kernel:
    """A compiled function, called with contiguous tensors, integers and floats."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        try:
            self._compiled = cfunc(SIGNATURE, cache=True, **OPTIONS)(function)
        except RuntimeError:  # no folder that could keep it
            self._compiled = cfunc(SIGNATURE, **OPTIONS)(function)
        self._address = ctypes.c_void_p(self._compiled.address)

    def __call__(self, *arguments: Tensor | int | float) -> None:
        packed = (ctypes.c_int64 * len(arguments))(*map(_bits, arguments))
        _pool.GOMP_parallel(self._address, packed, torch.get_num_threads(), 0)


def _bits(argument: Tensor | int | float) -> int:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return argument if isinstance(argument, int) else struct.unpack("q", struct.pack("d", argument))[0]


@Kernel
def quantise_rows(args: Any) -> None:
    """x: (rows, width) bf16 → bytes, 128 for zero, and each row's scale: (rows,), so that x = (bytes - 128) × scale."""
    rows, width = args[3], args[4]
    x, quantised, scales = _halves(args[0], rows, width), _bytes(args[1], rows, width), _floats(args[2], rows)
    for row in _my_rows(rows):
        largest = np.uint16(0x0080)  # the least normal number: a row of zeros has a scale, too
        for column in range(width):
            largest = _larger_magnitude(x[row, column], largest)
        scale = _widen(largest) * np.float32(1 / 127)
        scales[row] = scale
        steps = ONE / scale
        for column in range(width):
            quantised[row, column] = _to_byte(_widen(x[row, column]) * steps + np.float32(128.5))


@Kernel
def scale_rows(args: Any) -> None:
    """y: (rows, width) ← y × scale of its row + bias: (width,) fp32."""
    rows, width = args[3], args[4]
    y, scales, bias = _halves(args[0], rows, width), _floats(args[1], rows), _floats(args[2], width)
    for row in _my_rows(rows):
        scale = scales[row]
        for column in range(width):
            y[row, column] = _narrow(_widen(y[row, column]) * scale + bias[column])


@Kernel
def add_scaled_rows(args: Any) -> None:
    """total: (rows, width) ← total + y × scale of its row."""
    rows, width = args[3], args[4]
    total, y, scales = _halves(args[0], rows, width), _halves(args[1], rows, width), _floats(args[2], rows)
    for row in _my_rows(rows):
        scale = scales[row]
        for column in range(width):
            total[row, column] = _narrow(_widen(total[row, column]) + _widen(y[row, column]) * scale)


@Kernel
def add_norm(args: Any) -> None:
    """total ← total + x; y ← its layer norm; its mean and 1 / deviation: (rows,); gains, shifts: (width,) fp32."""
    rows, width, epsilon = args[7], args[8], _float(args[9])
    total, x, y = _halves(args[0], rows, width), _halves(args[1], rows, width), _halves(args[2], rows, width)
    means, inverses = _floats(args[3], rows), _floats(args[4], rows)
    gains, shifts = _floats(args[5], width), _floats(args[6], width)
    share = ONE / np.float32(width)
    for row in _my_rows(rows):
        mean = ZERO
        for column in range(width):
            total[row, column] = _narrow(_widen(total[row, column]) + _widen(x[row, column]))
            mean += _widen(total[row, column])
        mean *= share
        variance = ZERO
        for column in range(width):
            apart = _widen(total[row, column]) - mean
            variance += apart * apart
        inverse = ONE / np.sqrt(variance * share + epsilon)
        means[row], inverses[row] = mean, inverse
        for column in range(width):
            y[row, column] = _narrow((_widen(total[row, column]) - mean) * inverse * gains[column] + shifts[column])


@Kernel
def norm_backward(args: Any) -> None:
    """Gradient dx of a layer norm's input x: (rows, width), from dy, mean, 1 / deviation: (rows,), gains: (width,) fp32."""
    rows, width = args[6], args[7]
    dx, dy, x = _halves(args[0], rows, width), _halves(args[1], rows, width), _halves(args[2], rows, width)
    means, inverses, gains = _floats(args[3], rows), _floats(args[4], rows), _floats(args[5], width)
    share = ONE / np.float32(width)
    for row in _my_rows(rows):
        mean, inverse = means[row], inverses[row]
        plain, along = ZERO, ZERO
        for column in range(width):
            slope = _widen(dy[row, column]) * gains[column]
            plain += slope
            along += slope * (_widen(x[row, column]) - mean)
        plain *= share
        along *= share * inverse * inverse
        for column in range(width):
            slope = _widen(dy[row, column]) * gains[column]
            dx[row, column] = _narrow((slope - plain - (_widen(x[row, column]) - mean) * along) * inverse)


@Kernel
def gelu_with_slope(args: Any) -> None:
    """y ← x P(X < x); x ← its slope there, P(X < x) + x e^(-x²/2) / √(2π); X is normal: (rows, width)."""
    rows, width = args[2], args[3]
    y, x = _halves(args[0], rows, width), _halves(args[1], rows, width)
    for row in _my_rows(rows):
        for column in range(width):
            number = _widen(x[row, column])
            density = _exponential(-HALF * number * number)
            tail = _normal_tail(number, density)
            below = ONE - tail if number > ZERO else tail
            y[row, column] = _narrow(number * below)
            x[row, column] = _narrow(below + number * density * np.float32(0.3989422804014327))
