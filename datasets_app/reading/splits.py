"""Tell splits by the names of files, of keys and of values in a column."""

import re

from engine.data.labelled_rows import SPLIT_NAMES


def split_of_name(name: str) -> str | None:
    """Return the split that a name speaks of, such as `data/train-00000-of-00002.parquet` or `oos_val`; None for others."""
    stem = name.rpartition("/")[2].lower()
    stem = re.sub(r"(\.[a-z0-9]{1,8})+$", "", stem)
    for word in re.split(r"[^a-z]+", stem):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None
