"""Dashboard and alerts use existing metrics, and Prometheus understands their queries."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

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


def panels() -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "boards" / "lorasite.json").read_text())["panels"]
    return content


def board() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


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


def test_panels_have_ids_and_places_of_their_own() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels()
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len({*cells}) and max(x for x, _y in cells) == 23


def test_board_shows_all_metrics_of_answers_of_language_models() -> None:
    page = (BASE_DIR / "docs" / "monitoring.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(lorasite_(?:generat|first_token)\w+)`", page, re.MULTILINE))
    shown = {name.removesuffix("_bucket") for query in board() for name in METRIC.findall(query)}
    assert len(documented) == 4 and documented <= shown


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
