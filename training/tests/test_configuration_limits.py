"""A configuration that is too large, or no YAML, is refused in words on each way in: API, page, command."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from engine.safe_yaml import LIMIT
from training.models import Task

pytestmark = pytest.mark.django_db
BROKEN = ["experiment_name: !!int abc", "seed: !!timestamp zz", "seed: " + "9" * 60_000, "seed: !!float x"]


@pytest.mark.parametrize("path", ["/api/train", "/api/train/validate"])
@pytest.mark.parametrize("kind", ["application/json", "application/yaml"])
def test_api_refuses_a_configuration_over_64_kib(api: Any, member: Any, path: str, kind: str) -> None:
    body = json.dumps({"lora": {"target_modules": ["q"] * (LIMIT // 5)}})
    answer = api(member).generic("POST", path, body.encode(), content_type=kind)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "64 KiB" in answer.json()["detail"] and not Task.objects.exists()


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:24])
def test_value_that_cannot_be_built_is_400_with_its_line(api: Any, member: Any, text: str) -> None:
    for path in ("/api/train", "/api/train/validate"):
        answer = api(member).post(path, text, content_type="application/yaml")
        assert answer.status_code == 400 and "line 1" in answer.json()["detail"], answer.content[:400]


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 4000, "1e999", "-" + "9" * 400])
def test_giant_number_in_json_is_400(api: Any, member: Any, number: str) -> None:
    for field in ("seed", "learning_rate", "max_steps"):
        body = f'{{"training": {{"{field}": {number}}}}}'
        answer = api(member).generic("POST", "/api/train/validate", body.encode(), content_type="application/json")
        assert answer.status_code == 400 and len(answer.content) < 3000, answer.content[:400]


def test_viewer_cannot_have_a_configuration_parsed(api: Any, viewer: Any) -> None:
    for path in ("/api/train", "/api/train/validate"):
        assert api(viewer).post(path, "a: [1", content_type="application/yaml").status_code == 403


@pytest.mark.parametrize(
    "value",
    ["1" + ":1" * 30_000, "9" * 60_000, "!!int abc", "[" * 60_000, "!!timestamp zz"],
    ids=lambda value: value[:24],
)
def test_field_of_the_form_that_cannot_be_built_is_told_beside_it(client: Any, member: Any, value: str) -> None:
    client.force_login(member)
    answer = client.post("/train/", {"do": "start", "training.seed": value})
    assert answer.status_code == 400 and "training.seed" in answer.context["form"].errors
    assert len(answer.context["form"].errors["training.seed"][0]) < 400


@pytest.mark.slow
@pytest.mark.parametrize("do", ["start", "estimate", "show"])
def test_form_over_64_kib_is_refused_before_it_is_parsed(client: Any, member: Any, do: str) -> None:
    client.force_login(member)
    fields = {f"lora.{name}": "[" + "q," * 15_000 + "]" for name in ("target_modules", "modules_to_save", "r")}
    answer = client.post("/train/", {"do": do, **fields})
    assert answer.status_code == 413 and "too long for a configuration" in answer.content.decode()


@pytest.mark.parametrize("text", [*BROKEN, "# " + "x" * LIMIT], ids=lambda text: text[:24])
def test_yaml_on_the_page_that_cannot_be_read_stays_there_with_its_reason(client: Any, member: Any, text: str) -> None:
    client.force_login(member)
    answer = client.post("/train/", {"do": "read", "yaml": text})
    assert answer.status_code == 400 and answer.context["yaml"] == text
    assert "The configuration is" in answer.content.decode() or "Look at line 1" in answer.content.decode()


def test_name_that_looks_like_a_date_is_a_name(api: Any, member: Any, dataset: Any) -> None:
    for name in ("2026-11-25", "2026-13-45"):
        text = f"experiment_name: {name}\ndata:\n  dataset_name: tweets\n"
        answer = api(member).post("/api/train", text, content_type="application/yaml")
        assert answer.status_code == 202, answer.content
        assert Task.objects.get(pk=answer.json()["task_id"]).experiment.name == name


@pytest.mark.parametrize(("command", "options"), [("train", {"user": "admin"}), ("run_local", {})])
def test_command_refuses_a_file_that_is_too_large_or_no_yaml(
    command: str, options: dict[str, str], admin: Any, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    for text, expected in (("# " + "x" * LIMIT, "larger than 64 KiB"), ("seed: !!int abc", "Look at line 1")):
        file.write_text(text)
        with pytest.raises(CommandError, match=expected) as caught:
            call_command(command, str(file), stdout=StringIO(), **options)
        assert caught.value.returncode == 2
