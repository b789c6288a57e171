"""Compiled causal attention within each of several conversations that lie end to end, with rotary positions and its gradient.

    P = softmax(scale · Q Kᵀ)        C = P V
    dV = Pᵀ dC        dS = scale · P (dC Vᵀ - Σ dC C)        dQ = dS K        dK = dSᵀ Q

A thread takes the heads that share a key and value in one conversation, the next as soon as it has finished. P is computed again in the
backward pass, from the logarithm of each row's sum, so nothing is kept that grows with the square of a length.

qkv: (tokens, (heads + 2 × shared) × width) bf16 has query, key and value, of which `shared` heads serve all. Rows of P are computed 8 at
a time, up to the last token that any of them sees.

These are kernels as in engine.kernels.compiled, which says how they work and when they are compiled again.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from engine.kernels.compiled import (
    ONE,
    ZERO,
    Arguments,
    Kernel,
    bf16_matrix,
    bf16_numbers,
    bf16_to_float,
    exponential,
    float_to_bf16,
    float_vector,
    thread_number,
    to_float,
    to_pointer,
)
from engine.kernels.tile_sizes import BLOCK, LANES, PANEL, ROWS
from engine.kernels.tiles import multiply_tile, pair_rows, rounded_up, take_number, transpose_tile

# What both kernels get first, in this order: qkv, starts of each conversation and the end of the last one, cosines and sines: (tokens,
# width / 2) fp32, a counter that is 0, scratch and its bytes per thread, the number of conversations, heads, shared, width, scale, and the
# context: (tokens, heads × width) bf16 with the logarithms: (tokens, heads) fp32 of its sums.


@njit(inline="always")
def turn(x: int, cosines: np.ndarray, sines: np.ndarray) -> None:
    """Turn the pairs of a head's first and second half by angles, in place: (2 × half,) bf16; cosines, sines: (half,)."""
    half = len(cosines)
    firsts = bf16_numbers(x, 0, half)
    seconds = bf16_numbers(x, half, half)
    for column in range(half):
        first = bf16_to_float(firsts[column])
        second = bf16_to_float(seconds[column])
        firsts[column] = float_to_bf16(first * cosines[column] - second * sines[column])
        seconds[column] = float_to_bf16(second * cosines[column] + first * sines[column])


@njit(inline="always")
def write_turned_back(target: int, x: int, cosines: np.ndarray, sines: np.ndarray) -> None:
    """Write a head: (2 × half,) fp32, turned back by angles, as bf16."""
    half = len(cosines)
    firsts, seconds = float_vector(x, half), float_vector(x + 4 * half, half)
    to_firsts, to_seconds = bf16_numbers(target, 0, half), bf16_numbers(target, half, half)
    for column in range(half):
        first, second = firsts[column], seconds[column]
        to_firsts[column] = float_to_bf16(first * cosines[column] + second * sines[column])
        to_seconds[column] = float_to_bf16(second * cosines[column] - first * sines[column])


