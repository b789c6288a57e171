"""How often a part of a run follows at its end, for estimates, which time it once."""

from typing import NamedTuple


class Repeats(NamedTuple):
    """How often a part follows, computed by the trained model and by the base model."""

    by_trained_model: float
    by_base_model: float


NEVER = Repeats(0.0, 0.0)
