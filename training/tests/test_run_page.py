"""The page of a run: its tabs, what a poll brings, and the same figures as elsewhere."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.translation import override

from accounts.permissions import grant_access
from engine.errors import ConfigError, DeviceUnavailableError, Problem
from engine.events import Notice, StageChanged
from engine.sentences import Sentence
from experiments.models import Experiment
from experiments.task_types import METRIC_TITLES
from testing.belongings import belongings
from testing.experiments import METRICS, did_not_learn
from training.models import LogLine, Point, Status, Task
from training.progress import TrainingProgress
from web.sentences import pack
from work.running import end_failed, known_error, unexpected_error

pytestmark = pytest.mark.django_db

TABS = ("overview", "errors", "labels", "log", "config", "files", "access")
FINISHED: dict[str, Any] = METRICS | {
    "train": {"runtime_s": 95.0, "steps": 20, "tokens_per_second": 1500.0},
    "system": {"peak_memory_mb": 884.0},
    "data": {"train_rows": 40, "eval_rows": 20},
    "result": {"learned": True, "cause": "", "evidence": {}},
}


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def task(member: Any) -> Task:
    """The member's run `mine`, in progress: two points, one evaluation."""
    task = belongings(member).task
    now = timezone.now()
    Task.objects.filter(pk=task.pk).update(
        status=Status.STARTED, attempt=1, step=20, total_steps=40, started_at=now - timedelta(seconds=60)
    )
    for step, loss in ((10, 0.9), (20, 0.5)):
        Point.objects.create(
            task=task,
            step=step,
            epoch=1,
            loss=loss,
            tokens_per_second=1000 + step,
            cpu_percent=step,
            memory_mb=300 + step,
        )
    Point.objects.filter(step=20).update(accuracy=0.7, macro_f1=0.6, eval_loss=0.5)
    LogLine.objects.create(task=task, at=now, text="Stage: training.")
    task.refresh_from_db()
    return task


def finish(task: Task, metrics: dict[str, Any] = FINISHED) -> None:
    assert task.started_at
    values = {"accuracy": metrics["eval"]["accuracy"], "macro_f1": 0.79, "score": metrics["eval"]["accuracy"]}
    learned = metrics.get("result", {}).get("learned")
    Experiment.objects.update(
        metrics=metrics, eval_loss=0.4, runtime_s=95.0, tokens_per_second=1500, learned=learned, **values
    )
    Task.objects.filter(pk=task.pk).update(
        status=Status.SUCCESS, stage="done", ended_at=task.started_at + timedelta(seconds=108)
    )


def poll(browser: Client, task: Task, **seen: str | int) -> Any:
    return browser.get(f"/runs/{task.pk}/", seen, headers={"HX-Request": "true"})


def figures(page: Any) -> dict[str, str]:
    return {figure.title: figure.value for figure in page.context["figures"]}


def test_old_address_of_the_experiment_leads_to_the_run_with_its_query(browser: Client, task: Task) -> None:
    assert browser.get("/experiments/mine/")["Location"] == f"/runs/{task.pk}/"
    answer = browser.get("/experiments/mine/?tab=files&checkpoint=best")
    assert answer["Location"] == f"/runs/{task.pk}/?tab=files&checkpoint=best"


@pytest.mark.parametrize("status", Status.values)
@pytest.mark.parametrize("tab", TABS)
def test_every_tab_opens_in_every_state_with_few_queries(
    browser: Client, task: Task, tab: str, status: str, django_assert_max_num_queries: Any
) -> None:
    if status == Status.SUCCESS:
        finish(task)
    Task.objects.update(status=status)
    with django_assert_max_num_queries(25):
        page = browser.get(f"/runs/{task.pk}/", {"tab": tab})
    assert page.status_code == 200 and page.context["tab"] == tab
    content = page.content.decode()
    assert content.count('aria-current="page"') >= 1 and f'id="tab-{tab}"' in content
    assert "<title>mine: " in content or status == Status.STARTED


def test_click_on_a_tab_brings_what_is_below_the_head_and_only_that_tab(browser: Client, task: Task) -> None:
    finish(task)
    headers = {"HX-Request": "true", "HX-Target": "run-view"}
    part = browser.get(f"/runs/{task.pk}/", {"tab": "errors"}, headers=headers)
    content = part.content.decode()
    assert part.status_code == 200 and "<html" not in content and content.lstrip().startswith("<title>")
    assert "Confusion matrix" in content and 'id="log"' not in content and "charts" not in part.context
    assert {"HX-Request", "HX-Target"} <= {name.strip() for name in part["Vary"].split(",")}