@njit(inline="always")
def transpose_lanes(target: int, target_stride: int, x: int, stride: int, rows: int, lanes: int) -> None:
    """Write rows of 32-bit lanes as columns; strides are in bytes. The target has room for rows up to a multiple of 4."""
    for row in range(0, rows, 4):
        last = min(4, rows - row) - 1
        for lane in range(0, lanes // LANES * LANES, LANES):
            place = target + lane * target_stride + 4 * row
            transpose_tile(place, target_stride, x + row * stride + 4 * lane, stride, last)
        for lane in range(lanes // LANES * LANES, lanes):
            numbers = carray(to_pointer(target + lane * target_stride + 4 * row), (4,), np.uint32)
            for each in range(last + 1):
                numbers[each] = carray(to_pointer(x + (row + each) * stride), (lanes,), np.uint32)[lane]


@njit(inline="always")
def clear(numbers: int, length: int) -> None:
    """Set fp32 numbers to zero."""
    float_vector(numbers, length)[:] = ZERO


@njit(inline="always")
def turn_rows(x: int, stride: int, cosines: np.ndarray, sines: np.ndarray) -> None:
    """Turn a head's rows, `stride` bytes apart, by the angles of their positions; see `turn`."""
    for row in range(len(cosines)):
        turn(x + row * stride, cosines[row], sines[row])


@njit(inline="always")
def write_rounded(target: int, numbers: np.ndarray, factor: np.float32) -> None:
    """Write fp32 numbers times a factor as bf16."""
    rounded = bf16_numbers(target, 0, len(numbers))
    for column in range(len(numbers)):
        rounded[column] = float_to_bf16(numbers[column] * factor)


@njit(inline="always")
def write_exponentials(
    weights: np.ndarray, scores: np.ndarray, seen: int, scale: np.float32
) -> tuple[np.float32, np.float32]:
    """Write the numerators of a row's softmax for what it sees, as bf16; return its denominator and the logarithm of the sum."""
    largest = scores[0]
    for column in range(seen):
        largest = max(largest, scores[column])
    total = ZERO
    for column in range(seen):
        number = exponential((scores[column] - largest) * scale)
        total += number
        weights[column] = float_to_bf16(number)
    return total, largest * scale + np.log(total)


@njit(inline="always")
def write_score_gradients(
    weights: np.ndarray, dscores: np.ndarray, scores: np.ndarray, slopes: np.ndarray, logarithm: np.float32, along: np.float32,
    seen: int, scale: np.float32,
) -> None:  # fmt: skip
    """Write a row of P and of dS as bf16, for what it sees. slopes: dC Vᵀ; along: Σ dC C."""
    for column in range(seen):
        weight = exponential(scores[column] * scale - logarithm)
        weights[column] = float_to_bf16(weight)
        dscores[column] = float_to_bf16(weight * (slopes[column] - along) * scale)


@njit(inline="always")
def sum_of_products(x: int, other: int, width: int) -> np.float32:
    """Return the product of two rows of bf16."""
    numbers, others = bf16_numbers(x, 0, width), bf16_numbers(other, 0, width)
    total = ZERO
    for column in range(width):
        total += bf16_to_float(numbers[column]) * bf16_to_float(others[column])
    return total


@njit(inline="always")
def transpose_tile_rows(target: int, x: int, columns: int, wide: int, lanes: int) -> None:
    """Write a tile's rows of bf16, of which `wide` columns count, as columns of a block: (columns, BLOCK). lanes: room."""
    pair_rows(lanes, 4 * columns, x, 2 * columns, ROWS, wide)
    transpose_lanes(target, 2 * BLOCK, lanes, 4 * columns, ROWS // 2, wide)


@njit(inline="always")
def add_to_keys(sums: int, transposed: int, paired: int, block: int, rows: int, width: int) -> None:
    """Add a block's part to the gradients of keys, or of values: (keys, width) fp32, for the keys that its rows see."""
    for first_key in range(0, block + rows, ROWS):
        pair = max(0, first_key - block) // 2  # rows before it do not see the key
        multiply_tile(
            sums + 4 * first_key * width, 4 * width, transposed + 2 * (first_key * BLOCK + 2 * pair), 2 * BLOCK, ROWS - 1,
            paired + 4 * pair * width, 4 * width, (rows + 1) // 2 - pair, width,
        )  # fmt: skip


@Kernel
def attend(arguments: Arguments) -> None:
    """(what both kernels get): turn query and key in place, and write the context and the logarithms."""
    conversations, heads, shared, width = arguments[7], arguments[8], arguments[9], arguments[10]
    scale = to_float(arguments[11])
    starts = carray(to_pointer(arguments[1]), (conversations + 1,), np.int64)
    tokens = starts[conversations]
    all_cosines = carray(to_pointer(arguments[2]), (tokens, width // 2), np.float32)
    all_sines = carray(to_pointer(arguments[3]), (tokens, width // 2), np.float32)
    logarithms = carray(to_pointer(arguments[13]), (tokens, heads), np.float32)
    stride, context_stride, group = 2 * (heads + 2 * shared) * width, 2 * heads * width, heads // shared
    keys = arguments[5] + int(thread_number()) * arguments[6]
    unit = int(take_number(arguments[4]))
    while unit < conversations * shared:
        start = int(starts[unit // shared])
        length = int(starts[unit // shared + 1]) - start
        cosines, sines = all_cosines[start : start + length], all_sines[start : start + length]
        own = unit % shared
        columns = rounded_up(length, PANEL)
        values = keys + 2 * width * columns
        scores = values + 2 * width * columns
        weights = scores + 4 * ROWS * columns
        sums = weights + 2 * ROWS * columns
        key = arguments[0] + start * stride + 2 * (heads + own) * width
        turn_rows(key, stride, cosines, sines)
        transpose_lanes(keys, 4 * columns, key, stride, length, width // 2)
        pair_rows(values, 4 * width, key + 2 * shared * width, stride, length, width)
        scores_by_row = carray(to_pointer(scores), (ROWS, columns), np.float32)
        weights_by_row = bf16_matrix(weights, ROWS, columns)
        contexts = carray(to_pointer(sums), (ROWS, width), np.float32)
        totals = np.zeros(ROWS, np.float32)
        for head in range(own * group, (own + 1) * group):
            query = arguments[0] + start * stride + 2 * head * width
            context = arguments[12] + start * context_stride + 2 * head * width
            turn_rows(query, stride, cosines, sines)
            for first in range(0, length, ROWS):
                last = min(ROWS, length - first) - 1
                seen = first + last + 1  # by the last row
                clear(scores, ROWS * columns)
                multiply_tile(
                    scores, 4 * columns, query + first * stride, stride, last, keys, 4 * columns, width // 2, rounded_up(seen, 16)
                )  # fmt: skip
                for row in range(last + 1):
                    own_seen = first + row + 1
                    totals[row], logarithms[start + first + row, head] = write_exponentials(
                        weights_by_row[row], scores_by_row[row], own_seen, scale
                    )
                    weights_by_row[row][own_seen : seen + 1] = 0
                clear(sums, ROWS * width)
                multiply_tile(
                    sums, 4 * width, weights, 2 * columns, last, values, 4 * width, (seen + 1) // 2, width
                )  # fmt: skip
                for row in range(last + 1):
                    write_rounded(context + (first + row) * context_stride, contexts[row], ONE / totals[row])
        unit = int(take_number(arguments[4]))


@Kernel
def attend_gradient(arguments: Arguments) -> None:
    """(what both kernels get, dcontext, dqkv): write the gradient of what `attend` got as qkv: like it, bf16.

    qkv: with query and key turned; dcontext: like the context.
    """
    conversations, heads, shared, width = arguments[7], arguments[8], arguments[9], arguments[10]
    scale = to_float(arguments[11])
    starts = carray(to_pointer(arguments[1]), (conversations + 1,), np.int64)
    tokens = starts[conversations]
    all_cosines = carray(to_pointer(arguments[2]), (tokens, width // 2), np.float32)
    all_sines = carray(to_pointer(arguments[3]), (tokens, width // 2), np.float32)
    logarithms = carray(to_pointer(arguments[13]), (tokens, heads), np.float32)
    stride, context_stride, group = 2 * (heads + 2 * shared) * width, 2 * heads * width, heads // shared
    keys = arguments[5] + int(thread_number()) * arguments[6]
    unit = int(take_number(arguments[4]))
    while unit < conversations * shared:
        start = int(starts[unit // shared])
        length = int(starts[unit // shared + 1]) - start
        cosines, sines = all_cosines[start : start + length], all_sines[start : start + length]
        own = unit % shared
        columns = rounded_up(length, PANEL)
        values = keys + 2 * width * columns
        paired_keys = values + 2 * width * columns
        dkeys = paired_keys + 2 * width * columns
        dvalues = dkeys + 4 * width * columns
        scores = dvalues + 4 * width * columns
        slopes = scores + 4 * ROWS * columns
        dscores = slopes + 4 * ROWS * columns
        weights = dscores + 2 * ROWS * columns
        lanes = weights + 2 * ROWS * columns
        dqueries = lanes + 2 * ROWS * columns
        paired_queries = dqueries + 4 * ROWS * width
        paired_gradients = paired_queries + 2 * BLOCK * width
        transposed_weights = paired_gradients + 2 * BLOCK * width
        transposed_dscores = transposed_weights + 2 * BLOCK * columns
        key = arguments[0] + start * stride + 2 * (heads + own) * width
        transpose_lanes(keys, 4 * columns, key, stride, length, width // 2)
        transpose_lanes(values, 4 * columns, key + 2 * shared * width, stride, length, width // 2)
        pair_rows(paired_keys, 4 * width, key, stride, length, width)
        clear(dkeys, 2 * width * columns)  # and dvalues behind them
        scores_by_row = carray(to_pointer(scores), (ROWS, columns), np.float32)
        slopes_by_row = carray(to_pointer(slopes), (ROWS, columns), np.float32)
        dscores_by_row = bf16_matrix(dscores, ROWS, columns)
        weights_by_row = bf16_matrix(weights, ROWS, columns)
        for head in range(own * group, (own + 1) * group):
            query = arguments[0] + start * stride + 2 * head * width
            dquery = arguments[15] + start * stride + 2 * head * width
            context = arguments[12] + start * context_stride + 2 * head * width
            gradient = arguments[14] + start * context_stride + 2 * head * width
            for block in range(0, length, BLOCK):
                rows = min(BLOCK, length - block)
                for first in range(block, block + rows, ROWS):
                    last = min(ROWS, length - first) - 1
                    seen = first + last + 1  # by the last row
                    wide = rounded_up(seen, 16)
                    place = first * context_stride
                    clear(scores, 3 * ROWS * columns)  # and slopes, dscores and weights behind them
                    multiply_tile(
                        scores, 4 * columns, query + first * stride, stride, last, keys, 4 * columns, width // 2, wide
                    )  # fmt: skip
                    multiply_tile(
                        slopes, 4 * columns, gradient + place, context_stride, last, values, 4 * columns, width // 2, wide
                    )  # fmt: skip
                    for row in range(last + 1):
                        own_place = place + row * context_stride
                        write_score_gradients(
                            weights_by_row[row], dscores_by_row[row], scores_by_row[row], slopes_by_row[row],
                            logarithms[start + first + row, head],
                            sum_of_products(gradient + own_place, context + own_place, width), first + row + 1, scale,
                        )  # fmt: skip
                    to = 2 * (first - block)
                    transpose_tile_rows(transposed_weights + to, weights, columns, wide, lanes)
                    transpose_tile_rows(transposed_dscores + to, dscores, columns, wide, lanes)
                    clear(dqueries, ROWS * width)
                    multiply_tile(
                        dqueries, 4 * width, dscores, 2 * columns, last, paired_keys, 4 * width, (seen + 1) // 2, width
                    )  # fmt: skip
                    for row in range(last + 1):
                        target = dquery + (first + row) * stride
                        write_turned_back(target, dqueries + 4 * row * width, cosines[first + row], sines[first + row])
                pair_rows(paired_queries, 4 * width, query + block * stride, stride, rows, width)
                pair_rows(paired_gradients, 4 * width, gradient + block * context_stride, context_stride, rows, width)
                add_to_keys(dvalues, transposed_weights, paired_gradients, block, rows, width)
                add_to_keys(dkeys, transposed_dscores, paired_queries, block, rows, width)
        dkey = arguments[15] + start * stride + 2 * (heads + own) * width
        for row in range(length):
            write_turned_back(dkey + row * stride, dkeys + 4 * row * width, cosines[row], sines[row])
            dvalue = dkey + row * stride + 2 * shared * width
            write_rounded(dvalue, float_vector(dvalues + 4 * row * width, width), ONE)
        unit = int(take_number(arguments[4]))
