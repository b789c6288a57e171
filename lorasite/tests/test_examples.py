"""docs/examples.md, run unchanged against a site, and the client, compared with the schema."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import lorasite_client
import pytest
from django.conf import settings
from drf_spectacular.generators import SchemaGenerator

from testing.browser import moods
from testing.site import PASSWORD, running_site

ROOT = Path(settings.BASE_DIR)
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_site(tmp_path_factory.mktemp("site")) as address:
        yield address


@pytest.fixture
def place(site: str, tmp_path: Path) -> dict[str, Any]:
    """Arguments of subprocess.run: a folder with a file to train on, and the environment that the page expects."""
    moods(tmp_path / "moods.csv")
    token = lorasite_client.Lorasite.sign_in(site, "root", PASSWORD).token
    env = os.environ | {"SITE": site, "TOKEN": token, "PYTHONPATH": str(ROOT / "client")}
    return {"cwd": tmp_path, "env": env, "capture_output": True, "text": True, "timeout": 240}


@pytest.mark.process
def test_python_examples_run(place: dict[str, Any]) -> None:
    ended = subprocess.run([sys.executable, "-c", blocks("python")], **place)
    assert ended.returncode == 0, ended.stderr
    output = ended.stdout
    assert "moods 1 240 rows" in output and "SUCCESS done" in output and "adapter_model.safetensors" in output
    assert re.search(r"^good 0\.\d+$", output, re.MULTILINE) and "400 invalid" in output and "lora.r" in output


@pytest.mark.process
def test_curl_examples_run(place: dict[str, Any]) -> None:
    ended = subprocess.run(["bash", "-euo", "pipefail", "-c", blocks("sh")], **place)
    assert ended.returncode == 0, ended.stderr
    assert (place["cwd"] / "adapter_model.safetensors").stat().st_size > 1000 and '"label_name":"good"' in ended.stdout


SHAPES = {
    "Accepted": "Accepted", "Stored": "Stored", "Task": "Task", "Progress": "Progress", "Row": "ExperimentRow",
    "Experiment": "ExperimentDetail", "Result": "Result", "TaskResult": "TaskResult", "Notice": "Notice",
    "File": "File", "Prediction": "PredictAnswer",
    "LabelsPrediction": "PredictLabelsAnswer", "ScorePrediction": "PredictScoreAnswer", "Explanation": "Explanation",
    "ExplainedValue": "Target", "WordWeight": "Word", "EntitiesPrediction": "PredictEntitiesAnswer", "Entity": "Entity",
}  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), SHAPES.items())
def test_client_knows_every_field_of_the_schema(ours: str, theirs: str) -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)["components"]["schemas"][theirs]
    assert set(get_type_hints(getattr(lorasite_client, ours))) == set(schema["properties"])


def test_client_asks_addresses_of_the_schema_only() -> None:
    source = (ROOT / "client" / "lorasite_client.py").read_text(encoding="utf-8")
    used = {re.sub(r"{[^}]*}", "{}", path.partition("?")[0]) for path in re.findall(r'f?"(/api/[^"]+)"', source)}
    documented = {
        re.sub(r"{[^}]*}", "{}", path) for path in SchemaGenerator().get_schema(request=None, public=True)["paths"]
    }
    assert len(used) > 8 and used <= documented
