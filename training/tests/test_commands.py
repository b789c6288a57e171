"""manage.py train and manage.py tasks do what page and API do, as the person that they name."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from engine.names import folder_name
from testing.datasets import store_dataset
from training.models import Status, Task
from web.commands import align_columns

pytestmark = pytest.mark.django_db


def run(*arguments: Any) -> str:
    out = io.StringIO()
    call_command(*map(str, arguments), stdout=out)
    return out.getvalue()


@pytest.fixture
def file(member: Any, tweets_csv: Path, tmp_path: Path) -> Path:
    store_dataset(member, "tweets", tweets_csv)
    path = tmp_path / "run.yaml"
    path.write_text("experiment_name: first\ndata: {dataset_name: tweets}\n")
    return path


def test_run_is_submitted_listed_cancelled_and_resumed(file: Path) -> None:
    submitted = json.loads(run("train", file, "--user", "member", "--json"))
    assert submitted["status"] == "PENDING" and submitted["task_id"] == str(Task.objects.get().pk)
    assert run("tasks", "list", "--user", "member").splitlines()[1].split()[1:] == ["PENDING", "0%", "first"]
    assert json.loads(run("tasks", "cancel", "first", "--user", "member", "--json"))[0]["status"] == "CANCELLED"
    run("tasks", "resume", submitted["task_id"], "--user", "member")
    assert Task.objects.get().status == Status.PENDING


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("tasks", "cancel", "first", "--user", "stranger"), 3), (("tasks", "cancel", "nothing", "--user", "member"), 3),
     (("tasks", "resume", "first", "--user", "member"), 1), (("train", "nowhere.yaml", "--user", "member"), 3)],
)  # fmt: skip
def test_refusal_is_a_sentence_and_an_exit_status(file: Path, stranger: Any, arguments: Any, status: int) -> None:
    run("train", file, "--user", "member")
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    assert refused.value.returncode == status and Task.objects.get().status == Status.PENDING


def test_wrong_values_are_all_told_at_once(file: Path) -> None:
    file.write_text("lora: {r: 0}\ntraining: {learning_rate: 9}\n")
    with pytest.raises(CommandError, match=r"lora\.r") as refused:
        run("train", file, "--user", "member")
    assert "training.learning_rate" in str(refused.value) and refused.value.returncode == 2


def test_name_on_the_command_line_takes_any_script_and_is_checked_as_in_the_file(file: Path) -> None:
    run("train", file, "--user", "member", "--name", "客服工單")
    task = Task.objects.get()
    assert task.experiment.name == task.experiment.config["experiment_name"] == "客服工單"
    assert "客服工單" in run("tasks", "cancel", "客服工單", "--user", "member")
    with pytest.raises(CommandError, match="A name cannot contain “/”") as refused:
        run("train", file, "--user", "member", "--name", "a/b")
    assert refused.value.returncode == 2 and Task.objects.count() == 1


def test_log_is_found_by_a_name_in_any_script(settings: Any) -> None:
    folder = Path(settings.RESULTS_DIR) / folder_name("客服工單")
    folder.mkdir()
    (folder / "logs.txt").write_text("Stage: training.\n")
    assert run("logs_local", "客服工單") == "Stage: training.\n"


def test_columns_of_wide_characters_are_aligned() -> None:
    assert align_columns([["name", "rows"], ["客服", 3], ["re\u0301sume\u0301", 12]]) == [
        "name    rows",
        "客服    3",
        "re\u0301sume\u0301  12",
    ]
