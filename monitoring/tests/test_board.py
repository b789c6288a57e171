"""Dashboard and alerts use existing metrics, and Prometheus understands their queries."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from lorasite.env import BASE_DIR
from monitoring.metrics import exposition

DEPLOY = BASE_DIR / "deploy"
METRIC = re.compile(r"\b(?:lorasite|django|process|python)_\w+")
SUFFIXES = ("", "_total", "_bucket", "_count", "_sum")

promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool comes with Debian's prometheus")


def board() -> list[str]:
    panels = json.loads((DEPLOY / "grafana" / "boards" / "lorasite.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def alerts() -> list[dict[str, str]]:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


@pytest.mark.django_db
def test_every_query_names_existing_metrics(client: Client) -> None:
    client.get("/login/")
    families = text_string_to_metric_families(exposition().decode())
    there = {family.name + suffix for family in families for suffix in SUFFIXES}
    used = {name for query in [*board(), *(rule["expr"] for rule in alerts())] for name in METRIC.findall(query)}
    assert len(used) > 15 and used <= there


def test_every_alert_is_documented() -> None:
    page = (BASE_DIR / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(Lorasite\w+)`", page, re.MULTILINE)) == {rule["alert"] for rule in alerts()}


@promtool
def test_prometheus_understands_every_query_of_the_board(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(board())]
    (tmp_path / "board.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", str(tmp_path / "board.yml")], check=True, capture_output=True)


@promtool
@pytest.mark.parametrize(
    "line", ["check rules alerts.yml", "test rules alerts_test.yml", "check config --syntax-only prometheus.yml"]
)
def test_alerts_fire_when_they_should(line: str) -> None:
    subprocess.run(["promtool", *line.split()], cwd=DEPLOY / "prometheus", check=True, capture_output=True)
