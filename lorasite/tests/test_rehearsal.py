"""compose.yaml, rehearsed on this machine by deploy/rehearse.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorasite.env import BASE_DIR as ROOT

NEEDED = ("unshare", "setpriv", "redis-server")


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="it mounts, so it is for root on Linux")
@pytest.mark.skipif(any(not shutil.which(name) for name in NEEDED), reason=f"it needs {', '.join(NEEDED)}")
@pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")), reason="it needs a PostgreSQL of its own"
)
@pytest.mark.skipif("CI" in os.environ, reason=".ci/run plays it with the installation")
@pytest.mark.skipif("DATABASE_URL" in os.environ, reason="it brings its own database, so once is enough")
def test_compose_file_runs_as_written() -> None:
    line = [sys.executable, str(ROOT / "deploy" / "rehearse.py"), "--venv", sys.prefix]
    rehearsal = subprocess.run(line, capture_output=True, text=True, timeout=280)
    assert rehearsal.returncode == 0, rehearsal.stdout[-6000:] + rehearsal.stderr[-2000:]
