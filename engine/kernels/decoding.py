"""Compiled CPU kernels for writing answers, a token of several sequences at a time: products, and attention to a cache.

A step reads every weight once, for few rows, so it takes as long as memory does. Weights that bf16 holds without loss, as most
are published, are read in bf16 and computed in fp32: half of the bytes, and the numbers of fp32.

These are kernels as in engine.kernels.compiled, which says how they work and when they are compiled again.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from engine.kernels.compiled import (
    ZERO,
    Kernel,
    bf16_matrix,
    bf16_to_float,
    exponential,
    float_vector,
    rows_of_this_thread,
    thread_count,
    thread_number,
    to_float,
    to_pointer,
    unpack,
)

MOST_ROWS = 16  # from more on, torch's products are faster


def scratch(width: int) -> Tensor:
    """Return room for a row of numbers on each thread that may compute: (threads, width)."""
    return torch.empty(max(os.cpu_count() or 1, torch.get_num_threads()), width)


@njit(inline="always")
def float_matrix(address: int, rows: int, width: int) -> np.ndarray:
    """Return a float32 tensor (rows, width)."""
    return carray(to_pointer(address), (rows, width), np.float32)


@njit(inline="always")
def dot(x: np.ndarray, other: np.ndarray, row: int, index: int) -> np.float32:
    """Return the product of a row of x with a row of another matrix."""
    total = ZERO
    for column in range(x.shape[1]):
        total += x[row, column] * other[index, column]
    return total


@njit(inline="always")
def multiply_one(x: np.ndarray, weight: np.ndarray, row: int, output: int) -> np.float32:
    """Return the product of a row of x with a row of the weight."""
    total = ZERO
    for column in range(x.shape[1]):
        total += x[row, column] * bf16_to_float(weight[output, column])
    return total


@njit(inline="always")
def multiply_four(
    x: np.ndarray, weight: np.ndarray, row: int, output: int
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return the products of four rows of x with a row of the weight, which is converted once for all."""
    a, b, c, d = ZERO, ZERO, ZERO, ZERO
    for column in range(x.shape[1]):
        number = bf16_to_float(weight[output, column])
        a += x[row, column] * number
        b += x[row + 1, column] * number
        c += x[row + 2, column] * number
        d += x[row + 3, column] * number
    return a, b, c, d


@Kernel
def multiply(arguments: int) -> None:
    """y ← x Wᵀ + bias + (x a) b.

    y: (rows, out); x: (rows, in); weight: (out, in) bf16; bias: (out,) or 0. adapters: of each row, the addresses of aᵀ: (rank, in) and
    b: (rank, out) and the rank, which is 0 without an adapter: (rows, 3) int64, or 0. scratch: (threads, ranks) fp32.
    """
    y_at, x_at, weight_at, bias_at, scratch_at, adapters_at, rows, inputs, outputs, ranks = unpack(arguments, 10)
    y = float_matrix(y_at, rows, outputs)
    x = float_matrix(x_at, rows, inputs)
    weight = bf16_matrix(weight_at, outputs, inputs)
    own_outputs = rows_of_this_thread(outputs)
    first, last = own_outputs.start, own_outputs.stop
    for output in own_outputs:
        row = 0
        while row + 4 <= rows:
            a, b, c, d = multiply_four(x, weight, row, output)
            y[row, output] = a
            y[row + 1, output] = b
            y[row + 2, output] = c
            y[row + 3, output] = d
            row += 4
        while row < rows:
            y[row, output] = multiply_one(x, weight, row, output)
            row += 1
    if bias_at != 0:
        bias = float_vector(bias_at, outputs)
        for row in range(rows):
            for output in range(first, last):
                y[row, output] += bias[output]
    if adapters_at != 0:
        adapters = carray(to_pointer(adapters_at), (rows, 3), np.int64)
        scratch = float_matrix(scratch_at, int(thread_count()), ranks)
        projected = scratch[np.int64(thread_number())]
        for row in range(rows):
            rank = adapters[row, 2]
            if rank == 0:
                continue
            down = float_matrix(adapters[row, 0], rank, inputs)
            up = float_matrix(adapters[row, 1], rank, outputs)
            for index in range(rank):
                projected[index] = dot(x, down, row, index)
            for index in range(rank):
                number = projected[index]
                for output in range(first, last):
                    y[row, output] += number * up[index, output]


@Kernel
def attend(arguments: int) -> None:
    """Attention of one token a row.

    context, query: (rows, heads, width); keys, values: (slots, key heads, width). places: of each row, the address of the slots of
    its tokens, int32, and their number: (rows, 2) int64. A row sees its last `window` tokens. scratch: (threads, longest) fp32.
    """
    (
        context_at, query_at, keys, values, places_at, scratch_at, rows, heads, key_heads, width, longest, window, scale_bits,
    ) = unpack(arguments, 13)  # fmt: skip
    context = float_matrix(context_at, rows * heads, width)
    query = float_matrix(query_at, rows * heads, width)
    places = carray(to_pointer(places_at), (rows, 2), np.int64)
    scores = float_matrix(scratch_at, int(thread_count()), longest)[np.int64(thread_number())]
    scale = to_float(scale_bits)
    stride = key_heads * width
    for index in rows_of_this_thread(rows * heads):
        row, head = index // heads, index % heads
        offset = head // (heads // key_heads) * width
        length = int(places[row, 1])
        start = max(0, length - window)
        slots = carray(to_pointer(places[row, 0]), (length,), np.int32)
        largest = np.float32(-np.inf)
        for token in range(start, length):
            key = float_vector(keys + 4 * (int(slots[token]) * stride + offset), width)
            score = ZERO
            for column in range(width):
                score += query[index, column] * key[column]
            score *= scale
            scores[token] = score
            largest = max(largest, score)
        total = ZERO
        for column in range(width):
            context[index, column] = ZERO
        for token in range(start, length):
            share = exponential(scores[token] - largest)
            total += share
            value = float_vector(values + 4 * (int(slots[token]) * stride + offset), width)
            for column in range(width):
                context[index, column] += share * value[column]
        inverse = np.float32(1) / total
        for column in range(width):
            context[index, column] *= inverse
