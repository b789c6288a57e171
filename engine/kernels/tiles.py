"""Products of tiles by VNNI and AVX-512 BF16, the innermost loops of engine.kernels.low_rank.

A tile of the result has 8 rows and 16, 32 or 48 columns, so that all of it stays in registers. A 32-bit lane is four bytes or two
bf16 numbers beside each other in the direction of the sum. Of a, a tile reads 8 rows of lanes; of b, which is a panel, the lanes of
all columns beside each other for each step of the sum.

LLVM has no instructions for them that are the same in all of its versions, so they are written in assembler.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import carray, njit, types

from engine.kernels import tile_sizes
from engine.kernels.compiled import F32, I8, I16, I32, bf16_numbers, instruction, to_pointer
from engine.kernels.tile_sizes import LANES, PANEL, ROWS

REGISTERS = PANEL // LANES  # of a row
STRIDE = 4 * PANEL  # bytes of a panel's step
rounded_up = njit(inline="always")(tile_sizes.rounded_up)

llvm.initialize_native_asmparser()
I64 = ir.IntType(64)
INTEGERS, FLOATS, HALVES = (ir.VectorType(kind, LANES) for kind in (I32, F32, I16))
PRODUCT_OF_BYTES = ir.InlineAsm(ir.FunctionType(INTEGERS, [INTEGERS] * 3), "vpdpbusd $3, $2, $0", "=v,0,v,v")
PRODUCT_OF_BF16 = ir.InlineAsm(
    ir.FunctionType(FLOATS, [FLOATS, INTEGERS, INTEGERS]), "vdpbf16ps $3, $2, $0", "=v,0,v,v"
)
TO_BF16 = ir.InlineAsm(ir.FunctionType(HALVES, [FLOATS]), "vcvtneps2bf16 $1, $0", "=v,v")
CONTRACTED = ["contract"]  # a product and a sum may be one instruction, rounded once
NOTHING = ir.Constant(I8.as_pointer(), None)  # what numba expects of an instruction without a result


def place(builder: IRBuilder, address: Value, offset: int | Value, kind: ir.Type) -> Value:
    """Return a pointer to what lies `offset` bytes behind an address."""
    return builder.inttoptr(builder.add(address, I64(offset) if isinstance(offset, int) else offset), kind.as_pointer())


def places_of_rows(builder: IRBuilder, address: Value, stride: Value, last: Value | None = None) -> list[Value]:
    """Return the addresses of a tile's rows; rows behind the last one are the last one again."""
    numbers: list[Value] = [I64(row) for row in range(ROWS)]
    if last is not None:
        numbers = [builder.select(builder.icmp_signed("<", number, last), number, last) for number in numbers]
    return [builder.add(address, builder.mul(number, stride)) for number in numbers]


def load(builder: IRBuilder, address: Value, kind: ir.Type, registers: int = REGISTERS) -> list[Value]:
    """Return the numbers of a row, a register at a time."""
    size = 32 if kind is HALVES else 64
    return [builder.load(place(builder, address, size * each, kind), align=2) for each in range(registers)]


def spread(builder: IRBuilder, number: Value, kind: ir.VectorType) -> Value:
    """Return a register that has one number in all lanes."""
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), number, I32(0))
    return builder.shuffle_vector(single, single, ir.Constant(INTEGERS, [0] * LANES))


