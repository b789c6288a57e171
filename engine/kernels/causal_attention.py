"""Compiled causal attention within each of several conversations that lie end to end, with rotary positions and its gradient.

    P = softmax(scale · Q Kᵀ)        C = P V
    dV = Pᵀ dC        dS = scale · P (dC Vᵀ - Σ dC C)        dQ = dS K        dK = dSᵀ Q

A thread takes the heads that share a key and value in one conversation, the next as soon as it has finished. P is computed again in the
backward pass, from the logarithm of each row's sum, so nothing is kept that grows with the square of a length.

qkv: (tokens, (heads + 2 × shared) × width) bf16 has query, key and value, of which `shared` heads serve all; the context is (tokens,
heads × width) bf16, and logarithms: (tokens, heads) fp32 are those of its sums. starts has the first token of each conversation and the end
of the last one; cosines and sines are (tokens, width / 2) fp32. Rows of P are computed 8 at a time, up to the last token that any of them
sees.

These are kernels as in engine.kernels.compiled, which says how they work and when they are compiled again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, njit

from engine.kernels.compiled import (
    ONE,
    ZERO,
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
    unpack,
)
from engine.kernels.tile_sizes import BLOCK, LANES, PANEL, ROWS
from engine.kernels.tiles import multiply_tile, pair_rows, rounded_up, take_number, transpose_tile


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


class Call(NamedTuple):
    """What both kernels get first; addresses, where nothing else is said."""

    qkv: int
    starts: int
    cosines: int
    sines: int
    counter: int  # of a number that is 0
    scratch: int
    scratch_bytes: int  # for each thread
    conversations: int  # numbers
    heads: int
    shared: int
    width: int
    scale: int  # the bits of a float
    contexts: int
    logarithms: int


class Unit(NamedTuple):
    """The heads that share a key and value in one conversation."""

    start: int  # token
    length: int  # tokens
    columns: int  # of P: the length, rounded up to whole panels
    first_head: int
    last_head: int  # the first one that is not of the unit
    key: int  # address of its first row; those of values are `shared` heads behind it
    cosines: np.ndarray  # (length, width / 2)
    sines: np.ndarray
    logarithms: np.ndarray  # (length, all heads)


CALL_FIELDS = len(Call._fields)


@njit(inline="always")
def unit_of(call: Call, number: int, stride: int) -> Unit:
    """Return a unit by its number. stride: bytes from a token of qkv to the next."""
    starts = carray(to_pointer(call.starts), (call.conversations + 1,), np.int64)
    conversation, own = number // call.shared, number % call.shared
    start, end = int(starts[conversation]), int(starts[conversation + 1])
    shape, group = (starts[call.conversations], call.width // 2), call.heads // call.shared
    logarithms = carray(to_pointer(call.logarithms), (shape[0], call.heads), np.float32)
    return Unit(
        start,
        end - start,
        rounded_up(end - start, PANEL),
        own * group,
        (own + 1) * group,
        call.qkv + start * stride + 2 * (call.heads + own) * call.width,
        carray(to_pointer(call.cosines), shape, np.float32)[start:end],
        carray(to_pointer(call.sines), shape, np.float32)[start:end],
        logarithms[start:end],
    )


class Room(NamedTuple):
    """Addresses of what a thread keeps of a unit in `attend`, in the order in which they lie."""

    keys: int  # panels for products with queries: (width / 2, columns) pairs
    values: int  # panels for products with P: (columns / 2, width) pairs
    scores: int  # (ROWS, columns) fp32
    weights: int  # (ROWS, columns) bf16
    sums: int  # (ROWS, width) fp32


@njit(inline="always")
def room_of(scratch: int, columns: int, width: int) -> Room:
    """Return where a thread keeps what; engine.kernels.decoder says how much it is."""
    values = scratch + 2 * width * columns
    scores = values + 2 * width * columns
    weights = scores + 4 * ROWS * columns
    return Room(scratch, values, scores, weights, weights + 2 * ROWS * columns)


@njit(inline="always")
def attend_tile(
    unit: Unit, room: Room, first: int, head: int, query: int, stride: int, context: int, context_stride: int, width: int,
    scale: np.float32,
) -> None:  # fmt: skip
    """Write the context of up to ROWS tokens of a head, from the unit's `first` one on, and the logarithms of their sums."""
    columns = unit.columns
    last = min(ROWS, unit.length - first) - 1
    seen = first + last + 1  # by the last row
    scores = carray(to_pointer(room.scores), (ROWS, columns), np.float32)
    weights = bf16_matrix(room.weights, ROWS, columns)
    sums = carray(to_pointer(room.sums), (ROWS, width), np.float32)
    totals = np.zeros(ROWS, np.float32)
    clear(room.scores, ROWS * columns)
    multiply_tile(
        room.scores, 4 * columns, query + first * stride, stride, last, room.keys, 4 * columns, width // 2, rounded_up(seen, 16)
    )  # fmt: skip
    for row in range(last + 1):
        own_seen = first + row + 1
        totals[row], unit.logarithms[first + row, head] = write_exponentials(weights[row], scores[row], own_seen, scale)
        weights[row][own_seen : seen + 1] = 0
    clear(room.sums, ROWS * width)
    multiply_tile(room.sums, 4 * width, room.weights, 2 * columns, last, room.values, 4 * width, (seen + 1) // 2, width)
    for row in range(last + 1):
        write_rounded(context + (first + row) * context_stride, sums[row], ONE / totals[row])


@Kernel
def attend(arguments: int) -> None:
    """Turn query and key in place, and write the context and the logarithms."""
    call = Call(*unpack(arguments, CALL_FIELDS))
    width, scale = call.width, to_float(call.scale)
    stride, context_stride = 2 * (call.heads + 2 * call.shared) * width, 2 * call.heads * width
    scratch = call.scratch + int(thread_number()) * call.scratch_bytes
    number = int(take_number(call.counter))
    while number < call.conversations * call.shared:
        unit = unit_of(call, number, stride)
        room = room_of(scratch, unit.columns, width)
        turn_rows(unit.key, stride, unit.cosines, unit.sines)
        transpose_lanes(room.keys, 4 * unit.columns, unit.key, stride, unit.length, width // 2)
        pair_rows(room.values, 4 * width, unit.key + 2 * call.shared * width, stride, unit.length, width)
        for head in range(unit.first_head, unit.last_head):
            query = call.qkv + unit.start * stride + 2 * head * width
            context = call.contexts + unit.start * context_stride + 2 * head * width
            turn_rows(query, stride, unit.cosines, unit.sines)
            for first in range(0, unit.length, ROWS):
                attend_tile(unit, room, first, head, query, stride, context, context_stride, width, scale)
        number = int(take_number(call.counter))


class GradientRoom(NamedTuple):
    """Addresses of what a thread keeps of a unit in `attend_gradient`, in the order in which they lie."""

    keys: int  # panels for products with queries, as in Room
    values: int  # the same of values, for products with the context's gradient
    paired_keys: int  # panels for products with dS
    dkeys: int  # (columns, width) fp32
    dvalues: int
    scores: int  # (ROWS, columns) fp32
    slopes: int  # dC Vᵀ, like the scores
    dscores: int  # dS: (ROWS, columns) bf16
    weights: int  # P, like dS
    lanes: int  # room to transpose a tile
    dqueries: int  # (ROWS, width) fp32
    paired_queries: int  # panels of a block of queries, and of the context's gradient
    paired_gradients: int
    transposed_weights: int  # (columns, BLOCK) bf16
    transposed_dscores: int


@njit(inline="always")
def gradient_room_of(scratch: int, columns: int, width: int) -> GradientRoom:
    """Return where a thread keeps what; engine.kernels.decoder says how much it is."""
    values = scratch + 2 * width * columns
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
    return GradientRoom(
        scratch, values, paired_keys, dkeys, dvalues, scores, slopes, dscores, weights, lanes, dqueries, paired_queries,
        paired_gradients, transposed_weights, transposed_dscores,
    )  # fmt: skip


@njit(inline="always")
def differentiate_tile(
    unit: Unit, room: GradientRoom, first: int, head: int, query: int, dquery: int, stride: int, context: int, gradient: int,
    context_stride: int, width: int, scale: np.float32,
) -> None:  # fmt: skip
    """Write the gradient of up to ROWS queries of a head, and what those of keys and values need of them: P and dS, transposed."""
    columns = unit.columns
    last = min(ROWS, unit.length - first) - 1
    seen = first + last + 1  # by the last row
    wide = rounded_up(seen, 16)
    scores = carray(to_pointer(room.scores), (ROWS, columns), np.float32)
    slopes = carray(to_pointer(room.slopes), (ROWS, columns), np.float32)
    dscores = bf16_matrix(room.dscores, ROWS, columns)
    weights = bf16_matrix(room.weights, ROWS, columns)
    clear(room.scores, 3 * ROWS * columns)  # and slopes, dscores and weights behind them
    multiply_tile(
        room.scores, 4 * columns, query + first * stride, stride, last, room.keys, 4 * columns, width // 2, wide
    )
    multiply_tile(
        room.slopes, 4 * columns, gradient + first * context_stride, context_stride, last, room.values, 4 * columns,
        width // 2, wide,
    )  # fmt: skip
    for row in range(last + 1):
        place = (first + row) * context_stride
        along = sum_of_products(gradient + place, context + place, width)
        write_score_gradients(
            weights[row], dscores[row], scores[row], slopes[row], unit.logarithms[first + row, head], along, first + row + 1, scale
        )  # fmt: skip
    to = 2 * (first % BLOCK)
    transpose_tile_rows(room.transposed_weights + to, room.weights, columns, wide, room.lanes)
    transpose_tile_rows(room.transposed_dscores + to, room.dscores, columns, wide, room.lanes)
    clear(room.dqueries, ROWS * width)
    multiply_tile(
        room.dqueries, 4 * width, room.dscores, 2 * columns, last, room.paired_keys, 4 * width, (seen + 1) // 2, width
    )
    for row in range(last + 1):
        target = dquery + (first + row) * stride
        write_turned_back(target, room.dqueries + 4 * row * width, unit.cosines[first + row], unit.sines[first + row])


@njit(inline="always")
def write_key_gradients(unit: Unit, room: GradientRoom, dkey: int, dvalue: int, stride: int, width: int) -> None:
    """Write the gradients of a unit's keys, turned back, and of its values."""
    for row in range(unit.length):
        write_turned_back(dkey + row * stride, room.dkeys + 4 * row * width, unit.cosines[row], unit.sines[row])
        write_rounded(dvalue + row * stride, float_vector(room.dvalues + 4 * row * width, width), ONE)


@Kernel
def attend_gradient(arguments: int) -> None:
    """Write the gradient of what `attend` got as qkv. Here qkv has query and key turned; dcontexts is like the contexts."""
    call = Call(*unpack(arguments, CALL_FIELDS))
    dcontexts, dqkv = unpack(arguments + 8 * CALL_FIELDS, 2)
    width, scale = call.width, to_float(call.scale)
    to_values = 2 * call.shared * width  # bytes from a key to its value
    stride, context_stride = 2 * (call.heads + 2 * call.shared) * width, 2 * call.heads * width
    scratch = call.scratch + int(thread_number()) * call.scratch_bytes
    number = int(take_number(call.counter))
    while number < call.conversations * call.shared:
        unit = unit_of(call, number, stride)
        room = gradient_room_of(scratch, unit.columns, width)
        transpose_lanes(room.keys, 4 * unit.columns, unit.key, stride, unit.length, width // 2)
        transpose_lanes(room.values, 4 * unit.columns, unit.key + to_values, stride, unit.length, width // 2)
        pair_rows(room.paired_keys, 4 * width, unit.key, stride, unit.length, width)
        clear(room.dkeys, 2 * width * unit.columns)  # and dvalues behind them
        for head in range(unit.first_head, unit.last_head):
            place = unit.start * stride + 2 * head * width
            query, dquery = call.qkv + place, dqkv + place
            context_place = unit.start * context_stride + 2 * head * width
            context, gradient = call.contexts + context_place, dcontexts + context_place
            for block in range(0, unit.length, BLOCK):
                rows = min(BLOCK, unit.length - block)
                for first in range(block, block + rows, ROWS):
                    differentiate_tile(
                        unit, room, first, head, query, dquery, stride, context, gradient, context_stride, width, scale
                    )  # fmt: skip
                pair_rows(room.paired_queries, 4 * width, query + block * stride, stride, rows, width)
                pair_rows(
                    room.paired_gradients, 4 * width, gradient + block * context_stride, context_stride, rows, width
                )
                add_to_keys(room.dvalues, room.transposed_weights, room.paired_gradients, block, rows, width)
                add_to_keys(room.dkeys, room.transposed_dscores, room.paired_queries, block, rows, width)
        dkey = unit.key - call.qkv + dqkv
        write_key_gradients(unit, room, dkey, dkey + to_values, stride, width)
        number = int(take_number(call.counter))