def test_unknown_tab_is_the_overview_and_scores_have_no_labels(browser: Client, task: Task) -> None:
    assert browser.get(f"/runs/{task.pk}/?tab=nothing").context["tab"] == "overview"
    Experiment.objects.update(task_type="regression")
    page = browser.get(f"/runs/{task.pk}/?tab=labels")
    assert page.context["tab"] == "overview" and b'id="tab-labels"' not in page.content


def test_poll_brings_only_what_is_new(browser: Client, task: Task) -> None:
    page = browser.get(f"/runs/{task.pk}/")
    address = re.search(r'id="progress"[^>]*hx-get="([^"]+)"', page.content.decode())
    assert address
    unchanged = browser.get(address[1].replace("&amp;", "&"), headers={"HX-Request": "true"}).content.decode()
    assert "run-actions" not in unchanged and "loss-data" not in unchanged and "Stage: training." not in unchanged

    LogLine.objects.create(task=task, at=timezone.now(), text="Step 30/40.")
    Point.objects.create(task=task, step=30, epoch=1, loss=0.4)
    changed = browser.get(address[1].replace("&amp;", "&"), headers={"HX-Request": "true"}).content.decode()
    assert 'hx-swap-oob="beforeend:#log"' in changed and "Step 30/40." in changed and "Stage: training." not in changed
    assert "loss-data" in changed and "run-actions" not in changed


def test_evaluation_of_a_step_that_is_drawn_already_is_new(browser: Client, task: Task) -> None:
    token = browser.get(f"/runs/{task.pk}/").context["points_token"]
    Point.objects.filter(step=10).update(accuracy=0.5, eval_loss=0.8)
    assert "metrics-data" in poll(browser, task, points=token).content.decode()


def test_last_poll_brings_buttons_details_and_results(browser: Client, task: Task) -> None:
    finish(task)
    last = poll(browser, task, tab="overview", state="STARTED-1-0", heard=2)
    content = last.content.decode()
    assert last.status_code == 286 and 'hx-trigger="every 1s"' not in content
    assert 'id="run-details"' in content and "Try the model" in content and "Right in 80.0%" in content
    assert "mine: done" in content
    errors = poll(browser, task, tab="errors", state="STARTED-1-0").content.decode()
    assert 'id="tab" hx-swap-oob="true"' in errors and "Confusion matrix" in errors


@pytest.mark.medium
def test_title_says_how_far_the_run_is_and_then_its_state(browser: Client, task: Task) -> None:
    assert browser.get(f"/runs/{task.pk}/").context["title"] == "50% · mine"
    assert "<title>50" in poll(browser, task).content.decode()
    finish(task, did_not_learn("data"))
    assert browser.get(f"/runs/{task.pk}/").context["title"] == "mine: did not learn"


def test_list_polls_the_states_of_unfinished_runs_and_stops_with_the_last(
    browser: Client, task: Task, stranger: Any
) -> None:
    address = re.search(r'hx-get="(/runs/states/[^"]+)"', browser.get("/experiments/").content.decode())[1]  # type: ignore[index]
    answer = browser.get(address.replace("&amp;", "&"))
    assert answer.status_code == 200
    assert f'id="state-{task.pk}" data-status="running" hx-swap-oob="true">running 50%<' in answer.content.decode()
    finish(task, did_not_learn("data"))
    answer = browser.get(address)
    assert answer.status_code == 286 and 'data-status="warning"' in answer.content.decode()
    assert "/runs/states/" not in browser.get("/experiments/").content.decode()
    browser.force_login(stranger)
    assert str(task.pk) not in browser.get(address).content.decode()
    assert browser.get("/runs/states/?task=nonsense&task=").status_code == 286


def test_run_that_did_not_learn_is_a_state_of_its_own_on_page_and_list(browser: Client, task: Task) -> None:
    finish(task, did_not_learn("precision"))
    content = browser.get(f"/runs/{task.pk}/").content.decode()
    assert 'id="run-status" data-status="warning">Did not learn<' in content
    assert re.search(r'class="button primary" id="remedy"', content) and 'id="try"' in content
    line = browser.get("/experiments/").content.decode()
    assert (
        f'<span class="badge" id="state-{task.pk}" data-status="warning">did not learn</span>' in line
        and 'data-status="success"' not in line
    )


