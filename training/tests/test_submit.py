import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from accounts.models import BaseModelRule
from audit.models import Entry
from training import services
from training.models import Status, Task
from training.tests.conftest import tiny
from web.errors import ConflictError, InvalidError, NotAllowedError

pytestmark = pytest.mark.django_db


def bad(section: str, **values: object) -> dict:
    config = tiny()
    config[section] = {**config.get(section, {}), **values}
    return config


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (bad("lora", r=0), "lora.r"),
        (bad("training", learning_rate=-1e-4), "training.learning_rate"),
        ({**tiny(), "nonsense": 1}, "nonsense"),
        (bad("data", dataset_name="no-such-data"), "data.dataset_name"),
        (bad("data", dataset_name="../secret.csv"), "data.dataset_name"),
        (bad("data", dataset_name="/etc/passwd"), "data.dataset_name"),
        (bad("data", dataset_name="folder/tweets.csv"), "data.dataset_name"),
        (bad("data", dataset_name="tweets@99"), "data.dataset_name"),
        (bad("model", name="nobody/such-model-anywhere"), "model.name"),
        (bad("model", name="../../etc"), "model.name"),
        (bad("model", load_in_4bit=True), "model.load_in_4bit"),
        ({**tiny(), "experiment_name": "../out"}, "experiment_name"),
    ],
)
def test_wrong_value_is_named_and_nothing_is_queued(api, member, dataset, config, field):
    answer = api(member).post("/api/train", config, format="json")
    assert answer.status_code == 400, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert field in [e["field"] for e in answer.json()["errors"]]
    assert all(e["message"] for e in answer.json()["errors"])
    assert not Task.objects.exists()


