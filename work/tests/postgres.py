"""A PostgreSQL server that a test may kill."""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))


class ThrowawayPostgres:
    """Its files lie in a folder of its own and go with it; it listens on a socket there and nowhere else."""

    def __enter__(self) -> Self:
        self.home = tempfile.mkdtemp(prefix="lorasite-postgres-")
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self.home, "postgres", "postgres")
        self._run("initdb", "-D", f"{self.home}/db", "-U", "lorasite", "-A", "trust")
        self.start()
        self._run("createdb", "-h", self.home, "-U", "lorasite", "lorasite")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"postgres://lorasite@{self.home.replace('/', '%2F')}/lorasite"

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=self.home, user="lorasite", dbname="lorasite", autocommit=True)

    def start(self) -> None:
        line = [f"{PROGRAMS}/postgres", "-D", f"{self.home}/db", "-c", "listen_addresses=", "-k", self.home]
        self.process = subprocess.Popen(line, stderr=subprocess.DEVNULL, **self._as_postgres())
        while subprocess.run([f"{PROGRAMS}/pg_isready", "-q", "-h", self.home], check=False).returncode:
            assert self.process.poll() is None, "PostgreSQL does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """All of it at once, as when the machine loses its power."""
        if self.process.poll() is not None:
            return
        everyone = [*psutil.Process(self.process.pid).children(), psutil.Process(self.process.pid)]
        for process in everyone:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(everyone)

    def _run(self, program: str, *line: str) -> None:
        subprocess.run([f"{PROGRAMS}/{program}", *line], check=True, capture_output=True, **self._as_postgres())

    def _as_postgres(self) -> dict[str, Any]:
        return {"cwd": "/", **({"user": "postgres"} if os.geteuid() == 0 else {})}
