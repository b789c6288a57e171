"""What compiled CPU kernels are made of: how they are compiled and called, and the conversions that they need.

A kernel is a C function of one argument, the address of 64-bit integers: addresses of tensors, sizes, and the bits of floats. Its first
statement names them, in the order in which callers pass them. GOMP_parallel, which compilers emit for `#pragma omp parallel`, calls it
once on every thread, and each thread takes its part of the rows. A thread pool of our own would compete for the cores on which torch's
pool keeps spinning. numba compiles it for the vector instructions of this machine, and libgomp, which torch brings along, runs it on the
threads of torch's own operations. bf16 has no type in numba, so the few conversions are written as LLVM instructions.

Functions that kernels call are inlined. The process that compiles a kernel would link another copy of them than those that read the cache
later, and the last bits of the results would differ: a run would not resume to the same bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import carray, extending, njit, types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.cgutils import pack_array
from numba.core.sigutils import normalize_signature
from numba.core.types import Type
from numba.core.typing import Context
from torch import Tensor

# Fast-math without the promise that no number is NaN or infinite, so that a loss that diverges is seen. The error model
# makes a division by zero infinite instead of an exception, which would keep loops from being vectorised.
OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "arcp", "afn", "nsz"}, "error_model": "numpy"}
KERNEL_SIGNATURE = types.void(types.int64)
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
LIBGOMP = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libgomp.so.1"))

F32, I8, I16, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
SMALLEST_NORMAL_BF16 = np.uint16(0x0080)  # its bits
SMALLEST_NORMAL = np.int32(0x00800000)  # the bits of the same number as float32

for _name in ("omp_get_thread_num", "omp_get_num_threads"):
    llvm.add_symbol(_name, ctypes.cast(getattr(LIBGOMP, _name), ctypes.c_void_p).value)
intrinsic: Any = extending.intrinsic  # typed for numba's compiler, not for kernels that call it
thread_number: Any = types.ExternalFunction("omp_get_thread_num", types.int32())
thread_count: Any = types.ExternalFunction("omp_get_num_threads", types.int32())


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


@intrinsic
def unpack(_context: Context, address: Type, count: Any) -> Any:
    """Return a number of 64-bit integers that lie at an address, as a tuple. The number is a constant: types depend on it."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    integers = types.UniTuple(types.int64, count.literal_value)

    def emit(_context: Any, builder: IRBuilder, _signature: Any, values: list[Value]) -> Value:
        first = builder.inttoptr(values[0], I64.as_pointer())
        return pack_array(builder, [builder.load(builder.gep(first, [I64(index)])) for index in range(len(integers))])

    return integers(address, count), emit


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


@instruction(types.int32, types.float32, types.int32)
def larger_float_magnitude(builder: IRBuilder, number: Value, largest: Value) -> Value:
    """Return the bits of max(|x|, largest), which sort as the magnitudes do."""
    magnitude = builder.and_(builder.bitcast(number, I32), I32(0x7FFFFFFF))
    return builder.select(builder.icmp_signed(">", magnitude, largest), magnitude, largest)


@instruction(types.float32, types.int32)
def bits_to_float(builder: IRBuilder, bits: Value) -> Value:
    """Return the float32 that has these bits."""
    return builder.bitcast(bits, F32)


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
def bf16_numbers(address: int, first: int, length: int) -> np.ndarray:
    """Return some numbers of a bf16 tensor as their bits, from its `first` one on. Loops over such a part are vectorised."""
    return carray(to_pointer(address + 2 * first), (length,), np.uint16)


@njit(inline="always")
def float_vector(address: int, length: int) -> np.ndarray:
    """Return a float32 tensor (length,)."""
    return carray(to_pointer(address), (length,), np.float32)


@njit(inline="always")
def quantise_row(numbers: np.ndarray, quantised: np.ndarray) -> np.float32:
    """Write a row of bf16 as bytes, and return its scale.

    scale = max |x| of the row / 127        quantised = round(x / scale) + 128
    """
    largest = SMALLEST_NORMAL_BF16  # not zero: the scale of an empty row is divided by
    for column in range(len(numbers)):
        largest = larger_magnitude(numbers[column], largest)
    scale = bf16_to_float(largest) * np.float32(1 / 127)
    inverse = ONE / scale
    for column in range(len(numbers)):
        quantised[column] = float_to_byte(
            bf16_to_float(numbers[column]) * inverse + np.float32(128.5)
        )  # the half rounds
    return scale


@njit(inline="always")
def quantise_smoothed_row(numbers: np.ndarray, quantised: np.ndarray, factors: np.ndarray) -> np.float32:
    """The same for a row whose columns are multiplied by factors first; see engine.kernels.smoothing."""
    largest = SMALLEST_NORMAL
    for column in range(len(numbers)):
        largest = larger_float_magnitude(bf16_to_float(numbers[column]) * factors[column], largest)
    scale = bits_to_float(largest) * np.float32(1 / 127)
    inverse = ONE / scale
    for column in range(len(numbers)):
        smoothed = bf16_to_float(numbers[column]) * factors[column]
        quantised[column] = float_to_byte(smoothed * inverse + np.float32(128.5))
    return scale


@njit(inline="always")
def rows_of_this_thread(rows: int) -> range:
    """Return the rows that this thread computes: an equal share, beside each other."""
    thread, threads = np.int64(thread_number()), np.int64(thread_count())
    return range(rows * thread // threads, rows * (thread + 1) // threads)


class KernelCache(FunctionCache):
    """What numba keeps of compiled code, until any file of the kernels changes: they are made of each other's functions.

    numba itself looks at the file of the kernel alone.
    """

    def _index_key(self, *what: Any) -> tuple[Any, ...]:
        return (*super()._index_key(*what), SOURCES)


class CachedFunction(CFunc):
    def enable_caching(self) -> None:
        self._cache = KernelCache(self.__wrapped__)


class Kernel:
    """A compiled function, called with contiguous tensors, integers and floats."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self._compiled = CachedFunction(function, normalize_signature(KERNEL_SIGNATURE), locals={}, options=OPTIONS)
        with contextlib.suppress(RuntimeError):  # numba found no folder to keep compiled code in
            self._compiled.enable_caching()
        self._compiled.compile()
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