def test_base_model_of_a_damaged_folder_is_refused_before_anything_is_queued(submit, settings, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    settings.BASE_MODELS_DIR = tmp_path
    with pytest.raises(InvalidError, match=r"git-LFS pointer \(43 bytes\)") as caught:
        submit(bad("model", name="mine"))
    assert caught.value.problems[0]["field"] == "model.name" and str(tmp_path) not in str(caught.value)
    assert not Task.objects.exists()


def test_base_model_of_the_hub_that_lies_here_damaged_is_refused_before_anything_is_queued(
    submit, tmp_path, monkeypatch
):
    BaseModelRule.objects.create(pattern="somebody/*")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = tmp_path / "models--somebody--mine/snapshots/main"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--somebody--mine/refs").mkdir()
    (tmp_path / "models--somebody--mine/refs/main").write_text("main")
    (snapshot / "config.json").write_text('{"model_type": "bert"}')
    (snapshot / "model.safetensors").write_bytes(b"")
    with pytest.raises(InvalidError, match=r"model.safetensors is empty") as caught:
        submit(bad("model", name="somebody/mine"))
    assert caught.value.problems[0]["field"] == "model.name" and not Task.objects.exists()


class HubOfImageModels(BaseHTTPRequestHandler):
    """Answers every question about a model as the hub does about one that reads images."""

    def do_GET(self) -> None:
        body = json.dumps({"id": "somebody/vit", "config": {"model_type": "vit"}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_base_model_that_the_hub_calls_one_of_images_is_refused_before_it_is_downloaded(submit, monkeypatch):
    BaseModelRule.objects.create(pattern="somebody/*")
    server = HTTPServer(("127.0.0.1", 0), HubOfImageModels)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    try:
        with pytest.raises(InvalidError, match="no sequence classification for its type, vit") as caught:
            submit(bad("model", name="somebody/vit"))
    finally:
        server.shutdown()
        server.server_close()
    assert caught.value.problems[0]["field"] == "model.name" and not Task.objects.exists()


def test_several_wrong_values_are_told_at_once(api, member, dataset):
    config = {**bad("lora", r=0), "nonsense": 1}
    answer = api(member).post("/api/train", config, format="json")
    assert {"lora.r", "nonsense"} <= {e["field"] for e in answer.json()["errors"]}


def test_broken_yaml_is_refused_in_words(api, member):
    answer = api(member).post("/api/train", "lora: [1, 2", content_type="application/yaml")
    assert answer.status_code == 400
    assert "YAML" in answer.json()["detail"]


def test_yaml_text_is_accepted_as_well_as_json(api, member, dataset):
    text = services.parse_config(tiny()).to_yaml()
    answer = api(member).post("/api/train", text, content_type="application/yaml")
    assert answer.status_code == 202, answer.content


def test_accepted_run_answers_with_its_task(api, member, dataset):
    answer = api(member).post("/api/train", tiny(), format="json")
    task = Task.objects.get()
    assert answer.status_code == 202
    expected = {"task_id": str(task.pk), "status": "PENDING", "url": f"/api/task/{task.pk}", "notices": []}
    assert answer.json() == expected
    assert Entry.objects.filter(action="task.submit", username="member").exists()


def test_validate_checks_and_queues_nothing(api, member, dataset):
    assert api(member).post("/api/train/validate", tiny(), format="json").json()["config"]["lora"]["r"] == 4
    assert api(member).post("/api/train/validate", bad("lora", r=0), format="json").status_code == 400
    assert not Task.objects.exists()


def test_same_idempotency_key_gives_the_same_task(api, member, dataset):
    client = api(member)
    first, second = (
        client.post("/api/train", tiny(), format="json", headers={"Idempotency-Key": "k1"}) for _ in range(2)
    )
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    assert Task.objects.count() == 1


def test_same_key_for_another_configuration_is_a_conflict(submit):
    submit(tiny(), idempotency_key="k1")
    with pytest.raises(ConflictError):
        submit(tiny("another"), idempotency_key="k1")


def test_the_same_key_of_two_people_are_two_tasks(submit, dataset, admin):
    submit(tiny(), idempotency_key="k1")
    services.submit(user=admin, config=services.parse_config(tiny("theirs")), idempotency_key="k1")
    assert Task.objects.count() == 2


def test_run_without_a_name_gets_a_free_one(submit):
    config = tiny()
    del config["experiment_name"]
    names = {submit(config).experiment.name for _ in range(2)}
    assert len(names) == 2


def test_taken_name_is_refused_beside_its_field(api, member, submit):
    submit(tiny())
    answer = api(member).post("/api/train", tiny(), format="json")
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["field"] == "experiment_name"


def test_viewer_may_not_train(viewer):
    with pytest.raises(NotAllowedError):
        services.submit(user=viewer, config=services.parse_config(tiny()))


def test_strangers_cannot_train_on_data_that_is_not_shared(stranger, dataset):
    with pytest.raises(InvalidError) as caught:
        services.submit(user=stranger, config=services.parse_config(tiny()))
    assert caught.value.problems[0]["field"] == "data.dataset_name"


@pytest.mark.parametrize("action", ["", "/cancel", "/resume", "/logs"])
def test_task_is_not_found_for_a_stranger(api, stranger, submit, action):
    task = submit()
    call = api(stranger).post if action in ("/cancel", "/resume") else api(stranger).get
    assert call(f"/api/task/{task.pk}{action}").status_code == 404


def test_anonymous_is_asked_to_sign_in(client):
    assert client.post("/api/train", {}).status_code == 401


def test_task_answer_has_the_shape_of_the_specification(api, member, submit):
    task = submit()
    body = api(member).get(f"/api/task/{task.pk}").json()
    assert {"task_id", "status", "stage", "progress", "result", "error"} <= set(body)
    assert set(body["progress"]) == {"step", "total_steps", "epoch", "loss", "tokens_per_second", "eta_seconds"}
    assert body["status"] == Status.PENDING


def test_dataset_that_a_waiting_task_uses_cannot_be_deleted(submit, member, dataset):
    from datasets_app.services import delete

    task = submit()
    with pytest.raises(ConflictError) as caught:
        delete(user=member, dataset=dataset)
    assert task.experiment.name in str(caught.value)


def test_rule_of_the_run_refuses_a_dataset_with_that_finding(submit, dataset):
    dataset.latest.findings.update_or_create(
        code="markup", defaults={"severity": "info", "count": 3, "message": "HTML."}
    )
    with pytest.raises(InvalidError) as caught:
        submit(bad("data", validation_rules={"markup": "error"}))
    assert caught.value.problems[0]["field"] == "data.validation_rules"


def test_rule_for_long_texts_goes_by_the_run_s_own_length(submit, dataset):
    with pytest.raises(InvalidError) as caught:
        submit(bad("data", validation_rules={"over_token_limit": "error"}, max_length=8))
    assert "longer than 8 tokens" in str(caught.value.problems[0]["message"] or caught.value)
    assert caught.value.problems[0]["field"] == "data.validation_rules"
    assert submit(bad("data", validation_rules={"over_token_limit": "error"}, max_length=256))


def test_run_waits_in_the_queue_of_the_device_that_it_asks_for_where_one_is_served(submit, settings):
    settings.DEVICE_KINDS = ["cuda", "cpu"]
    queues = {device: submit(tiny(device, device=device)).device_kind for device in ("auto", "cpu", "cuda", "mps")}
    assert queues == {"auto": "cuda", "cpu": "cpu", "cuda": "cuda", "mps": "cuda"}
