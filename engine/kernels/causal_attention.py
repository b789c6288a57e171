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
    OPTIONS,
    ZERO,
    Arguments,
    Kernel,
    _thread_number,
    bf16_matrix,
    bf16_numbers,
    bf16_to_float,
    exponential,
    float_to_bf16,
    float_vector,
    to_float,
    to_pointer,
)
from engine.kernels.tiles import LANES, PANEL, ROWS, multiply_tile, pair_rows, rounded_up, take_number, transpose_tile

BLOCK = 64  # rows whose gradients of keys and values are added at once


@njit(**OPTIONS)
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


@njit(**OPTIONS)
def write_turned_back(target: int, x: int, cosines: np.ndarray, sines: np.ndarray) -> None:
    """Write a head: (2 × half,) fp32, turned back by angles, as bf16."""
    half = len(cosines)
    firsts, seconds = float_vector(x, half), float_vector(x + 4 * half, half)
    to_firsts, to_seconds = bf16_numbers(target, 0, half), bf16_numbers(target, half, half)
    for column in range(half):
        first, second = firsts[column], seconds[column]
        to_firsts[column] = float_to_bf16(first * cosines[column] + second * sines[column])
        to_seconds[column] = float_to_bf16(second * cosines[column] - first * sines[column])


@njit(**OPTIONS)
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


@njit(**OPTIONS)
def clear(numbers: int, length: int) -> None:
    """Set fp32 numbers to zero."""
    float_vector(numbers, length)[:] = ZERO