def test_cancelled_run_shows_its_best_score_so_far_on_page_and_list(browser: Client, task: Task) -> None:
    Task.objects.update(status=Status.CANCELLED, stage="training")
    page = browser.get(f"/runs/{task.pk}/")
    assert figures(page)["Accuracy"] == "0.7000" and "Best so far: Accuracy 0.7000 at step 20." in page.content.decode()
    assert page.context["state"].code == "cancelled"
    assert '<li data-state="cancelled">' in page.content.decode()
    listed = browser.get("/experiments/").content.decode()
    assert '0.7000 <span class="muted">so far</span>' in listed and 'data-status="cancelled"' in listed


def test_figures_of_a_finished_run_are_averages_and_peaks_that_the_list_has_too(browser: Client, task: Task) -> None:
    finish(task)
    page = browser.get(f"/runs/{task.pk}/")
    shown = figures(page)
    assert shown["Accuracy"] == "0.8000" and shown["Above the baseline"] == "+30.0 points"
    assert shown["Training time"] == "1 min 35 s" and shown["Total time"] == "1 min 48 s"
    assert shown["Peak memory"] == "884\N{NO-BREAK SPACE}MiB"
    usage = {figure.title: (figure.value, figure.note) for figure in page.context["usage"]}
    assert usage["CPU"] == ("15%", "average") and usage["Memory"] == (
        "320\N{NO-BREAK SPACE}MiB",
        "peak",
    )
    assert usage["Tokens per second"] == ("1,500", "average")
    listed = browser.get("/experiments/?columns=score&columns=duration").content.decode()
    assert "0.8000" in listed and "Training time (s)" in listed and re.search(r">95\s*</td>", listed)


@pytest.mark.medium
def test_run_in_progress_has_as_many_figures_as_after_its_end(browser: Client, task: Task) -> None:
    """So that nothing below them moves when it ends."""
    before = browser.get(f"/runs/{task.pk}/")
    assert figures(before)["Accuracy"] == "0.7000" and figures(before)["CPU"] == "20%"
    finish(task)
    assert len(figures(browser.get(f"/runs/{task.pk}/"))) == len(figures(before)) == 6


def test_log_is_in_order_and_its_file_can_be_downloaded(browser: Client, task: Task) -> None:
    lines = [LogLine(task=task, at=timezone.now(), text=f"Line {number}.") for number in range(30)]
    LogLine.objects.bulk_create(lines)
    tail = browser.get(f"/runs/{task.pk}/").content.decode()
    assert "Line 18." in tail and "Line 17." not in tail and tail.index("Line 18.") < tail.index("Line 29.")
    whole = browser.get(f"/runs/{task.pk}/?tab=log").content.decode()
    assert "Stage: training." in whole and "logs.txt" not in whole
    (task.experiment.folder / "logs.txt").write_text("Line 0.\n")
    assert "/experiments/mine/files/logs.txt" in browser.get(f"/runs/{task.pk}/?tab=log").content.decode()


def test_settings_that_differ_from_the_defaults_come_first(browser: Client, task: Task) -> None:
    Experiment.objects.update(config={"experiment_name": "mine", "lora": {"r": 3}, "training": {"num_train_epochs": 3}})
    page = browser.get(f"/runs/{task.pk}/?tab=config")
    assert [setting["name"] for setting in page.context["changed"]] == ["lora.r"]
    content = page.content.decode()
    assert content.index("lora.r") < content.index('id="config"') and "num_train_epochs: 3" in content


def test_checkpoints_are_folded_and_code_is_beside_the_files(browser: Client, task: Task) -> None:
    folder = task.experiment.folder / "artifacts/checkpoints/checkpoint-10"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 2048)
    finish(task)
    page = browser.get(f"/runs/{task.pk}/?tab=files")
    assert [file["path"] for file in page.context["files"]] == ["config.yaml"]
    content = page.content.decode()
    assert "1 file of the checkpoints, 2.0" in content and "PeftModel" in content
    in_chinese = browser.get(f"/runs/{task.pk}/?tab=files", headers={"Accept-Language": "zh-Hant"})
    assert in_chinese.context["metric_title"] == METRIC_TITLES["accuracy"]


def test_access_is_changed_without_leaving_its_tab(browser: Client, task: Task, stranger: Any) -> None:
    page = f"/runs/{task.pk}/?tab=access"
    assert f'name="page" value="{page}"' in browser.get(page).content.decode()
    change = {"to": "stranger", "access": "view", "page": page}
    assert browser.post("/sharing/experiment/mine/", change)["Location"] == page
    elsewhere = browser.post("/sharing/experiment/mine/", change | {"page": "https://example.org/"})
    assert elsewhere["Location"] == "/experiments/mine/"


