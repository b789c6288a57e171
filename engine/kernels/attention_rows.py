"""What compiled attention does with rows of heads on the way to its products: gather, turn, transpose and round them.

Functions for the kernels of engine.kernels.causal_attention; addresses and strides are in bytes.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from engine.kernels.compiled import ZERO, bf16_numbers, bf16_to_float, float_to_bf16, float_vector, to_pointer
from engine.kernels.tile_sizes import BLOCK, LANES, ROWS
from engine.kernels.tiles import pair_rows, transpose_tile


@njit(inline="always")
def write_turned(target: int, x: int, cosines: np.ndarray, sines: np.ndarray) -> None:
    """Write a head: (2 × half,) bf16 with the pairs of its first and second half turned by angles; cosines, sines: (half,)."""
    half = len(cosines)
    firsts, seconds = bf16_numbers(x, 0, half), bf16_numbers(x, half, half)
    to_firsts, to_seconds = bf16_numbers(target, 0, half), bf16_numbers(target, half, half)
    for column in range(half):
        first = bf16_to_float(firsts[column])
        second = bf16_to_float(seconds[column])
        to_firsts[column] = float_to_bf16(first * cosines[column] - second * sines[column])
        to_seconds[column] = float_to_bf16(second * cosines[column] + first * sines[column])


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
def gather(target: int, x: int, stride: int, tokens: np.ndarray, width: int) -> None:
    """Write a head of some tokens: (tokens, width) bf16. stride: bytes from a token of x to the next."""
    for row in range(len(tokens)):
        numbers = bf16_numbers(x + tokens[row] * stride, 0, width)
        to = bf16_numbers(target, row * width, width)
        for column in range(width):
            to[column] = numbers[column]


@njit(inline="always")
def gather_turned(target: int, x: int, stride: int, tokens: np.ndarray, cosines: np.ndarray, sines: np.ndarray) -> None:
    """Write a head of some tokens, turned by the angles of their positions, as `gather` does."""
    for row in range(len(tokens)):
        token = tokens[row]
        write_turned(target + 4 * row * cosines.shape[1], x + token * stride, cosines[token], sines[token])


@njit(inline="always")
def write_rounded(target: int, numbers: np.ndarray, factor: np.float32) -> None:
    """Write fp32 numbers times a factor as bf16."""
    rounded = bf16_numbers(target, 0, len(numbers))
    for column in range(len(numbers)):
        rounded[column] = float_to_bf16(numbers[column] * factor)


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
