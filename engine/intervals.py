"""How far a share that was counted on few rows may be from the true one."""

from __future__ import annotations

from math import sqrt

Z = 1.96  # of a normal distribution's 95 % interval


def wilson_interval(right: float, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `right` out of `rows` (Wilson, JASA 22, 1927)."""
    # Not the usual share ± z·σ: that one is empty at 0 % and 100 %, where small evaluation sets often end.
    n = max(1, rows)
    share = right / n
    centre = share + Z * Z / (2 * n)
    half_width = Z * sqrt(share * (1 - share) / n + (Z / n) ** 2 / 4)
    scale = 1 + Z * Z / n
    return (centre - half_width) / scale, (centre + half_width) / scale
