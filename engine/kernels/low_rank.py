"""Compiled products of a group of linear layers with LoRA: the frozen weight in int8, and its adapters in bf16, in one kernel each way.

    y = x Wᵀ + p Bᵀ + bias + residual        p = x (s A)ᵀ
    dx = dy W + dp (s A) + residual        dp = dy B        dA = s dpᵀ x        dB = dyᵀ p

Each thread takes some of the rows, a block at a time, so that what it computes on the way stays in its cache: the block is quantised, and
every tile of the result gets the adapters' part before it is rounded. The threads' sums for dA and dB are added at the end.

These are kernels as in engine.kernels.compiled, which says how they work and when they are compiled again.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import carray, njit, types

from engine.kernels.adapter_tables import ADAPTER, FACTORS
from engine.kernels.compiled import (
    LIBGOMP,
    ONE,
    ZERO,
    Kernel,
    bf16_matrix,
    bf16_numbers,
    float_to_bf16,
    float_vector,
    quantise_row,
    quantise_smoothed_row,
    rows_of_this_thread,
    thread_count,
    thread_number,
    to_pointer,
    unpack,
)
from engine.kernels.cpu import swiglu_gradient_rows, swiglu_rows
from engine.kernels.tile_sizes import BLOCK, PANEL, ROWS
from engine.kernels.tiles import STRIDE, add_bf16_product_3, multiply_tile, pair_rows, rounded_up, write_scaled_product

llvm.add_symbol("GOMP_barrier", ctypes.cast(LIBGOMP.GOMP_barrier, ctypes.c_void_p).value)
_wait_for_all_threads: Any = types.ExternalFunction("GOMP_barrier", types.void())

TILE = ROWS * PANEL  # numbers


@njit(inline="always")
def quantise_block(x: int, rows: int, width: int, stride: int, quantised: int, row_scales: int, factors: int) -> None:
    """Write rows of x: (rows, width) bf16 as bytes, `stride` apart, and their scales. factors: (width,) fp32, or 0 for none."""
    scales = float_vector(row_scales, rows)
    for row in range(rows):
        numbers = bf16_numbers(x, row * width, width)
        target = carray(to_pointer(quantised + row * stride), (width,), np.uint8)
        if factors == 0:
            scales[row] = quantise_row(numbers, target)
        else:
            scales[row] = quantise_smoothed_row(numbers, target, float_vector(factors, width))


@njit(inline="always")
def copy_tile(target: int, target_stride: int, source: int, source_stride: int, rows: int, columns: int) -> None:
    """Copy some rows and columns of bf16; strides are in bytes."""
    for row in range(rows):
        to = bf16_numbers(target + row * target_stride, 0, columns)
        numbers = bf16_numbers(source + row * source_stride, 0, columns)
        for column in range(columns):
            to[column] = numbers[column]


@njit(inline="always")
def multiply_block(
    y: int, residual: int, rows: int, width: int, quantised: int, stride: int, row_scales: int, weight: int, scales: int,
    corrections: int, bias: int, projected: int, ranks: int, up: int, ranges: int, tile: int,
) -> None:  # fmt: skip
    """Write y: (rows, width) bf16 for a quantised block and its product with the adapters' other side: (rows, ranks) bf16."""
    panels = (width + PANEL - 1) // PANEL
    pairs = carray(to_pointer(ranges), (panels, 2), np.int64)
    bf16_numbers(tile, 0, 2 * TILE)[:] = 0
    edge = tile + 2 * TILE  # a tile that y has only a part of
    for panel in range(panels):
        column = panel * PANEL
        columns = min(PANEL, width - column)
        first_pair = pairs[panel, 0]
        for row in range(0, rows, ROWS):
            count = min(ROWS, rows - row)
            is_whole = count == ROWS and columns == PANEL
            target, target_stride = y + 2 * (row * width + column), 2 * width
            added, added_stride = (tile, 0) if residual == 0 else (residual + 2 * (row * width + column), 2 * width)
            if not is_whole and residual != 0:
                copy_tile(edge, 2 * PANEL, added, added_stride, count, columns)
                added, added_stride = edge, 2 * PANEL
            write_scaled_product(
                target if is_whole else edge, target_stride if is_whole else 2 * PANEL, added, added_stride,
                quantised + row * stride, stride, weight + column * stride, stride // 4, corrections + 4 * column,
                row_scales + 4 * row, scales + 4 * column, bias + 4 * column, projected + 2 * row * ranks + 4 * first_pair,
                2 * ranks, count - 1, up + STRIDE * (panel * ranks // 2 + first_pair), pairs[panel, 1],
            )  # fmt: skip
            if not is_whole:
                copy_tile(target, target_stride, edge, 2 * PANEL, count, columns)


@njit(inline="always")
def project_block(
    projected: int, projected_stride: int, x: int, stride: int, rows: int, inner: int, down: int, ranks: int, tile: int
) -> None:
    """Write x times an adapter's panels: (rows, ranks) bf16. x: (rows, inner) bf16; strides are in bytes."""
    numbers = carray(to_pointer(tile), (TILE,), np.float32)
    for first_rank in range(0, ranks, PANEL):
        width = min(PANEL, ranks - first_rank)
        panel = down + 2 * first_rank * inner
        for first in range(0, rows, ROWS):
            last = min(ROWS, rows - first) - 1
            numbers[:] = ZERO
            multiply_tile(tile, STRIDE, x + first * stride, stride, last, panel, 4 * width, inner // 2, width)
            for row in range(last + 1):
                target = bf16_numbers(projected + (first + row) * projected_stride, first_rank, width)
                for column in range(width):
                    target[column] = float_to_bf16(numbers[row * PANEL + column])


@njit(inline="always")
def transpose_block(transposed: int, x: int, stride: int, rows: int, width: int) -> None:
    """Write x: (rows, width) bf16, its rows `stride` bytes apart, as (width, BLOCK), with zeros behind the rows."""
    target = bf16_matrix(transposed, width, BLOCK)
    for column in range(width):
        for row in range(BLOCK):
            target[column, row] = bf16_numbers(x + row * stride, 0, width)[column] if row < rows else np.uint16(0)


@njit(inline="always")
def add_outer_product(
    sums: int, sums_stride: int, transposed: int, ranks: int, x: int, stride: int, rows: int, width: int, strip: int
) -> None:
    """Add the product of (ranks, BLOCK), transposed, and x: (rows, width) bf16 to sums: (ranks, width) fp32; strides are in bytes."""
    pairs = (rows + 1) // 2
    for first_column in range(0, width, PANEL):
        columns = min(PANEL, width - first_column)
        pair_rows(strip, STRIDE, x + 2 * first_column, stride, rows, columns)
        for rank in range(0, ranks, ROWS):
            add_bf16_product_3(
                sums + rank * sums_stride + 4 * first_column, sums_stride, transposed + 2 * rank * BLOCK, 2 * BLOCK, ROWS - 1,
                strip, STRIDE, pairs,
            )  # fmt: skip


@njit(inline="always")
def add_down_gradient(adapter: np.record, sums: int, threads: int, scratch_bytes: int, width: int) -> None:
    """Write this thread's rows of dA: the sum of what all threads have in `sums`, `scratch_bytes` apart."""
    scale, padded_width = np.float32(adapter.scale), rounded_up(width, PANEL)
    for row in rows_of_this_thread(adapter.rank):
        gradient = float_vector(adapter.da + 4 * row * width, width)
        gradient[:] = ZERO
        for thread in range(threads):
            start = sums + thread * scratch_bytes + 4 * (adapter.first_rank + row) * padded_width
            part = float_vector(start, width)
            for column in range(width):
                gradient[column] += scale * part[column]


@njit(inline="always")
def add_up_gradient(adapter: np.record, sums: int, threads: int, scratch_bytes: int) -> None:
    """Write this thread's rows of dB: the transposed sum of what all threads have in `sums`, `scratch_bytes` apart."""
    gradients = carray(to_pointer(adapter.db), (adapter.outputs, adapter.rank), np.float32)
    padded = rounded_up(adapter.outputs, PANEL)
    for output in rows_of_this_thread(adapter.outputs):
        for row in range(adapter.rank):
            total = ZERO
            for thread in range(threads):
                start = sums + thread * scratch_bytes + 4 * (adapter.first_sum + row * padded)
                total += float_vector(start, padded)[output]
            gradients[output, row] = total


@Kernel
def project(arguments: int) -> None:
    """Write y: (rows, outputs) and projected: (rows, ranks) for x: (rows, width), all bf16.

    residual: like y, or 0. active: (rows, outputs / 2) gets SwiGLU of y, or is 0. scratch: scratch_bytes for each thread.
    """
    (
        y, x, projected, residual, weight, scales, corrections, bias, factors, down, up, ranges, scratch, scratch_bytes,
        rows, width, outputs, ranks, active,
    ) = unpack(arguments, 19)  # fmt: skip
    tile = scratch + int(thread_number()) * scratch_bytes
    row_scales = tile + 8 * TILE
    quantised = row_scales + 4 * BLOCK
    stride = rounded_up(width, 4)
    own = rows_of_this_thread(rows)
    for first in range(own.start, own.stop, BLOCK):
        count = min(BLOCK, own.stop - first)
        own_x = x + 2 * first * width
        own_y = y + 2 * first * outputs
        own_projected = projected + 2 * first * ranks
        quantise_block(own_x, count, width, stride, quantised, row_scales, factors)
        project_block(own_projected, 2 * ranks, own_x, 2 * width, count, width, down, ranks, tile)
        own_residual = residual + 2 * first * outputs if residual != 0 else 0
        multiply_block(
            own_y, own_residual, count, outputs, quantised, stride, row_scales, weight, scales, corrections, bias,
            own_projected, ranks, up, ranges, tile,
        )  # fmt: skip
        if active != 0:
            swiglu_rows(active + first * outputs, own_y, count, outputs // 2)


@Kernel
def project_gradient(arguments: int) -> None:
    """Write dx: (rows, width) bf16, unless it is 0, and the gradients of the adapters in fp32, for dy: (rows, outputs) bf16.

    residual: like dx, or 0. weight and what follows it: of the transposed weight. adapters: a table of ADAPTER.
    dactive: (rows, outputs / 2), the gradient of SwiGLU of what dy is, which is overwritten by its own gradient first; or 0.
    """
    (
        dx, dy, x, projected, residual, weight, scales, corrections, bias, factors, down, ranges, adapters_at, adapter_count,
        scratch, scratch_bytes, rows, width, outputs, ranks, dactive,
    ) = unpack(arguments, 21)  # fmt: skip
    thread, threads = int(thread_number()), int(thread_count())
    tile = scratch + thread * scratch_bytes
    strip = tile + 8 * TILE
    row_scales = strip + 2 * BLOCK * PANEL
    back = row_scales + 4 * BLOCK  # dp of the block
    transposed = back + 2 * BLOCK * ranks
    quantised = transposed + 2 * BLOCK * ranks
    stride = rounded_up(outputs, 4)
    sums = quantised + BLOCK * stride
    padded_width = rounded_up(width, PANEL)
    adapters = carray(to_pointer(adapters_at), (adapter_count,), ADAPTER)
    all_sums = ranks * padded_width
    for index in range(adapter_count):
        all_sums += adapters[index].padded_rank * rounded_up(adapters[index].outputs, PANEL)
    float_vector(sums, all_sums)[:] = ZERO
    own = rows_of_this_thread(rows)
    for first in range(own.start, own.stop, BLOCK):
        count = min(BLOCK, own.stop - first)
        block_x = x + 2 * first * width
        block_dy = dy + 2 * first * outputs
        if dactive != 0:
            swiglu_gradient_rows(block_dy, dactive + first * outputs, count, outputs // 2)
        for index in range(adapter_count):
            adapter = adapters[index]
            own_outputs, own_ranks = adapter.outputs, adapter.padded_rank
            own_dy = block_dy + 2 * adapter.first_output
            own_back = back + 2 * adapter.first_rank
            project_block(own_back, 2 * ranks, own_dy, 2 * outputs, count, own_outputs, adapter.up, own_ranks, tile)
            own_projected = projected + 2 * (first * ranks + adapter.first_rank)
            transpose_block(transposed, own_projected, 2 * ranks, count, own_ranks)
            own_sums = sums + 4 * adapter.first_sum
            own_stride = 4 * rounded_up(own_outputs, PANEL)
            add_outer_product(
                own_sums, own_stride, transposed, own_ranks, own_dy, 2 * outputs, count, own_outputs, strip
            )
        transpose_block(transposed, back, 2 * ranks, count, ranks)
        add_outer_product(sums, 4 * padded_width, transposed, ranks, block_x, 2 * width, count, width, strip)
        if dx != 0:
            quantise_block(block_dy, count, outputs, stride, quantised, row_scales, factors)
            own_residual = residual + 2 * first * width if residual != 0 else 0
            multiply_block(
                dx + 2 * first * width, own_residual, count, width, quantised, stride, row_scales, weight, scales,
                corrections, bias, back, ranks, down, ranges, tile,
            )  # fmt: skip
    _wait_for_all_threads()

    # All threads' sums are the adapters' gradients: dA has the sums' shape, dB that of their transpose.
    first_sums = sums - thread * scratch_bytes
    for index in range(adapter_count):
        adapter = adapters[index]
        add_down_gradient(adapter, first_sums, threads, scratch_bytes, width)
        add_up_gradient(adapter, first_sums, threads, scratch_bytes)


@njit(inline="always")
def pair_of(source: np.ndarray, place: int, other: int, has_other: bool, scale: np.float32) -> np.uint32:
    """Return two scaled numbers as bf16 in a lane; the second is zero where there is none."""
    lane = np.uint32(float_to_bf16(source[place] * scale))
    if has_other:
        lane |= np.uint32(float_to_bf16(source[other] * scale)) << np.uint32(16)
    return lane


@njit(inline="always")
def pack_narrow(
    panels: int,
    ranks: int,
    first: int,
    x: np.ndarray,
    rank: int,
    length: int,
    rank_stride: int,
    stride: int,
    scale: np.float32,
) -> None:
    """Write a factor: (rank, length) so that sums go along its length: panels of the ranks, of which it has some from `first` on."""
    start = first
    while start < first + rank:  # the ranks of one panel at a time
        panel, lane = divmod(start, PANEL)
        width = min(PANEL, ranks - panel * PANEL)
        count = min(width - lane, first + rank - start)
        lanes = carray(to_pointer(panels + 2 * panel * PANEL * length), (length // 2, width), np.uint32)
        for pair in range(length // 2):
            for index in range(count):
                place = (start - first + index) * rank_stride + 2 * pair * stride
                lanes[pair, lane + index] = pair_of(x, place, place + stride, True, scale)
        start += count


@njit(inline="always")
def pack_wide(
    panels: int, ranks: int, first: int, first_column: int, x: np.ndarray, rank: int, length: int, rank_stride: int, stride: int,
    scale: np.float32,
) -> None:  # fmt: skip
    """Write a factor: (rank, length) so that sums go along its ranks: panels of the columns, of which it has some."""
    column = 0
    while column < length:  # the columns of one panel at a time
        panel, lane = divmod(first_column + column, PANEL)
        count = min(PANEL - lane, length - column)
        lanes = carray(to_pointer(panels + STRIDE * (panel * ranks // 2)), (ranks // 2, PANEL), np.uint32)
        for pair in range((rank + 1) // 2):
            has_other = 2 * pair + 1 < rank
            for index in range(count):
                place = 2 * pair * rank_stride + (column + index) * stride
                lanes[first // 2 + pair, lane + index] = pair_of(x, place, place + rank_stride, has_other, scale)
        column += count


@Kernel
def pack_adapters(arguments: int) -> None:
    """Write A and B of adapters as the panels of bf16 that the products read. adapters: a table of FACTORS."""
    adapters_at, count = unpack(arguments, 2)
    adapters = carray(to_pointer(adapters_at), (count,), FACTORS)
    for index in rows_of_this_thread(count):
        each = adapters[index]
        rank, width, outputs, ranks = each.rank, each.width, each.outputs, each.ranks
        scale = np.float32(each.scale)
        a = float_vector(each.a, rank * width)
        b = float_vector(each.b, rank * outputs)
        pack_narrow(each.down, ranks, each.first_rank, a, rank, width, width, 1, scale)
        pack_wide(each.wide_down, ranks, each.first_rank, 0, a, rank, width, width, 1, scale)
        pack_wide(each.wide_up, ranks, each.first_rank, each.first_output, b, rank, outputs, 1, rank, ONE)
        pack_narrow(each.up, each.padded_rank, 0, b, rank, outputs, 1, rank, ONE)