@Kernel
def attend(arguments: Arguments) -> None:
    """(context, logarithms, qkv, starts, cosines, sines, counter, scratch, its bytes per thread, conversations, heads, shared, width,
    scale).

    Turn query and key in place, and write context: (tokens, heads × width) bf16 and logarithms: (tokens, heads) fp32. starts: of each
    conversation and the end of the last one; cosines, sines: (tokens, width / 2) fp32; counter: an int64 that is 0.
    """
    conversations, heads, shared, width = arguments[9], arguments[10], arguments[11], arguments[12]
    scale = to_float(arguments[13])
    starts = carray(to_pointer(arguments[3]), (conversations + 1,), np.int64)
    tokens = starts[conversations]
    logarithms = carray(to_pointer(arguments[1]), (tokens, heads), np.float32)
    cosines = carray(to_pointer(arguments[4]), (tokens, width // 2), np.float32)
    sines = carray(to_pointer(arguments[5]), (tokens, width // 2), np.float32)
    stride, context_stride, group = 2 * (heads + 2 * shared) * width, 2 * heads * width, heads // shared
    keys = arguments[7] + int(_thread_number()) * arguments[8]
    unit = int(take_number(arguments[6]))
    while unit < conversations * shared:
        start = int(starts[unit // shared])
        length = int(starts[unit // shared + 1]) - start
        own = unit % shared
        columns = rounded_up(length, PANEL)
        values = keys + 2 * width * columns
        scores = values + 2 * width * columns
        weights = scores + 4 * ROWS * columns
        sums = weights + 2 * ROWS * columns
        key = arguments[2] + start * stride + 2 * (heads + own) * width
        for row in range(length):
            turn(key + row * stride, cosines[start + row], sines[start + row])
        transpose_lanes(keys, 4 * columns, key, stride, length, width // 2)
        pair_rows(values, 4 * width, key + 2 * shared * width, stride, length, width)
        by_row = carray(to_pointer(scores), (ROWS, columns), np.float32)
        by_row_weights = bf16_matrix(weights, ROWS, columns)
        contexts = carray(to_pointer(sums), (ROWS, width), np.float32)
        for head in range(own * group, (own + 1) * group):
            query = arguments[2] + start * stride + 2 * head * width
            for row in range(length):
                turn(query + row * stride, cosines[start + row], sines[start + row])
            for first in range(0, length, ROWS):
                last = min(ROWS, length - first) - 1
                seen = first + last + 1
                clear(scores, ROWS * columns)
                multiply_tile(
                    scores, 4 * columns, query + first * stride, stride, last, keys, 4 * columns, width // 2, rounded_up(seen, 16)
                )  # fmt: skip
                totals = np.zeros(ROWS, np.float32)
                for row in range(last + 1):
                    own_scores, own_weights = by_row[row], by_row_weights[row]
                    largest = own_scores[0]
                    for column in range(first + row + 1):
                        largest = max(largest, own_scores[column])
                    total = ZERO
                    for column in range(first + row + 1):
                        number = exponential((own_scores[column] - largest) * scale)
                        total += number
                        own_weights[column] = float_to_bf16(number)
                    own_weights[first + row + 1 : seen + 1] = 0
                    totals[row] = ONE / total
                    logarithms[start + first + row, head] = largest * scale + np.log(total)
                clear(sums, ROWS * width)
                multiply_tile(
                    sums, 4 * width, weights, 2 * columns, last, values, 4 * width, (seen + 1) // 2, width
                )  # fmt: skip
                for row in range(last + 1):
                    place = arguments[0] + (start + first + row) * context_stride + 2 * head * width
                    target = bf16_numbers(place, 0, width)
                    for column in range(width):
                        target[column] = float_to_bf16(contexts[row, column] * totals[row])
        unit = int(take_number(arguments[6]))


@Kernel
def attend_gradient(arguments: Arguments) -> None:
    """(dqkv, dcontext, context, logarithms, qkv, starts, cosines, sines, counter, scratch, its bytes per thread, conversations, heads,
    shared, width, scale).

    Write the gradient of what `attend` got as qkv: like it, bf16. qkv: with query and key turned; dcontext: like the context.
    """
    conversations, heads, shared, width = arguments[11], arguments[12], arguments[13], arguments[14]
    scale = to_float(arguments[15])
    starts = carray(to_pointer(arguments[5]), (conversations + 1,), np.int64)
    tokens = starts[conversations]
    logarithms = carray(to_pointer(arguments[3]), (tokens, heads), np.float32)
    cosines = carray(to_pointer(arguments[6]), (tokens, width // 2), np.float32)
    sines = carray(to_pointer(arguments[7]), (tokens, width // 2), np.float32)
    stride, context_stride, group = 2 * (heads + 2 * shared) * width, 2 * heads * width, heads // shared
    keys = arguments[9] + int(_thread_number()) * arguments[10]
    unit = int(take_number(arguments[8]))
    while unit < conversations * shared:
        start = int(starts[unit // shared])
        length = int(starts[unit // shared + 1]) - start
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
        key = arguments[4] + start * stride + 2 * (heads + own) * width
        value = key + 2 * shared * width
        transpose_lanes(keys, 4 * columns, key, stride, length, width // 2)
        transpose_lanes(values, 4 * columns, value, stride, length, width // 2)
        pair_rows(paired_keys, 4 * width, key, stride, length, width)
        clear(dkeys, 2 * width * columns)
        by_row = carray(to_pointer(scores), (ROWS, columns), np.float32)
        slopes_by_row = carray(to_pointer(slopes), (ROWS, columns), np.float32)
        dscores_by_row = bf16_matrix(dscores, ROWS, columns)
        weights_by_row = bf16_matrix(weights, ROWS, columns)
        for head in range(own * group, (own + 1) * group):
            query = arguments[4] + start * stride + 2 * head * width
            dquery = arguments[0] + start * stride + 2 * head * width
            gradient = arguments[1] + start * context_stride + 2 * head * width
            result = arguments[2] + start * context_stride + 2 * head * width
            for block in range(0, length, BLOCK):
                rows = min(BLOCK, length - block)
                for first in range(block, block + rows, ROWS):
                    last = min(ROWS, length - first) - 1
                    seen = first + last + 1
                    wide = rounded_up(seen, 16)
                    clear(scores, 3 * ROWS * columns)
                    multiply_tile(
                        scores, 4 * columns, query + first * stride, stride, last, keys, 4 * columns, width // 2, wide
                    )  # fmt: skip
                    multiply_tile(
                        slopes, 4 * columns, gradient + first * context_stride, context_stride, last, values, 4 * columns,
                        width // 2, wide,
                    )  # fmt: skip
                    for row in range(last + 1):
                        numbers = bf16_numbers(gradient + (first + row) * context_stride, 0, width)
                        others = bf16_numbers(result + (first + row) * context_stride, 0, width)
                        along = ZERO
                        for column in range(width):
                            along += bf16_to_float(numbers[column]) * bf16_to_float(others[column])
                        logarithm = logarithms[start + first + row, head]
                        own_scores, own_slopes = by_row[row], slopes_by_row[row]
                        own_dscores, own_weights = dscores_by_row[row], weights_by_row[row]
                        for column in range(first + row + 1):
                            weight = exponential(own_scores[column] * scale - logarithm)
                            own_weights[column] = float_to_bf16(weight)
                            own_dscores[column] = float_to_bf16(weight * (own_slopes[column] - along) * scale)
                    to = 2 * (first - block)
                    pair_rows(lanes, 4 * columns, weights, 2 * columns, ROWS, wide)
                    transpose_lanes(transposed_weights + to, 2 * BLOCK, lanes, 4 * columns, ROWS // 2, wide)
                    pair_rows(lanes, 4 * columns, dscores, 2 * columns, ROWS, wide)
                    transpose_lanes(transposed_dscores + to, 2 * BLOCK, lanes, 4 * columns, ROWS // 2, wide)
                    clear(dqueries, ROWS * width)
                    multiply_tile(
                        dqueries, 4 * width, dscores, 2 * columns, last, paired_keys, 4 * width, (seen + 1) // 2, width
                    )  # fmt: skip
                    for row in range(last + 1):
                        place = start + first + row
                        write_turned_back(
                            dquery + (first + row) * stride, dqueries + 4 * row * width, cosines[place], sines[place]
                        )  # fmt: skip
                pair_rows(paired_queries, 4 * width, query + block * stride, stride, rows, width)
                pair_rows(paired_gradients, 4 * width, gradient + block * context_stride, context_stride, rows, width)
                for first_key in range(0, block + rows, ROWS):
                    pair = max(0, first_key - block) // 2  # rows before it do not see the key
                    steps = (rows + 1) // 2 - pair
                    place = 2 * (first_key * BLOCK + 2 * pair)
                    multiply_tile(
                        dvalues + 4 * first_key * width, 4 * width, transposed_weights + place, 2 * BLOCK, ROWS - 1,
                        paired_gradients + 4 * pair * width, 4 * width, steps, width,
                    )  # fmt: skip
                    multiply_tile(
                        dkeys + 4 * first_key * width, 4 * width, transposed_dscores + place, 2 * BLOCK, ROWS - 1,
                        paired_queries + 4 * pair * width, 4 * width, steps, width,
                    )  # fmt: skip
        dkey = arguments[0] + start * stride + 2 * (heads + own) * width
        for row in range(length):
            place = dkey + row * stride
            write_turned_back(place, dkeys + 4 * row * width, cosines[start + row], sines[start + row])
            target = bf16_numbers(place + 2 * shared * width, 0, width)
            numbers = float_vector(dvalues + 4 * row * width, width)
            for column in range(width):
                target[column] = float_to_bf16(numbers[column])
        unit = int(take_number(arguments[8]))
