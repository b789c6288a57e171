"""Sets of labels, compared without regard to case and order."""

import hashlib
import json
from collections.abc import Iterable


def folded(labels: Iterable[str]) -> set[str]:
    return {" ".join(str(label).split()).casefold() for label in labels}


def label_set(labels: Iterable[str]) -> str:
    """Equal for equal sets of labels, of a length that a database can index."""
    return hashlib.sha256(json.dumps(sorted(folded(labels))).encode()).hexdigest()
