"""A Dockerfile carried out without an engine: its stages in an overlay over this machine's own file system.

What it can't rehearse is the base image, in whose place this machine stands. Linux, root.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(os.path.realpath(sys.executable))
SYSTEM_PATH = f"{PYTHON.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass
class Stage:
    """One FROM and what follows it; a later stage starts with its base's environment, folder and user."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    folder: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def expand(self, text: str) -> str:
        known = self.environment | self.arguments
        return re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], ""), text)


def read(file: Path) -> dict[str, Stage]:
    """The stages by name, in their order."""
    stages: dict[str, Stage] = {}
    for word, rest in instructions(file.read_text(encoding="utf-8")):
        if word == "FROM":
            base, _as, name = rest.split()
            stages[name] = Stage(name, base)
        elif stages:
            list(stages.values())[-1].instructions.append((word, rest))
    return stages


def instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _space, rest = line.strip().partition(" ")
            yield word, rest.strip()


class Builder:
    """Builds stages under `home`. `given` replaces ARGs; `venv` is mounted at /opt/venv instead of being installed."""

    def __init__(self, home: Path, given: dict[str, str], venv: Path | None) -> None:
        self.home, self.given, self.venv = home, given, venv
        self.stages = read(ROOT / "Dockerfile")
        self.roots: dict[str, Path] = {}

    def build(self, name: str) -> Path:
        """The root of a stage whose base is this machine, all instructions carried out."""
        stage = self.stages[name]
        self.roots[name] = root = overlay(self.home / name)
        for word, rest in stage.instructions:
            say(f"{name}: {word} {rest}"[:140])
            self.carry_out(stage, root, word, rest)
        return root

    def settle(self, name: str) -> Stage:
        """A stage that only sets things, on top of the one that was built."""
        stage = self.stages[name]
        base = self.stages[stage.base]
        stage.environment, stage.folder, stage.user = dict(base.environment), base.folder, base.user
        for word, rest in stage.instructions:
            self.carry_out(stage, self.roots[stage.base], word, rest)
        return stage

    def carry_out(self, stage: Stage, root: Path, word: str, rest: str) -> None:
        if word == "ARG":
            key, _is, value = rest.partition("=")
            stage.arguments[key] = self.given.get(key, value)
        elif word == "ENV":
            pairs = (part.partition("=") for part in shlex.split(rest))
            stage.environment |= {key: stage.expand(value) for key, _is, value in pairs}
        elif word == "WORKDIR":
            stage.folder = rest
            inside(root, rest).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "COPY":
            self.copy(stage, root, shlex.split(rest))
        elif word == "RUN":
            self.run(stage, root, rest)
        elif word == "CMD":
            stage.command = command(rest)
        elif word == "HEALTHCHECK":
            stage.healthcheck = command(rest.partition("CMD")[2])
        elif word != "EXPOSE":
            raise SystemExit(f"{word} is not rehearsed; teach deploy/image.py.")

    def run(self, stage: Stage, root: Path, line: str) -> None:
        if (self.venv and "/opt/venv/bin/pip install" in line) or (self.venv and "-m venv" in line):
            return
        environment = stage.environment | stage.arguments | proxy()
        subprocess.run(chroot(root, environment, stage.folder, ["sh", "-c", line]), check=True)

    def copy(self, stage: Stage, root: Path, words: list[str]) -> None:
        source = words.pop(0).partition("=")[2] if words[0].startswith("--from") else ""
        what, target = words
        to = inside(root, os.path.join(stage.folder, target))
        if source and self.venv:
            bind(self.venv, to)
        elif source:
            to.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", str(inside(self.roots[source], what)), str(to)], check=True)
        else:
            for path in context() if what == "." else [what]:
                place = to / path if what == "." or target.endswith((".", "/")) else to
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, place)


def context() -> list[str]:
    """What the builder sends: the files of the checkout, but for those of .dockerignore."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    names = listed.stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file() and not any(ignored(name, p) for p in patterns)]


def ignored(name: str, pattern: str) -> bool:
    """A pattern stands at the root unless it begins with **/; a folder's pattern holds for all that is in it."""
    parts, wanted = name.split("/"), pattern.rstrip("/")
    if wanted.startswith("**/"):
        return any(fnmatch(part, wanted[3:]) for part in parts)
    return any(fnmatch("/".join(parts[: i + 1]), wanted) for i in range(len(parts)))


def overlay(folder: Path) -> Path:
    """This machine's file system, on which everything written goes into `folder`."""
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir(parents=True)
    mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root))
    for name in ("proc", "dev", "sys"):
        mount("--rbind", f"/{name}", str(root / name))
    resolver = root / "etc" / "resolv.conf"
    if resolver.is_symlink():  # into /run, which the overlay does not show
        resolver.unlink()
        shutil.copy("/etc/resolv.conf", resolver)
    offer_python(root)
    return root


def offer_python(root: Path) -> None:
    """`python` as the base image has it; on this machine it may lie where only root may look."""
    for parent in list(PYTHON.parents)[:-1]:
        there = inside(root, str(parent))
        there.chmod(there.stat().st_mode | 0o011)
    link = inside(root, str(PYTHON.with_name("python")))
    if not link.exists():
        link.symlink_to(PYTHON.name)


def chroot(root: Path, environment: dict[str, str], folder: str, line: list[str], user: str = "0:0") -> list[str]:
    """The command line that runs `line` in the root; a user who is not root gets no capability and can't gain any."""
    uid, _colon, gid = user.partition(":")
    drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    variables = [f"{key}={value}" for key, value in environment.items()]
    into = ["sh", "-c", f'cd {shlex.quote(folder)} && exec "$@"', "sh"]
    return ["chroot", str(root), *(drop if uid != "0" else []), "env", "-i", *variables, *into, *line]


def command(text: str) -> list[str]:
    import json

    return [str(part) for part in json.loads(text)]


def inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    mount("--bind", str(source), str(target))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def proxy() -> dict[str, str]:
    """What a builder passes on of the network that this machine is in."""
    return {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.lower().endswith("_proxy")}


def say(text: str) -> None:
    print(text, flush=True)
