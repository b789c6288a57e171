"""Compiled cross entropy behind a frozen head, with the gradient of each state by a product in int8.

    loss = log Σ e^logits - logit of the target        gradient of -loss = Σ p (W[target] - W) over all but the target

Beside a few large probabilities p most of a vocabulary has tiny ones, which one scale for the whole row would round to zero. So the
target, whose p is nearly 1 once the model has learned, is no part of the product, and each block of the vocabulary has a scale for each
row. Most are still smaller than a step of the bytes. Rounded to the nearest step they would all be missing, in every row in the same
direction, which the sums over rows in the gradients of adapters multiply; so what is added before digits are cut off is spread evenly
from 0 to 1. A block of W stays in the cache while all rows of a thread are multiplied with it.

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
    bf16_numbers,
    bf16_to_float,
    exponential,
    float_to_bf16,
    float_to_byte,
    float_vector,
    rows_of_this_thread,
    thread_number,
    to_pointer,
    unpack,
)
from engine.kernels.tile_sizes import HEAD_BLOCK, HEAD_ROWS, PANEL, ROWS
from engine.kernels.tiles import add_scaled_product, rounded_up

LARGEST_BYTE = np.float32(254)  # exponentials have no sign; what is added before rounding needs the last step
# Multiples of irrational numbers, without their whole parts, lie evenly between 0 and 1, also those beside each other.
GOLDEN = 0.6180339887498949
OF_COLUMNS = (np.arange(HEAD_BLOCK) * GOLDEN % 1).astype(np.float32)
OF_ROWS, OF_BLOCKS = np.sqrt(2) - 1, np.sqrt(3) - 1
LOWEST = np.float32(-1e30)  # no number's logarithm
HIDDEN = np.uint16(0xFF80)  # minus infinity in bf16


@njit(inline="always")
def largest_of(logits: np.ndarray) -> np.float32:
    """Return the largest of some bf16 numbers."""
    largest = LOWEST
    for column in range(len(logits)):
        largest = max(largest, bf16_to_float(logits[column]))
    return largest


@njit(inline="always")
def quantise_exponentials(
    logits: np.ndarray, largest: np.float32, quantised: np.ndarray, added: np.float32
) -> np.float32:
    """Write LARGEST_BYTE e^(logit - largest) of a block as bytes, with zeros behind it; return the sum of the exponentials.

    added: from 0 to 1, where the numbers that are added before rounding begin.
    """
    total = ZERO
    for column in range(len(logits)):
        number = exponential(bf16_to_float(logits[column]) - largest)
        total += number
        shift = OF_COLUMNS[column] + added
        shift = shift - ONE if shift >= ONE else shift
        quantised[column] = float_to_byte(number * LARGEST_BYTE + shift)
    quantised[len(logits) :] = 0
    return total


@njit(inline="always")
def add_block(
    sums: int, width: int, quantised: int, rows: int, row_scales: int, panels: int, column_scales: int
) -> None:
    """Add a block's part to the sums of some rows: (rows, width) fp32. quantised: (rows, HEAD_BLOCK) bytes."""
    for column in range(0, width, PANEL):
        for row in range(0, rows, ROWS):
            add_scaled_product(
                sums + 4 * (row * width + column), 4 * width, quantised + row * HEAD_BLOCK, HEAD_BLOCK,
                panels + column * HEAD_BLOCK, HEAD_BLOCK // 4, row_scales + 4 * row, column_scales + 4 * column,
            )  # fmt: skip


@njit(inline="always")
def write_gradient(
    gradient: np.ndarray, sums: np.ndarray, head: np.ndarray, rest: np.float32, total: np.float32
) -> None:
    """Write the gradient of a row's -loss by its state: bf16. rest: of the total, what is not the target's; head: the target's row."""
    inverse = ONE / total
    for column in range(len(gradient)):
        gradient[column] = float_to_bf16((rest * bf16_to_float(head[column]) - sums[column]) * inverse)


