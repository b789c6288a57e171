"""Compare sets of labels regardless of case and order."""

import hashlib
import json
from collections.abc import Iterable


def folded(labels: Iterable[str]) -> set[str]:
    """Return the labels without differences of case and of spaces."""
    return {" ".join(str(label).split()).casefold() for label in labels}


def label_set(labels: Iterable[str]) -> str:
    """Return a hash of the set of labels, short enough for a database index."""
    return hashlib.sha256(json.dumps(sorted(folded(labels))).encode()).hexdigest()
