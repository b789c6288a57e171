"""Compiled causal attention within each of several conversations that lie end to end, with rotary positions and its gradient.

    P = softmax(scale · Q Kᵀ)        C = P V
    dV = Pᵀ dC        dS = scale · P (dC Vᵀ - Σ dC C)        dQ = dS K        dK = dSᵀ Q

A thread takes the heads that share a key and value in one conversation, the next as soon as it has finished. P is computed again in the
backward pass, from the logarithm of each row's sum, so nothing is kept that grows with the square of a length. Rows of P are computed 8 at
a time, up to the last token that any of them sees.

Conversations may share the computed tokens that they begin with, see engine.kernels.packed_layout. `computed` has the computed token of
each token, and starts the first token of each conversation and the end of the last one. The tokens of a conversation before its `first` one
are those of another, which computes their context; here they are keys alone.

qkv: (computed tokens, (heads + 2 × shared) × width) bf16 has query, key and value, of which `shared` heads serve all; the context is
(computed tokens, heads × width) bf16, and logarithms: (computed tokens, heads) fp32 are those of its sums; cosines and sines are (computed
tokens, width / 2) fp32.

These are kernels as in engine.kernels.compiled, which says how they work and when they are compiled again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, njit

from engine.kernels.attention_rows import (
    clear,
    gather,
    gather_turned,
    sum_of_products,
    transpose_lanes,
    transpose_tile_rows,
    write_rounded,
    write_turned_back,
)
from engine.kernels.compiled import (
    ONE,
    ZERO,
    Kernel,
    bf16_matrix,
    exponential,
    float_to_bf16,
    float_vector,
    thread_number,
    to_float,
    to_pointer,
    unpack,
)
from engine.kernels.tile_sizes import BLOCK, PANEL, ROWS
from engine.kernels.tiles import multiply_tile, pair_rows, rounded_up, take_number


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
    computed: int
    firsts: int  # of each conversation
    cosines: int
    sines: int
    counter: int  # of a number that is 0
    scratch: int
    scratch_bytes: int  # for each thread
    conversations: int  # numbers
    tokens: int  # computed ones
    heads: int
    shared: int
    width: int
    scale: int  # the bits of a float
    contexts: int
    logarithms: int


class Unit(NamedTuple):
    """The heads that share a key and value in one conversation."""

    start: int  # token
    tokens: np.ndarray  # (length,), the computed ones
    length: int  # tokens
    first: int  # of those whose context is computed
    columns: int  # of P: the length, rounded up to whole panels
    first_head: int
    last_head: int  # the first one that is not of the unit
    key: int  # address of that of the first computed token; those of values are `shared` heads behind it
    cosines: np.ndarray  # (computed tokens, width / 2)
    sines: np.ndarray
    logarithms: np.ndarray  # (computed tokens, all heads)


CALL_FIELDS = len(Call._fields)


@njit(inline="always")
def unit_of(call: Call, number: int) -> Unit:
    """Return a unit by its number."""
    starts = carray(to_pointer(call.starts), (call.conversations + 1,), np.int64)
    conversation, own = number // call.shared, number % call.shared
    start, end = int(starts[conversation]), int(starts[conversation + 1])
    shape, group = (call.tokens, call.width // 2), call.heads // call.shared
    return Unit(
        start,
        carray(to_pointer(call.computed + 8 * start), (end - start,), np.int64),
        end - start,
        int(carray(to_pointer(call.firsts), (call.conversations,), np.int64)[conversation]),
        rounded_up(end - start, PANEL),
        own * group,
        (own + 1) * group,
        call.qkv + 2 * (call.heads + own) * call.width,
        carray(to_pointer(call.cosines), shape, np.float32),
        carray(to_pointer(call.sines), shape, np.float32),
        carray(to_pointer(call.logarithms), (call.tokens, call.heads), np.float32),
    )


class Room(NamedTuple):
    """Addresses of what a thread keeps of a unit in `attend`, in the order in which they lie."""

    keys: int  # panels for products with queries: (width / 2, columns) pairs
    values: int  # panels for products with P: (columns / 2, width) pairs
    gathered: int  # keys or values: (columns, width) bf16
    scores: int  # (ROWS, columns) fp32
    weights: int  # (ROWS, columns) bf16
    sums: int  # (ROWS, width) fp32
    queries: int  # (ROWS, width) bf16


@njit(inline="always")
def room_of(scratch: int, columns: int, width: int) -> Room:
    """Return where a thread keeps what; engine.kernels.decoder says how much it is."""
    values = scratch + 2 * width * columns
    gathered = values + 2 * width * columns
    scores = gathered + 2 * width * columns
    weights = scores + 4 * ROWS * columns
    sums = weights + 2 * ROWS * columns
    return Room(scratch, values, gathered, scores, weights, sums, sums + 4 * ROWS * width)


@njit(inline="always")
def attend_tile(
    unit: Unit, room: Room, first: int, head: int, query: int, stride: int, context: int, context_stride: int, width: int,
    scale: np.float32,
) -> None:  # fmt: skip
    """Write the context of up to ROWS tokens of a head, from the unit's `first` one on, and the logarithms of their sums.

    query, context: addresses of the head in the first computed token.
    """
    columns = unit.columns
    tokens = unit.tokens[first : min(first + ROWS, unit.length)]
    last = len(tokens) - 1
    seen = first + last + 1  # by the last row
    scores = carray(to_pointer(room.scores), (ROWS, columns), np.float32)
    weights = bf16_matrix(room.weights, ROWS, columns)
    sums = carray(to_pointer(room.sums), (ROWS, width), np.float32)
    totals = np.zeros(ROWS, np.float32)
    gather_turned(room.queries, query, stride, tokens, unit.cosines, unit.sines)
    clear(room.scores, ROWS * columns)
    multiply_tile(
        room.scores, 4 * columns, room.queries, 2 * width, last, room.keys, 4 * columns, width // 2, rounded_up(seen, 16)
    )  # fmt: skip
    for row in range(last + 1):
        own_seen = first + row + 1
        totals[row], logarithm = write_exponentials(weights[row], scores[row], own_seen, scale)
        weights[row][own_seen : seen + 1] = 0
        if own_seen > unit.first:
            unit.logarithms[tokens[row], head] = logarithm
    clear(room.sums, ROWS * width)
    multiply_tile(room.sums, 4 * width, room.weights, 2 * columns, last, room.values, 4 * width, (seen + 1) // 2, width)
    for row in range(max(0, unit.first - first), last + 1):
        write_rounded(context + tokens[row] * context_stride, sums[row], ONE / totals[row])


@Kernel
def attend(arguments: int) -> None:
    """Write the context and the logarithms."""
    call = Call(*unpack(arguments, CALL_FIELDS))
    width, scale = call.width, to_float(call.scale)
    stride, context_stride = 2 * (call.heads + 2 * call.shared) * width, 2 * call.heads * width
    scratch = call.scratch + int(thread_number()) * call.scratch_bytes
    number = int(take_number(call.counter))
    while number < call.conversations * call.shared:
        unit = unit_of(call, number)
        room = room_of(scratch, unit.columns, width)
        gather_turned(room.gathered, unit.key, stride, unit.tokens, unit.cosines, unit.sines)
        transpose_lanes(room.keys, 4 * unit.columns, room.gathered, 2 * width, unit.length, width // 2)
        gather(room.gathered, unit.key + 2 * call.shared * width, stride, unit.tokens, width)
        pair_rows(room.values, 4 * width, room.gathered, 2 * width, unit.length, width)
        for head in range(unit.first_head, unit.last_head):
            query, context = call.qkv + 2 * head * width, call.contexts + 2 * head * width
            for first in range(unit.first // ROWS * ROWS, unit.length, ROWS):
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
    gathered: int  # keys or values: (columns, width) bf16
    dqueries: int  # (ROWS, width) fp32
    queries: int  # of a block: (BLOCK, width) bf16
    gradients: int  # of the context of a block, like the queries
    contexts: int  # of a block, like the queries
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
    gathered = lanes + 2 * ROWS * columns
    dqueries = gathered + 2 * width * columns
    queries = dqueries + 4 * ROWS * width
    gradients = queries + 2 * BLOCK * width
    contexts = gradients + 2 * BLOCK * width
    paired_queries = contexts + 2 * BLOCK * width
    paired_gradients = paired_queries + 2 * BLOCK * width
    transposed_weights = paired_gradients + 2 * BLOCK * width
    transposed_dscores = transposed_weights + 2 * BLOCK * columns
    return GradientRoom(
        scratch, values, paired_keys, dkeys, dvalues, scores, slopes, dscores, weights, lanes, gathered, dqueries,
        queries, gradients, contexts, paired_queries, paired_gradients, transposed_weights, transposed_dscores,
    )  # fmt: skip


@njit(inline="always")
def differentiate_tile(
    unit: Unit,
    room: GradientRoom,
    block: int,
    first: int,
    head: int,
    dquery: int,
    stride: int,
    width: int,
    scale: np.float32,
) -> None:
    """Write the gradient of up to ROWS queries of a head, and what those of keys and values need of them: P and dS, transposed.

    block: the first token of the block, of which the room has queries, contexts and their gradients. dquery: address of the head in
    the gradient of the first computed token.
    """
    columns = unit.columns
    tokens = unit.tokens[first : min(first + ROWS, unit.length)]
    last = len(tokens) - 1
    seen = first + last + 1  # by the last row
    wide = rounded_up(seen, 16)
    place = 2 * (first - block) * width
    scores = carray(to_pointer(room.scores), (ROWS, columns), np.float32)
    slopes = carray(to_pointer(room.slopes), (ROWS, columns), np.float32)
    dscores = bf16_matrix(room.dscores, ROWS, columns)
    weights = bf16_matrix(room.weights, ROWS, columns)
    clear(room.scores, 3 * ROWS * columns)  # and slopes, dscores and weights behind them
    multiply_tile(
        room.scores, 4 * columns, room.queries + place, 2 * width, last, room.keys, 4 * columns, width // 2, wide
    )
    multiply_tile(
        room.slopes, 4 * columns, room.gradients + place, 2 * width, last, room.values, 4 * columns, width // 2, wide
    )
    own_rows = range(max(0, unit.first - first), last + 1)
    for row in own_rows:
        row_place = place + 2 * row * width
        along = sum_of_products(room.gradients + row_place, room.contexts + row_place, width)
        logarithm = unit.logarithms[tokens[row], head]
        write_score_gradients(
            weights[row], dscores[row], scores[row], slopes[row], logarithm, along, first + row + 1, scale
        )
    to = 2 * (first - block)
    transpose_tile_rows(room.transposed_weights + to, room.weights, columns, wide, room.lanes)
    transpose_tile_rows(room.transposed_dscores + to, room.dscores, columns, wide, room.lanes)
    clear(room.dqueries, ROWS * width)
    multiply_tile(
        room.dqueries, 4 * width, room.dscores, 2 * columns, last, room.paired_keys, 4 * width, (seen + 1) // 2, width
    )
    for row in own_rows:
        token = tokens[row]
        target = dquery + token * stride
        write_turned_back(target, room.dqueries + 4 * row * width, unit.cosines[token], unit.sines[token])


@njit(inline="always")
def write_key_gradients(unit: Unit, room: GradientRoom, dkey: int, dvalue: int, stride: int, width: int) -> None:
    """Write the gradients of a unit's keys, turned back, and of its values. dkey, dvalue: addresses of those of its first token."""
    for row in range(unit.length):
        token = unit.tokens[row]
        write_turned_back(dkey + row * stride, room.dkeys + 4 * row * width, unit.cosines[token], unit.sines[token])
        write_rounded(dvalue + row * stride, float_vector(room.dvalues + 4 * row * width, width), ONE)