@pytest.mark.medium
def test_reader_sees_every_tab_but_no_action(client: Client, task: Task, viewer: Any) -> None:
    finish(task)
    grant_access(task, to=viewer)
    client.force_login(viewer)
    pages = "".join(client.get(f"/runs/{task.pk}/?tab={tab}").content.decode() for tab in TABS)
    for action in ('id="register"', 'id="again"', 'id="cancel"', 'id="resume"', "Delete mine"):
        assert action not in pages
    assert 'id="try"' in pages


def test_error_of_a_run_on_scores_is_below_its_baseline(browser: Client, task: Task) -> None:
    metrics = FINISHED | {
        "task": "regression",
        "eval": {"mae": 0.4, "rmse": 0.5, "r2": 0.8, "loss": 0.2, "intervals": {"mae": [0.35, 0.46]}},
        "baseline": {"mean_mae": 1.2},
    }
    finish(task)
    Experiment.objects.update(metrics=metrics, task_type="regression", accuracy=None)
    shown = figures(browser.get(f"/runs/{task.pk}/"))
    assert shown["R²"] == "0.8000" and shown["Below the baseline"] == "0.8000"


def test_hardest_rows_of_a_perfect_model_are_not_called_errors(browser: Client, task: Task) -> None:
    finish(task, FINISHED | {"worst": [{"text": "a fine day", "label": "good", "predicted": "good"}]})
    page = browser.get(f"/runs/{task.pk}/?tab=errors").content.decode()
    assert "Hardest rows" in page and "All of these were answered right." in page and "right:" in page


def test_log_and_notices_are_in_the_language_of_the_reader(browser: Client, task: Task) -> None:
    message = Sentence("{count} texts were truncated to {limit} tokens.", count=3, limit=128)
    progress = TrainingProgress(task)
    progress.add(Notice("info", "truncated", message))
    progress.add(StageChanged("training"))
    progress.write()
    assert list(task.log.values_list("text", flat=True)) == ["Stage: training.", message, "Stage: training."]
    page = browser.get(f"/runs/{task.pk}/?tab=log", headers={"Accept-Language": "zh-Hant"}).content.decode()
    assert "階段：訓練中。" in page and page.count("Stage: training.") == 1  # of an earlier release
    overview = browser.get(f"/runs/{task.pk}/", headers={"Accept-Language": "zh-Hant"}).content.decode()
    assert "3 筆文字已截斷為 128 個 token。" in overview
    assert str(message) in browser.get(f"/runs/{task.pk}/").content.decode()


def test_error_that_ended_a_run_is_in_the_language_of_the_reader(browser: Client, task: Task) -> None:
    wrong = Sentence(
        "This machine has no {device} device. Choose auto or one of: {present}.", device="CUDA", present="cpu"
    )
    Task.objects.filter(pk=task.pk).update(status=Status.STARTED)
    task.refresh_from_db()
    end_failed(task, known_error(task, DeviceUnavailableError(wrong, field="training.device")))
    chinese = {"Accept-Language": "zh-Hant"}
    page = browser.get(f"/runs/{task.pk}/", headers=chinese).content.decode()
    assert page.count("這台機器沒有 CUDA 裝置。") == 2  # above the tabs, and in the log
    error = browser.get(f"/api/task/{task.pk}", headers=chinese).json()["error"]
    assert error["message"].startswith("這台機器沒有") and error["kept"] == in_chinese(task.messages.error_kept)
    assert browser.get(f"/api/task/{task.pk}").json()["error"]["message"] == wrong and "sentence" not in error


def test_several_problems_and_unexpected_errors_are_translated_too(task: Task) -> None:
    several = ConfigError([Problem("data", Sentence("no label"), ""), Problem("", Sentence("find entities"), "")])
    assert known_error(task, several)["field"] == "data"
    messages = {
        "沒有標籤找出實體": known_error(task, several),
        "發生未預期的錯誤（錯誤編號 12ab）。": unexpected_error(task, "12ab"),
    }
    for message, error in messages.items():
        task.error = error | {"sentence": pack(error["message"])}
        with override("zh-hant"):
            assert (task.explained_error or {})["message"] == message


def in_chinese(message: object) -> str:
    with override("zh-hant"):
        return str(message)
