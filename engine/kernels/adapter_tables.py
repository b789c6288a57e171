"""Rows of the tables that tell the compiled kernels of engine.kernels.low_rank about the adapters of a group.

Addresses are of contiguous tensors, panels as engine.kernels.panels makes them.
"""

from __future__ import annotations

import numpy as np

# What the products need of an adapter.
ADAPTER = np.dtype(
    [
        ("first_output", np.int64),  # of the group's outputs
        ("outputs", np.int64),
        ("first_rank", np.int64),  # of the group's padded ranks
        ("rank", np.int64),
        ("padded_rank", np.int64),
        ("first_sum", np.int64),  # of a thread's sums, where those for dB start
        ("up", np.int64),  # address of Bᵀ's panels
        ("da", np.int64),  # address of the gradient of A: (rank, in) fp32
        ("db", np.int64),  # address of the gradient of B: (outputs, rank) fp32
        ("scale", np.float64),
    ]
)

# What is needed to write the panels of an adapter after a step.
FACTORS = np.dtype(
    [
        ("a", np.int64),  # address of A: (rank, width) fp32
        ("b", np.int64),  # address of B: (outputs, rank) fp32
        ("rank", np.int64),
        ("padded_rank", np.int64),
        ("width", np.int64),
        ("outputs", np.int64),
        ("ranks", np.int64),  # of the whole group, padded
        ("first_rank", np.int64),
        ("first_output", np.int64),
        ("scale", np.float64),
        ("down", np.int64),  # addresses of the group's panels
        ("wide_down", np.int64),
        ("wide_up", np.int64),
        ("up", np.int64),  # address of the adapter's own panels
    ]
)