def add_products(
    builder: IRBuilder, product: ir.InlineAsm, starts: list[Value], a_rows: list[Value], b: Value, b_stride: Value, steps: Value
) -> list[Value]:  # fmt: skip
    """Emit the loop over the steps of a sum; return the totals: rows × registers."""
    registers = len(starts) // ROWS
    before = builder.block
    loop = builder.append_basic_block("steps")
    after = builder.append_basic_block("stepped")
    builder.cbranch(builder.icmp_signed(">", steps, I64(0)), loop, after)

    builder.position_at_end(loop)
    step, b_row = builder.phi(I64), builder.phi(I64)
    totals = [builder.phi(start.type) for start in starts]
    columns = load(builder, b_row, INTEGERS, registers)
    offset = builder.mul(step, I64(4))
    sums = []
    for row, a_row in enumerate(a_rows):
        lanes = spread(builder, builder.load(place(builder, a_row, offset, I32), align=2), INTEGERS)
        for total, column in zip(totals[row * registers : (row + 1) * registers], columns, strict=True):
            sums.append(builder.call(product, [total, lanes, column]))
    next_step = builder.add(step, I64(1))
    following = [next_step, builder.add(b_row, b_stride), *sums]
    for phi, first, then in zip([step, b_row, *totals], [I64(0), b, *starts], following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", next_step, steps), loop, after)

    builder.position_at_end(after)
    results = [builder.phi(start.type) for start in starts]
    for result, start, total in zip(results, starts, sums, strict=True):
        result.add_incoming(start, before)
        result.add_incoming(total, loop)
    return results


def add_bf16_product(registers: int) -> Any:
    """Return c += a b as an instruction: (c, c_stride, a, a_stride, last_row, b, b_stride, steps); c: fp32, with so many registers a row.

    All are addresses and strides in bytes. Rows of a behind the last one are not read, and those of c get meaningless numbers.
    """

    def emit(
        builder: IRBuilder, c: Value, c_stride: Value, a: Value, a_stride: Value, last: Value, b: Value, b_stride: Value,
        steps: Value,
    ) -> Value:  # fmt: skip
        c_rows = places_of_rows(builder, c, c_stride)
        starts = [start for row in c_rows for start in load(builder, row, FLOATS, registers)]
        a_rows = places_of_rows(builder, a, a_stride, last)
        totals = add_products(builder, PRODUCT_OF_BF16, starts, a_rows, b, b_stride, steps)
        for index, total in enumerate(totals):
            row, register = divmod(index, registers)
            builder.store(total, place(builder, c_rows[row], 64 * register, FLOATS), align=4)
        return NOTHING

    return instruction(types.void, *[types.int64] * 8)(emit)


add_bf16_product_1, add_bf16_product_2, add_bf16_product_3 = map(add_bf16_product, (1, 2, 3))


def scale_products(builder: IRBuilder, totals: list[Value], row_scales: Value, column_scales: Value) -> list[Value]:
    """Return a tile of sums times the scales of its rows and columns."""
    scales_of_columns = load(builder, column_scales, FLOATS)
    products = []
    for index, total in enumerate(totals):
        row, register = divmod(index, REGISTERS)
        row_scale = spread(builder, builder.load(place(builder, row_scales, 4 * row, F32), align=4), FLOATS)
        scale = builder.fmul(row_scale, scales_of_columns[register])
        products.append(builder.fmul(builder.sitofp(total, FLOATS), scale, flags=CONTRACTED))
    return products


@instruction(types.void, *[types.int64] * 8)
def add_scaled_product(
    builder: IRBuilder, c: Value, c_stride: Value, a: Value, a_stride: Value, b: Value, steps: Value, row_scales: Value,
    column_scales: Value,
) -> Value:  # fmt: skip
    """Add to a tile of fp32: c += (a b) · row scale · column scale. a: bytes from 0 on; b: bytes around 0; scales: fp32."""
    starts = [ir.Constant(INTEGERS, [0] * LANES)] * (ROWS * REGISTERS)
    totals = add_products(
        builder, PRODUCT_OF_BYTES, starts, places_of_rows(builder, a, a_stride), b, I64(STRIDE), steps
    )
    products = scale_products(builder, totals, row_scales, column_scales)
    for row, c_row in enumerate(places_of_rows(builder, c, c_stride)):
        for register, before in enumerate(load(builder, c_row, FLOATS)):
            total = builder.fadd(products[row * REGISTERS + register], before, flags=CONTRACTED)
            builder.store(total, place(builder, c_row, 64 * register, FLOATS), align=4)
    return NOTHING


@instruction(types.void, *[types.int64] * 17)
def write_scaled_product(
    builder: IRBuilder, y: Value, y_stride: Value, residual: Value, residual_stride: Value, a: Value, a_stride: Value, b: Value,
    steps: Value, corrections: Value, row_scales: Value, column_scales: Value, shifts: Value, low: Value, low_stride: Value,
    last: Value, up: Value, low_steps: Value,
) -> Value:  # fmt: skip
    """Write a tile of bf16: y ← (a b + corrections) · row scale · column scale + shifts + low up + residual.

    a, b: bytes; low, up, residual: bf16; scales and shifts: fp32. Rows of `low` behind the last one are not read.
    """
    a_rows = places_of_rows(builder, a, a_stride)
    starts = load(builder, corrections, INTEGERS) * ROWS
    totals = add_products(builder, PRODUCT_OF_BYTES, starts, a_rows, b, I64(STRIDE), steps)
    shifts_of_columns = load(builder, shifts, FLOATS) * ROWS
    products = scale_products(builder, totals, row_scales, column_scales)
    scaled = [
        builder.fadd(product, shift, flags=CONTRACTED)
        for product, shift in zip(products, shifts_of_columns, strict=True)
    ]
    low_rows = places_of_rows(builder, low, low_stride, last)
    numbers = add_products(builder, PRODUCT_OF_BF16, scaled, low_rows, up, I64(STRIDE), low_steps)
    y_rows = places_of_rows(builder, y, y_stride)
    residual_rows = places_of_rows(builder, residual, residual_stride)
    for row in range(ROWS):
        for register, added in enumerate(load(builder, residual_rows[row], HALVES)):
            bits = builder.shl(builder.zext(added, INTEGERS), ir.Constant(INTEGERS, [16] * LANES))
            number = builder.fadd(numbers[row * REGISTERS + register], builder.bitcast(bits, FLOATS))
            rounded = builder.call(TO_BF16, [number])
            builder.store(rounded, place(builder, y_rows[row], 32 * register, HALVES), align=2)
    return NOTHING


def shuffle(builder: IRBuilder, one: Value, other: Value, lanes: list[int]) -> Value:
    """Return some lanes of two registers; those of the second are counted on."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


@instruction(types.void, *[types.int64] * 5)
def transpose_tile(
    builder: IRBuilder, target: Value, target_stride: Value, x: Value, stride: Value, last: Value
) -> Value:
    """Write 4 rows of 16 lanes as 16 rows of 4 lanes. Strides are in bytes; rows behind the last one are not read."""
    rows = [load(builder, row, INTEGERS, 1)[0] for row in places_of_rows(builder, x, stride, last)[:4]]
    for half in (0, 8):
        upper, lower = (
            shuffle(
                builder, pair[0], pair[1], [lane for each in range(half, half + 8) for lane in (each, LANES + each)]
            )
            for pair in (rows[:2], rows[2:])
        )
        for each in range(8):
            first = 2 * each
            lanes = shuffle(builder, upper, lower, [first, first + 1, LANES + first, LANES + first + 1])
            offset = builder.mul(target_stride, I64(half + each))
            builder.store(lanes, place(builder, target, offset, lanes.type), align=4)
    return NOTHING


@instruction(types.int64, types.int64)
def take_number(builder: IRBuilder, counter: Value) -> Value:
    """Return an int64 at an address and count it up; each thread gets other numbers."""
    return builder.atomic_rmw("add", place(builder, counter, 0, I64), I64(1), "monotonic")


@njit(inline="always")
def multiply_tile(
    c: int, c_stride: int, a: int, a_stride: int, last: int, b: int, b_stride: int, steps: int, columns: int
) -> None:
    """c += a b for 8 rows and some columns, a multiple of 16, of fp32; see add_bf16_product."""
    first = 0
    while first < columns:
        left = columns - first
        width = PANEL if left > 4 * LANES or left == PANEL else min(2 * LANES, left)
        if width == PANEL:
            add_bf16_product_3(c + 4 * first, c_stride, a, a_stride, last, b + 4 * first, b_stride, steps)
        elif width == 2 * LANES:
            add_bf16_product_2(c + 4 * first, c_stride, a, a_stride, last, b + 4 * first, b_stride, steps)
        else:
            add_bf16_product_1(c + 4 * first, c_stride, a, a_stride, last, b + 4 * first, b_stride, steps)
        first += width


@njit(inline="always")
def pair_rows(lanes: int, lanes_stride: int, x: int, stride: int, rows: int, columns: int) -> None:
    """Write rows of bf16, two in a lane, so that sums go along the rows; a missing second row is zero. Strides are in bytes."""
    for pair in range((rows + 1) // 2):
        target = carray(to_pointer(lanes + pair * lanes_stride), (columns,), np.uint32)
        upper = bf16_numbers(x + 2 * pair * stride, 0, columns)
        if 2 * pair + 1 < rows:
            lower = bf16_numbers(x + (2 * pair + 1) * stride, 0, columns)
            for column in range(columns):
                target[column] = np.uint32(upper[column]) | (np.uint32(lower[column]) << np.uint32(16))
        else:
            for column in range(columns):
                target[column] = np.uint32(upper[column])
