"""Sizes that compiled kernels and those who call them agree on; see engine.kernels.tiles for the first three."""

LANES = 16  # 32-bit numbers of a register
ROWS = 8  # of a tile
PANEL = 3 * LANES  # columns of a tile
BLOCK = 64  # rows that a thread computes at once; a block of 3,072 numbers and its bytes fit into a megabyte
# States whose gradients a thread sums up at once, so that it reads the head once for all of them.
HEAD_ROWS = 192
# Tokens of the vocabulary that share a scale; their bytes of a head stay in the cache for all rows.
HEAD_BLOCK = 512


def rounded_up(number: int, unit: int) -> int:
    """Return the smallest multiple of a unit that is not below a number."""
    return (number + unit - 1) // unit * unit
