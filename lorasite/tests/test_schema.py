"""The API matches its OpenAPI description: schemathesis sends thousands of requests to a server, with all checks on."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from django.conf import settings

from testing.site import PASSWORD, running_web

ROOT = Path(settings.BASE_DIR)
SECONDS = 40
ROWS = """
from testing.belongings import belongings
print(belongings(root, "kept").task.pk)
belongings(root, "tweets-en")
"""
OPEN = dict.fromkeys(
    ("THROTTLE_LOGIN", "THROTTLE_UPLOAD", "THROTTLE_TRAIN", "THROTTLE_VALIDATE", "THROTTLE_PREDICT"), "off"
)


def sign_in(site: str) -> str:
    body = json.dumps({"username": "root", "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{site}/api/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["access"])


@pytest.mark.process
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with running_web(tmp_path, more=ROWS, QUOTA_QUEUED="100000", **OPEN) as (site, task):
        command = [
            str(Path(sys.executable).parent / "st"), f"--config-file={ROOT / 'schemathesis.toml'}", "run",
            f"{site}/api/schema", "--checks=all", f"--header=Authorization: Bearer {sign_in(site)}",
            f"--max-time={SECONDS}", "--max-examples=25", "--seed=1", "--no-shrink", "--continue-on-failure",
            "--warnings=off", "--output-truncate=false",
        ]  # fmt: skip
        env = os.environ | {"LORASITE_TASK": task, "NO_COLOR": "1"}
        checked = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
        log = (tmp_path / "site.log").read_text(errors="replace")
    assert "Traceback" not in log, "\n".join(log[log.index("Traceback") :].splitlines()[:60])
    assert checked.returncode == 0, checked.stdout[-12_000:]