class Room(NamedTuple):
    """What a thread keeps of its rows, in the order in which it lies; addresses of what products read."""

    sums: int  # (HEAD_ROWS, width) fp32
    row_scales: int  # (HEAD_ROWS,) fp32, of the block
    quantised: int  # (HEAD_ROWS, HEAD_BLOCK) bytes
    scales: np.ndarray  # the row scales
    target_logits: np.ndarray  # (HEAD_ROWS,)
    largest: np.ndarray  # (HEAD_ROWS,), logits
    rests: np.ndarray  # (HEAD_ROWS,), sums of e^(logit - largest) but for the target


@njit(inline="always")
def room_of(scratch: int, width: int) -> Room:
    """Return where a thread keeps what; engine.kernels.head says how much it is."""
    row_scales = scratch + 4 * HEAD_ROWS * width
    of_rows = carray(to_pointer(row_scales), (4, HEAD_ROWS), np.float32)
    return Room(scratch, row_scales, row_scales + 16 * HEAD_ROWS, of_rows[0], of_rows[1], of_rows[2], of_rows[3])


@Kernel
def cross_entropy_with_gradient(arguments: int) -> None:
    """Write each row's loss: (rows,) fp32, and the gradient of -loss by its state: (rows, width) bf16.

    logits: (rows, vocabulary) bf16, of which the targets' are overwritten; targets: (rows,) int64; head: (vocabulary, width) bf16,
    which panels and scales have in int8, see engine.kernels.head. scratch: scratch_bytes for each thread.
    """
    (
        losses_at, gradients, logits, targets_at, head, panels, scales, scratch, scratch_bytes, rows, vocabulary, width,
    ) = unpack(arguments, 12)  # fmt: skip
    losses = float_vector(losses_at, rows)
    targets = carray(to_pointer(targets_at), (rows,), np.int64)
    padded = rounded_up(width, PANEL)
    room = room_of(scratch + int(thread_number()) * scratch_bytes, padded)
    own = rows_of_this_thread(rows)
    for first in range(own.start, own.stop, HEAD_ROWS):
        count = min(HEAD_ROWS, own.stop - first)
        for row in range(count):
            own_logits = bf16_numbers(logits, (first + row) * vocabulary, vocabulary)
            target = targets[first + row]
            room.target_logits[row] = bf16_to_float(own_logits[target])
            own_logits[target] = HIDDEN
            room.largest[row] = max(largest_of(own_logits), room.target_logits[row])
        room.rests[:] = ZERO
        float_vector(room.sums, HEAD_ROWS * padded)[:] = ZERO
        for start in range(0, vocabulary, HEAD_BLOCK):
            length = min(HEAD_BLOCK, vocabulary - start)
            for row in range(count):
                block = bf16_numbers(logits, (first + row) * vocabulary + start, length)
                largest = largest_of(block)
                bytes_of_row = carray(to_pointer(room.quantised + row * HEAD_BLOCK), (HEAD_BLOCK,), np.uint8)
                factor = exponential(largest - room.largest[row])
                added = np.float32(((first + row) * OF_ROWS + start // HEAD_BLOCK * OF_BLOCKS) % 1)
                room.rests[row] += factor * quantise_exponentials(block, largest, bytes_of_row, added)
                room.scales[row] = factor / LARGEST_BYTE
            column_scales = scales + 4 * (start // HEAD_BLOCK) * padded
            add_block(room.sums, padded, room.quantised, count, room.row_scales, panels + start * padded, column_scales)
        for row in range(count):
            above = room.target_logits[row] - room.largest[row]
            total = room.rests[row] + exponential(above)
            losses[first + row] = np.log(total) - above
            write_gradient(
                bf16_numbers(gradients, (first + row) * width, width), float_vector(room.sums + 4 * row * padded, padded),
                bf16_numbers(head, targets[first + row] * width, width), room.rests[row], total,
            )  # fmt: skip
