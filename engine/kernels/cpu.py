"""Compiled CPU kernels for what lies between the int8 products of a layer: scales, norms, activations, and the loss.

What: each kernel reads bf16 rows, computes in fp32 and writes the result in one pass over memory; engine.kernels.compiled says how they
work.

Why: they make int8 products worth their while. A training step is memory-bound outside of its products, and torch would need five
passes to scale rows and two for add and norm. Quantising 1,072 tokens of width 1,536 takes 0.08 ms. With them the engine trains 6.4
times as fast as the Hugging Face Trainer; with bf16 products and torch's operations, 4.6 times (docs/performance.md).

How to turn them off: `training.precision: bf16`. Nothing but that speed is lost. engine.kernels.int8 imports this file only where
`available()` is true, and the evaluations of such a run do without it too.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from engine.kernels.compiled import (
    HALF,
    ONE,
    ZERO,
    Kernel,
    bf16_matrix,
    bf16_numbers,
    bf16_to_float,
    exponential,
    float_to_bf16,
    float_vector,
    quantise_row,
    quantise_smoothed_row,
    rows_of_this_thread,
    to_float,
    to_pointer,
    unpack,
)

INVERSE_SQRT_2PI = np.float32(0.3989422804014327)


@njit(inline="always")
def normal_tail(x: np.float32, density: np.float32) -> np.float32:
    """P(X > |x|) of a normal X, given density = e^(-x²/2); error below 1e-7 (Abramowitz and Stegun 7.1.26)."""
    t = ONE / (ONE + np.float32(0.3275911 * 0.7071067811865476) * abs(x))
    series = np.float32(1.061405429)
    series = series * t + np.float32(-1.453152027)
    series = series * t + np.float32(1.421413741)
    series = series * t + np.float32(-0.284496736)
    series = series * t + np.float32(0.254829592)
    return HALF * series * t * density


@Kernel
def quantise_rows(arguments: int) -> None:
    """Write x: (rows, width) bf16 as bytes, and each row's scale: (rows,) fp32. factors_at: of (width,) fp32, or 0 for none."""
    x_at, quantised_at, scales_at, factors_at, rows, width = unpack(arguments, 6)
    x = bf16_matrix(x_at, rows, width)
    quantised = carray(to_pointer(quantised_at), (rows, width), np.uint8)
    scales = float_vector(scales_at, rows)
    for row in rows_of_this_thread(rows):
        if factors_at == 0:
            scales[row] = quantise_row(x[row], quantised[row])
        else:
            scales[row] = quantise_smoothed_row(x[row], quantised[row], float_vector(factors_at, width))


@Kernel
def scale_rows(arguments: int) -> None:
    """y ← y · scale of its row + bias, in place. y: (rows, width) bf16; scales: (rows,) and bias: (width,) fp32."""
    y_at, scales_at, bias_at, rows, width = unpack(arguments, 5)
    y = bf16_matrix(y_at, rows, width)
    scales = float_vector(scales_at, rows)
    bias = float_vector(bias_at, width)
    for row in rows_of_this_thread(rows):
        scale = scales[row]
        for column in range(width):
            y[row, column] = float_to_bf16(bf16_to_float(y[row, column]) * scale + bias[column])


@Kernel
def add_scaled_rows(arguments: int) -> None:
    """total ← total + y · scale of its row, in place. total, y: (rows, width) bf16; scales: (rows,) fp32."""
    total_at, y_at, scales_at, rows, width = unpack(arguments, 5)
    total = bf16_matrix(total_at, rows, width)
    y = bf16_matrix(y_at, rows, width)
    scales = float_vector(scales_at, rows)
    for row in rows_of_this_thread(rows):
        scale = scales[row]
        for column in range(width):
            scaled = bf16_to_float(y[row, column]) * scale
            total[row, column] = float_to_bf16(bf16_to_float(total[row, column]) + scaled)


