"""Bring packages that a machine without network lacks: gather wheels here, unpack them there. Nothing is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
# The engine's configuration needs Pydantic and what that needs; bitsandbytes trains in 8 and 4 bits.
PINNED = {"requirements.txt": ["pydantic"], "requirements-cuda.txt": ["bitsandbytes"]}
PLAIN = ["annotated-types", "typing-inspection", "typing-extensions"]
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 24, 17)] + ["manylinux2014_x86_64"]
# bitsandbytes brings a library for each version of CUDA and for other makers' GPUs: 43 MB, of which 3 are needed.
BITSANDBYTES_LIBRARY = re.compile(r"bitsandbytes/libbitsandbytes_(?!cpu|cuda13)")


class WheelError(Exception):
    """A wheel is for another Python than this one."""


def gather(folder: Path, python: str) -> None:
    """Download the wheels for a version of Python on Linux x86-64, from the index that pip is configured with."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in PINNED.items():
        for name in names:
            _download(folder, python, _pinned(ROOT / file, name))
    _download(folder, python, _requirement(next(folder.glob("pydantic-*.whl")), "pydantic-core"))
    for name in PLAIN:
        _download(folder, python, name)
    for wheel in folder.glob("bitsandbytes-*.whl"):
        _drop_files(wheel, BITSANDBYTES_LIBRARY)
    for wheel in sorted(folder.glob("*.whl")):
        print(f"{wheel.stat().st_size / 2**20:7.2f} MiB  {wheel.name}")
    print(f"{sum(wheel.stat().st_size for wheel in folder.glob('*.whl')) / 2**20:7.2f} MiB  in all")


def unpack_missing(folder: Path, target: Path) -> dict[str, Path]:
    """Unpack the wheels of packages that this Python lacks, or has in an older version; return a folder for each package.

    Raises WheelError if one of them is for another Python.
    """
    unpacked: dict[str, Path] = {}
    for wheel in sorted(folder.glob("*.whl")):
        name, _version, _build, tags = parse_wheel_filename(wheel.name)
        if not _is_missing(wheel):
            continue
        if not tags & set(sys_tags()):
            raise WheelError(f"{wheel.name} is not for Python {sys.version.split()[0]} on this machine. Gather again.")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target / name)
        unpacked[name] = target / name
    return unpacked


def _is_missing(wheel: Path) -> bool:
    name, wanted, *_ = parse_wheel_filename(wheel.name)
    try:
        return Version(version(name)) < wanted
    except PackageNotFoundError:
        return True


def _download(folder: Path, python: str, requirement: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, requirement], check=True)


def _pinned(file: Path, name: str) -> str:
    """Return the line of a requirements file that pins a package."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(line.split(";")[0].strip() for line in lines if line.startswith(f"{name}=="))


def _requirement(wheel: Path, name: str) -> str:
    """Return what a wheel requires of another package, such as pydantic-core==2.50.4."""
    with zipfile.ZipFile(wheel) as archive:
        path = next(path for path in archive.namelist() if path.endswith(".dist-info/METADATA"))
        metadata = archive.read(path).decode()
    return re.findall(rf"^Requires-Dist: ({name}==\S+)", metadata, re.MULTILINE)[0]


def _drop_files(wheel: Path, pattern: re.Pattern[str]) -> None:
    """Write a wheel again without the files whose path matches. It can be unpacked, but no longer be installed."""
    draft = wheel.with_suffix(".draft")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            if not pattern.match(member.filename):
                target.writestr(member, source.read(member))
    draft.replace(wheel)