@Kernel
def attend_gradient(arguments: int) -> None:
    """Write the gradient of what `attend` got as qkv. dcontexts is like the contexts.

    The gradients of queries are written into dqkv. Those of keys and values are those of all tokens, for the caller to sum up where
    they share a computed one: dkv has both for each token, dkv_stride bytes apart.
    """
    call = Call(*unpack(arguments, CALL_FIELDS))
    dcontexts, dqkv, dkv, dkv_stride = unpack(arguments + 8 * CALL_FIELDS, 4)
    width, scale = call.width, to_float(call.scale)
    to_values = 2 * call.shared * width  # bytes from a key to its value
    stride, context_stride = 2 * (call.heads + 2 * call.shared) * width, 2 * call.heads * width
    scratch = call.scratch + int(thread_number()) * call.scratch_bytes
    number = int(take_number(call.counter))
    while number < call.conversations * call.shared:
        unit = unit_of(call, number)
        room = gradient_room_of(scratch, unit.columns, width)
        gather(room.gathered, unit.key + to_values, stride, unit.tokens, width)
        transpose_lanes(room.values, 4 * unit.columns, room.gathered, 2 * width, unit.length, width // 2)
        gather_turned(room.gathered, unit.key, stride, unit.tokens, unit.cosines, unit.sines)
        transpose_lanes(room.keys, 4 * unit.columns, room.gathered, 2 * width, unit.length, width // 2)
        pair_rows(room.paired_keys, 4 * width, room.gathered, 2 * width, unit.length, width)
        clear(room.dkeys, 2 * width * unit.columns)  # and dvalues behind them
        for head in range(unit.first_head, unit.last_head):
            place = 2 * head * width
            for block in range(unit.first // ROWS * ROWS, unit.length, BLOCK):
                rows = min(BLOCK, unit.length - block)
                tokens = unit.tokens[block : block + rows]
                gather_turned(room.queries, call.qkv + place, stride, tokens, unit.cosines, unit.sines)
                gather(room.gradients, dcontexts + place, context_stride, tokens, width)
                gather(room.contexts, call.contexts + place, context_stride, tokens, width)
                for first in range(block, block + rows, ROWS):
                    differentiate_tile(unit, room, block, first, head, dqkv + place, stride, width, scale)
                pair_rows(room.paired_queries, 4 * width, room.queries, 2 * width, rows, width)
                pair_rows(room.paired_gradients, 4 * width, room.gradients, 2 * width, rows, width)
                add_to_keys(room.dvalues, room.transposed_weights, room.paired_gradients, block, rows, width)
                add_to_keys(room.dkeys, room.transposed_dscores, room.paired_queries, block, rows, width)
        dkey = dkv + unit.start * dkv_stride + (unit.key - call.qkv - context_stride)
        write_key_gradients(unit, room, dkey, dkey + to_values, dkv_stride, width)
        number = int(take_number(call.counter))