@Kernel
def add_norm(arguments: int) -> None:
    """Residual addition and layer norm. total, x, y: (rows, width) bf16; all else fp32.

    total ← total + x        mean, var: of each row of total        inverse = 1 / √(var + ε)
    y ← (total - mean) · inverse · gain + shift
    """
    (
        total_at, x_at, y_at, means_at, inverses_at, gains_at, shifts_at, rows, width, epsilon_bits,
    ) = unpack(arguments, 10)  # fmt: skip
    total = bf16_matrix(total_at, rows, width)
    x = bf16_matrix(x_at, rows, width)
    y = bf16_matrix(y_at, rows, width)
    means = float_vector(means_at, rows)
    inverses = float_vector(inverses_at, rows)
    gains = float_vector(gains_at, width)
    shifts = float_vector(shifts_at, width)
    epsilon = to_float(epsilon_bits)
    inverse_width = ONE / np.float32(width)
    for row in rows_of_this_thread(rows):
        mean = ZERO
        for column in range(width):
            total[row, column] = float_to_bf16(bf16_to_float(total[row, column]) + bf16_to_float(x[row, column]))
            mean += bf16_to_float(total[row, column])
        mean *= inverse_width
        variance = ZERO
        for column in range(width):
            deviation = bf16_to_float(total[row, column]) - mean
            variance += deviation * deviation
        inverse = ONE / np.sqrt(variance * inverse_width + epsilon)
        means[row] = mean
        inverses[row] = inverse
        for column in range(width):
            normed = (bf16_to_float(total[row, column]) - mean) * inverse
            y[row, column] = float_to_bf16(normed * gains[column] + shifts[column])


@Kernel
def norm_backward(arguments: int) -> None:
    """Write dx, the gradient of a layer norm's input x: (rows, width) bf16 like dy; all else fp32.

    With g = dy · gain, c = x - mean, and averages over the row:

        dx = inverse · (g - average(g) - c · inverse² · average(g · c))
    """
    dx_at, dy_at, x_at, means_at, inverses_at, gains_at, rows, width = unpack(arguments, 8)
    dx = bf16_matrix(dx_at, rows, width)
    dy = bf16_matrix(dy_at, rows, width)
    x = bf16_matrix(x_at, rows, width)
    means = float_vector(means_at, rows)
    inverses = float_vector(inverses_at, rows)
    gains = float_vector(gains_at, width)
    inverse_width = ONE / np.float32(width)
    for row in rows_of_this_thread(rows):
        mean = means[row]
        inverse = inverses[row]
        average, along = ZERO, ZERO
        for column in range(width):
            scaled = bf16_to_float(dy[row, column]) * gains[column]
            average += scaled
            along += scaled * (bf16_to_float(x[row, column]) - mean)
        average *= inverse_width
        along *= inverse_width * inverse * inverse
        for column in range(width):
            scaled = bf16_to_float(dy[row, column]) * gains[column]
            centred = bf16_to_float(x[row, column]) - mean
            dx[row, column] = float_to_bf16((scaled - average - centred * along) * inverse)


@Kernel
def gelu_with_slope(arguments: int) -> None:
    """GELU of x: (rows, width) bf16, and its slope, which is all that the backward pass needs. With a normal X:

    y ← x · P(X < x)        x ← P(X < x) + x · e^(-x²/2) / √(2π)
    """
    y_at, x_at, rows, width = unpack(arguments, 4)
    y = bf16_matrix(y_at, rows, width)
    x = bf16_matrix(x_at, rows, width)
    for row in rows_of_this_thread(rows):
        for column in range(width):
            number = bf16_to_float(x[row, column])
            density = exponential(-HALF * number * number)
            tail = normal_tail(number, density)
            below = ONE - tail if number > ZERO else tail
            y[row, column] = float_to_bf16(number * below)
            x[row, column] = float_to_bf16(below + number * density * INVERSE_SQRT_2PI)


@Kernel
def rms_norm(arguments: int) -> None:
    """y ← x · inverse · gain, with inverse = 1 / √(average of x² over the row + ε). x, y: (rows, width) bf16; all else fp32."""
    y_at, x_at, inverses_at, gains_at, rows, width, epsilon_bits = unpack(arguments, 7)
    y = bf16_matrix(y_at, rows, width)
    x = bf16_matrix(x_at, rows, width)
    inverses = float_vector(inverses_at, rows)
    gains = float_vector(gains_at, width)
    epsilon = to_float(epsilon_bits)
    for row in rows_of_this_thread(rows):
        squares = ZERO
        for column in range(width):
            number = bf16_to_float(x[row, column])
            squares += number * number
        inverse = ONE / np.sqrt(squares / np.float32(width) + epsilon)
        inverses[row] = inverse
        for column in range(width):
            y[row, column] = float_to_bf16(bf16_to_float(x[row, column]) * inverse * gains[column])


