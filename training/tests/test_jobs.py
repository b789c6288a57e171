"""Real trainings of the sample base model, in this process."""

import json
import shutil
import threading

import pytest

from experiments.services import ModelMissingError
from training import jobs, services
from training.models import Point, Stage, Status, Task
from training.tests.conftest import long, tiny, until
from work import lease, running

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.slow
def test_submitted_run_succeeds_and_leaves_a_model_that_loads(submit, run_worker, api, member):
    task = submit(tiny(num_train_epochs=2))
    run_worker()
    task.refresh_from_db()
    assert task.status == Status.SUCCESS, task.error
    assert (task.stage, task.percent, task.attempt, task.lease_until) == (Stage.DONE, 100, 1, None)
    folder = task.experiment.folder
    for name in ("config.yaml", "metrics.json", "logs.txt", "artifacts/final_model/adapter_model.safetensors"):
        assert (folder / name).stat().st_size
    task.experiment.refresh_from_db()
    assert task.experiment.accuracy == json.loads((folder / "metrics.json").read_text())["eval"]["accuracy"]
    body = api(member).get(f"/api/task/{task.pk}").json()
    assert body["progress"]["step"] == body["progress"]["total_steps"] == 8
    assert body["result"]["accuracy"] == task.experiment.accuracy
    points = list(Point.objects.filter(task=task))
    assert len(points) == 8 and all((p.loss or 0) > 0 and (p.memory_mb or 0) > 10 for p in points)
    assert sum(p.accuracy is not None for p in points) == 2
    lines = api(member).get(f"/api/task/{task.pk}/logs").json()
    assert "Attempt 1 starts." in lines["lines"][0]["text"]
    assert api(member).get(f"/api/task/{task.pk}/logs", {"after": lines["next"]}).json()["lines"] == []
    assert api(member).get(f"/api/task/{task.pk}/logs", {"after": 10**17 + 1}).status_code == 400


@pytest.mark.slow
def test_what_is_noticed_before_the_first_step_is_on_the_run_page_in_the_api_and_in_metrics(
    submit, run_worker, api, client, member
):
    config = tiny()
    config["data"]["max_length"] = 8192  # more than the sample model has positions for
    task = submit(config)
    run_worker()
    message = "Texts are truncated to 512 tokens instead of data.max_length 8,192"
    client.force_login(member)
    assert message in client.get(f"/runs/{task.pk}/").content.decode()
    assert message in client.get(f"/experiments/{task.experiment.name}/", follow=True).content.decode()
    notices = api(member).get(f"/api/task/{task.pk}").json()["notices"]
    (notice,) = [notice for notice in notices if notice["code"] == "max_length_lowered"]
    metrics = json.loads((task.experiment.folder / "metrics.json").read_text())
    assert notice in metrics["notices"] and metrics["data"]["max_length"] == 512


@pytest.mark.slow
def test_one_failing_run_does_not_stop_the_next(submit, run_worker, dataset):
    lost, fine = submit(tiny("lost")), submit(tiny("fine"))
    experiment = lost.experiment
    experiment.config = {**experiment.config, "training": {**experiment.config["training"], "device": "cuda"}}
    experiment.config["model"]["name"] = "nobody/such-model-anywhere"
    experiment.save()
    run_worker()
    lost.refresh_from_db()
    fine.refresh_from_db()
    assert (lost.status, fine.status) == (Status.FAILURE, Status.SUCCESS)
    assert set(lost.error) >= {"code", "message", "kept", "next"}
    assert lost.error["code"] != "unexpected"


def test_missing_data_file_fails_in_words(submit, run_worker):
    task = submit()
    task.experiment.version.path.unlink()
    run_worker()
    task.refresh_from_db()
    assert (task.status, task.error["code"]) == (Status.FAILURE, "data_unreadable")
    assert task.log.filter(level="error").exists()


@pytest.mark.slow
def test_removed_results_folder_is_a_failure_of_its_own_that_says_what_is_left(submit, run_worker):
    task = submit(long())

    def remove_when_it_trains() -> None:
        folder = task.experiment.folder
        until(lambda: (folder / "logs.txt").exists() and "Step 3/" in (folder / "logs.txt").read_text())
        shutil.rmtree(folder, ignore_errors=True)

    remover = threading.Thread(target=remove_when_it_trains)
    remover.start()
    run_worker()
    remover.join()
    task.refresh_from_db()
    assert (task.status, task.error["code"]) == (Status.FAILURE, "folder_gone")
    assert "long was removed" in task.error["message"] and "checkpoints" not in task.error["kept"]


def test_unforeseen_error_shows_a_number_and_no_traceback(submit, run_worker):
    task = submit()
    task.experiment.folder.parent.mkdir(exist_ok=True)
    task.experiment.folder.write_text("a file where the folder should be")
    run_worker()
    task.refresh_from_db()
    assert task.status == Status.FAILURE
    assert "Traceback" not in json.dumps(task.error)
    assert task.error["next"]


def test_success_is_refused_when_the_model_files_are_not_there(submit):
    task = lease.acquire(Task, submit().pk)
    assert task is not None
    with pytest.raises(ModelMissingError):
        jobs.TrainingRunner().finish(task, {"eval": {"accuracy": 1.0}})
    task.refresh_from_db()
    assert task.status == Status.STARTED


@pytest.mark.slow
def test_cancel_stops_within_a_step_and_resume_goes_on_from_there(submit, run_worker, member, monkeypatch):
    task = submit(tiny(num_train_epochs=4))
    seen: list[int] = []
    is_cancelled = running.StopSignal.is_cancelled

    def cancel_at_third_step(self):
        seen.append(len(seen) + 1)
        if len(seen) == 3:
            services.cancel(user=member, task=Task.objects.get(pk=task.pk))
        self.checked_at = 0.0
        return is_cancelled(self)

    monkeypatch.setattr(running.StopSignal, "is_cancelled", cancel_at_third_step)
    run_worker()
    task.refresh_from_db()
    assert (task.status, task.step, task.deaths) == (Status.CANCELLED, 3, 0)
    monkeypatch.undo()
    services.resume(user=member, task=task)
    run_worker()
    task.refresh_from_db()
    assert (task.status, task.attempt, task.step) == (Status.SUCCESS, 2, 16), task.error
    assert task.facts["resumed_from_step"] == 3
    assert task.points.count() == 16


@pytest.mark.slow
def test_sigterm_saves_the_run_and_gives_it_back(submit, run_worker, monkeypatch):
    task = submit(tiny(num_train_epochs=4))

    def stop_now(self):
        running.request_stop()
        return True

    monkeypatch.setattr(running.StopSignal, "is_cancelled", stop_now)
    run_worker()
    running.stopping.clear()
    task.refresh_from_db()
    assert (task.status, task.sent_at, task.deaths) == (Status.PENDING, None, 0)
    assert list((task.experiment.folder / "artifacts" / "checkpoints").glob("checkpoint-*"))
