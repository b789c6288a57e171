"""Recognise archives whose files or folders are called after labels: neg.txt and pos.txt, or neg/1.txt and pos/1.txt."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from datasets_app.reading.splits import split_of_name

_TEXT_SUFFIXES = ("", ".txt", ".text")
_NO_LABELS = ("unsup", "unlabeled", "unlabelled")  # folders of texts that nobody labelled
_MOST_CLASS_FILES = 200
_NO_CLASSES = re.compile(  # names of files that hold something else than the texts of a label
    r"(?i)labels?|class(es)?|categor(y|ies)|texts?|sentences?|data(set)?|corpus|vocab(ulary)?|words?|stopwords?|index|all|notes?"
)


@dataclass(frozen=True)
class ClassFile:
    """What the name of a file tells of the texts in it."""

    label: str
    split: str | None
    is_one_text: bool  # else each line is a text


def class_files(names: Sequence[str]) -> dict[str, ClassFile]:
    """Return the files with texts and what their names tell; nothing if the names are none of labels.

    Read are pos.txt, train/pos.txt, pos/1.txt and train/pos/1.txt, each in any folder. Files that stand less deep than most are
    left, such as lists of links beside the folders.
    """
    paths = [PurePosixPath(name) for name in names]
    texts = [path for path in paths if path.suffix.lower() in _TEXT_SUFFIXES]
    if not texts or any(path.suffix.lower() not in (*_TEXT_SUFFIXES, ".feat", ".vocab") for path in paths):
        return {}
    depth = Counter(len(path.parts) for path in texts).most_common(1)[0][0]
    texts = [path for path in texts if len(path.parts) == depth]
    folders = {path.parent.name for path in texts}
    are_folders_splits = all(split_of_name(folder) for folder in folders)
    is_one_text = len(folders) > 1 and not are_folders_splits
    files = {}
    for path in texts:
        label = path.parent.name if is_one_text else path.stem
        above = path.parent.parent.parts if is_one_text else path.parent.parts
        split = next((split for part in reversed(above) if (split := split_of_name(part))), None)
        files[str(path)] = ClassFile("" if label.lower() in _NO_LABELS else label, split, is_one_text)
    if not all(file.split for file in files.values()):
        files = {name: ClassFile(file.label, None, is_one_text) for name, file in files.items()}
    return files if _are_labels({file.label for file in files.values()}, is_one_text=is_one_text) else {}


def _are_labels(labels: set[str], *, is_one_text: bool) -> bool:
    """Return whether names are those of labels, and not of parts (part-1, part-2), splits or the like."""
    named = labels - {""}
    if not 2 <= len(named) <= _MOST_CLASS_FILES or any(map(split_of_name, named)):
        return False
    if is_one_text:
        return True
    without_numbers = {re.sub(r"[\d\W_]+", "", label) for label in named}
    return len(without_numbers) == len(named) and not any(_NO_CLASSES.fullmatch(label) for label in named)