@Kernel
def add_rms_norm_gradient(arguments: int) -> None:
    """dx ← dx + gradient of the norm's input x: (rows, width) bf16, with g = dy · gain:

    inverse · (g - x · inverse² · average of g · x over the row)
    """
    dx_at, dy_at, x_at, inverses_at, gains_at, rows, width = unpack(arguments, 7)
    dx = bf16_matrix(dx_at, rows, width)
    dy = bf16_matrix(dy_at, rows, width)
    x = bf16_matrix(x_at, rows, width)
    inverses = float_vector(inverses_at, rows)
    gains = float_vector(gains_at, width)
    for row in rows_of_this_thread(rows):
        inverse = inverses[row]
        along = ZERO
        for column in range(width):
            along += bf16_to_float(dy[row, column]) * gains[column] * bf16_to_float(x[row, column])
        along *= inverse * inverse / np.float32(width)
        for column in range(width):
            scaled = bf16_to_float(dy[row, column]) * gains[column]
            gradient = inverse * (scaled - bf16_to_float(x[row, column]) * along)
            dx[row, column] = float_to_bf16(bf16_to_float(dx[row, column]) + gradient)


@njit(inline="always")
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e⁻ˣ)."""
    small = exponential(-abs(x))
    return (ONE if x > ZERO else small) / (ONE + small)


@njit(inline="always")
def swiglu_rows(y: int, gate_up: int, rows: int, width: int) -> None:
    """y ← gate · sigmoid(gate) · up; gate_up: (rows, 2 × width) has both side by side."""
    for row in range(rows):
        active = bf16_numbers(y, row * width, width)
        gates = bf16_numbers(gate_up, 2 * row * width, width)
        ups = bf16_numbers(gate_up, (2 * row + 1) * width, width)
        for column in range(width):
            gate = bf16_to_float(gates[column])
            active[column] = float_to_bf16(gate * sigmoid(gate) * bf16_to_float(ups[column]))


@njit(inline="always")
def swiglu_gradient_rows(gate_up: int, dy: int, rows: int, width: int) -> None:
    """Overwrite gate_up by its gradient, with s = sigmoid(gate):

    gate ← dy · up · s · (1 + gate · (1 - s))        up ← dy · gate · s
    """
    for row in range(rows):
        gradients = bf16_numbers(dy, row * width, width)
        gates = bf16_numbers(gate_up, 2 * row * width, width)
        ups = bf16_numbers(gate_up, (2 * row + 1) * width, width)
        for column in range(width):
            gate = bf16_to_float(gates[column])
            share = sigmoid(gate)
            gradient = bf16_to_float(gradients[column]) * share
            slope = ONE + gate * (ONE - share)
            gates[column] = float_to_bf16(gradient * bf16_to_float(ups[column]) * slope)
            ups[column] = float_to_bf16(gradient * gate)


@Kernel
def swiglu(arguments: int) -> None:
    """See swiglu_rows; all bf16."""
    y, gate_up, rows, width = unpack(arguments, 4)
    own = rows_of_this_thread(rows)
    swiglu_rows(y + 2 * own.start * width, gate_up + 4 * own.start * width, own.stop - own.start, width)


@Kernel
def swiglu_gradient(arguments: int) -> None:
    """See swiglu_gradient_rows; all bf16."""
    gate_up, dy, rows, width = unpack(arguments, 4)
    own = rows_of_this_thread(rows)
    swiglu_gradient_rows(gate_up + 4 * own.start * width, dy + 2 * own.start * width, own.stop - own.start, width)


@Kernel
def cross_entropy(arguments: int) -> None:
    """Write each row's loss in fp32; logits: (rows, width) bf16 become their gradient. targets: (rows,) int64.

    loss = log Σ e^logits - logit of the target        logits ← softmax(logits) - (1 at the target)
    """
    logits_at, losses_at, targets_at, rows, width = unpack(arguments, 5)
    logits = bf16_matrix(logits_at, rows, width)
    losses = float_vector(losses_at, rows)
    targets = carray(to_pointer(targets_at), (rows,), np.int64)
    for row in rows_of_this_thread(rows):
        largest = bf16_to_float(logits[row, 0])
        for column in range(width):
            largest = max(largest, bf16_to_float(logits[row, column]))
        total = ZERO
        for column in range(width):
            total += exponential(bf16_to_float(logits[row, column]) - largest)
        target = targets[row]
        losses[row] = np.log(total) + largest - bf16_to_float(logits[row, target])
        inverse = ONE / total
        own = exponential(bf16_to_float(logits[row, target]) - largest) * inverse - ONE
        for column in range(width):
            logits[row, column] = float_to_bf16(exponential(bf16_to_float(logits[row, column]) - largest) * inverse)
        logits[row, target] = float_to_bf16(own)
