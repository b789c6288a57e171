"""What experiments, datasets and registered models may be called.

Their names become folders and parts of addresses, and predictions find an experiment or a model by its name. So all three
follow one rule, which is safe on every file system: Windows drops a dot at the end of a name, and two dots lead out of a folder.
"""

import re


def gettext_noop(text: str) -> str:
    """Mark a text for makemessages. Pages translate it; the engine itself speaks English."""
    return text


LONGEST_NAME = 80
NAME_PATTERN = r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*$"
NAME_RULE = gettext_noop(
    "A name has 1 to 80 letters, digits, dots, hyphens and underscores. It starts with a letter or digit, does not end with "
    "a dot, and has no two dots in a row."
)


def is_valid_name(name: str) -> bool:
    """Return whether a new experiment, dataset or registered model may have this name, as far as its characters go."""
    return len(name) <= LONGEST_NAME and re.fullmatch(NAME_PATTERN, name) is not None
