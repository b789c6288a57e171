"""Language models on the platform: a dataset of conversations becomes a run with answers, from every door."""

import io
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.test import Client

from accounts.models import User
from accounts.permissions import grant_access
from accounts.quotas import QuotaReachedError
from datasets_app.checks.text_statistics import count_tokens, count_tokens_for_task, save_token_lengths
from datasets_app.models import DataTask, Version
from datasets_app.progress import ignore_progress
from datasets_app.versions.creation import create_version
from engine.config_sections import SAMPLE_MODEL
from engine.models import plain_templates
from engine.models.base_models import needs_conversion
from engine.storage import write_json
from engine.tasks.answers import write_answers
from experiments.models import ModelVersion
from experiments.registry.services import register, set_alias
from samples import SAMPLE_LANGUAGE_MODEL
from samples.language_model import converted_path
from testing.chat_templates import CHATML
from testing.datasets import store_dataset
from testing.language_models import build_language_model, chat_tokenizer, conversation, write_conversations
from testing.programs import run_program
from training import jobs, services
from training.models import Point, Status, Task, Timing
from web.errors import InvalidError
from work import running
from work.paths import token_cache_dir

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
TINY = "tiny-llama"


@pytest.fixture(scope="session")
def tiny_bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base models: a random language model of two layers."""
    folder = tmp_path_factory.mktemp("bases")
    build_language_model(folder / TINY)
    return folder


@pytest.fixture
def chats(member: Any, tmp_path: Path, settings: Any, tiny_bases: Path) -> Version:
    """24 conversations of the member: colours as JSON."""
    settings.BASE_MODELS_DIR = tiny_bases
    colours = ("red", "green", "blue")
    rows = [conversation(f"Colour {n}?", f'{{"colour": "{colours[n % 3]}"}}') for n in range(24)]
    splits = ["eval" if n % 4 == 3 else "train" for n in range(24)]
    file = write_conversations(tmp_path / "chats.jsonl", rows, splits)
    return create_version(user=member, name="chats", file=file, filename=file.name)


def tiny_run(name: str = "assistant", **training: Any) -> dict[str, Any]:
    return {
        "experiment_name": name,
        "model": {"name": TINY},
        "data": {"dataset_name": "chats", "max_length": 64},
        "lora": {"r": 4},
        "training": {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1, **training},
        "system": {"num_threads": 1},
    }


def submit(member: Any, **training: Any) -> Task:
    return services.submit(user=member, config=services.parse_config(tiny_run(**training), member))


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


def test_dataset_of_conversations_becomes_a_run_with_answers(member, chats):
    task = submit(member)
    assert task.experiment.config["task"] == "causal_lm"
    jobs.run(str(task.pk))

    task.refresh_from_db()
    assert task.status == Status.SUCCESS, task.error
    metrics = task.experiment.metrics
    assert task.experiment.task_type == "causal_lm" and task.experiment.score == metrics["eval"]["token_accuracy"]
    assert task.experiment.dataset_hash == chats.hash
    assert task.result and task.result["scores"].keys() == {
        "exact_match",
        "rouge_l",
        "json_valid",
        "field_accuracy",
        "token_accuracy",
        "perplexity",
        "loss",
    }
    answers = Point.objects.get(step=2).answers
    assert len(answers) == 6 and answers[0].keys() == {"prompt", "expected", "written"}
    assert answers[0]["expected"] == '{"colour": "red"}'
    with_answers = {point["step"]: point["answers"] for point in metrics["history"] if "answers" in point}
    assert with_answers.keys() == {2, 4} and with_answers[2] == [answer["written"] for answer in answers]
    assert metrics["answers"][0].keys() == {"prompt", "expected", "base", "tuned"}


def test_pages_of_a_run_show_its_answers_and_no_labels(browser, member, chats, api):
    task = submit(member)
    page = browser.get(f"/runs/{task.pk}/?tab=answers").content.decode()
    assert "appear here after the first evaluation" in page and "tab=errors" not in page and "tab=labels" not in page
    jobs.run(str(task.pk))
    overview = browser.get(f"/runs/{task.pk}/").content.decode()
    assert "of the answers to held-out prompts are exactly those of the data (base model: " in overview
    assert "Base model: token accuracy" in overview and "No text was truncated" not in overview
    for tab in ("overview", "answers", "log", "config", "files", "access", "errors", "labels"):
        for language in ("en", "zh-hant"):
            assert browser.get(f"/runs/{task.pk}/?tab={tab}", headers={"accept-language": language}).status_code == 200
    page = browser.get(f"/runs/{task.pk}/?tab=answers").content.decode()
    assert f"/chat/?model={task.experiment.name}" in page and "/predict/?model=" not in page
    assert "Colour 3?" in page and "This run" in page and "Answers of 2 evaluations" in page
    lines = [json.loads(line) for line in browser.get(f"/runs/{task.pk}/answers.jsonl").content.splitlines()]
    assert lines[0]["prompt"] == "Colour 3?" and [each["step"] for each in lines[0]["course"]] == [2, 4]
    for address in ("/", "/experiments/", "/experiments/?sort=-score", "/experiments/assistant/?checkpoint=last"):
        assert browser.get(address, follow=True).status_code == 200
    assert api(member).get(f"/api/task/{task.pk}").json()["result"]["task_type"] == "causal_lm"


def test_new_answers_reach_the_open_tab(browser, member, chats):
    task = submit(member)
    Task.objects.update(status=Status.STARTED)
    poll = {"HX-Request": "true", "HX-Target": "progress"}
    answer = {"prompt": "<b>?</b>", "expected": "red", "written": "blue"}
    Point.objects.create(
        task=task, step=2, epoch=1, eval_loss=1.0, scores={"loss": 1.0, "token_accuracy": 0.4}, answers=[answer]
    )
    page = browser.get(f"/runs/{task.pk}/?tab=answers&points=0", headers=poll).content.decode()
    assert 'id="tab" hx-swap-oob="true"' in page and "At step 2" in page and "&lt;b&gt;" in page
    assert "points=1" in page  # what the next poll says that it has
    assert 'id="tab"' not in browser.get(f"/runs/{task.pk}/?tab=answers&points=1", headers=poll).content.decode()


def test_form_for_conversations_offers_language_models_and_no_settings_of_labels(browser, chats):
    page = browser.get("/train/?dataset=chats@1")
    form = page.context["form"]
    assert form["model.name"].value() == SAMPLE_LANGUAGE_MODEL and form["data.max_length"].value() == "1024"
    offered = [model.name for group in form.base_models.values() for model in group]
    assert TINY in offered and SAMPLE_MODEL not in offered
    assert not {"training.class_weights", "model.num_labels", "system.baseline"} & form.fields.keys()
    assert "Longest conversation (tokens)" in page.content.decode() and not page.context["plan"].problem
    assert [preset["name"] for preset in page.context["model_presets"]] == []


def test_other_dataset_changes_what_its_task_type_asks_for(browser, member, chats, tweets_csv):
    store_dataset(member, "tweets", tweets_csv)
    form = browser.get("/train/?dataset=tweets").context["form"]
    sent = {name: form[name].value() or "" for name in form.fields} | {
        "data.dataset_name": "chats@1",
        "training.seed": "7",
    }
    there = browser.post("/train/", sent | {"do": "dataset"}).context["form"]
    assert there["model.name"].value() == SAMPLE_LANGUAGE_MODEL and there["data.max_length"].value() == "1024"
    assert there["training.seed"].value() == "7"  # changed by hand
    sent = {name: there[name].value() or "" for name in there.fields} | {"data.dataset_name": "tweets@1"}
    back = browser.post("/train/", sent | {"do": "dataset"}).context["form"]
    for name in ("model.name", "data.max_length", "data.text_column", "lora.r", "training.metric_for_best_model"):
        assert (back[name].value() or "") == (form[name].value() or ""), name


def test_base_model_must_be_a_language_model(api, member, chats):
    config = tiny_run() | {"model": {"name": SAMPLE_MODEL}}
    answer = api(member).post("/api/train/validate", config, format="json")
    assert answer.status_code == 400 and "can't be trained as a language model" in str(answer.json())
    config = tiny_run(class_weights="balanced")
    assert "needs labels" in str(api(member).post("/api/train/validate", config, format="json").json())
    names = [model["name"] for model in api(member).get("/api/base-models?task=causal_lm").json()["results"]]
    assert TINY in names and SAMPLE_LANGUAGE_MODEL in names and SAMPLE_MODEL not in names
    assert api(member).get("/api/base-models?task=poetry").status_code == 400


@pytest.fixture
def two_bases(settings, tmp_path):
    """Make two base models: `own` has a chat template, `none` has none."""
    settings.BASE_MODELS_DIR = tmp_path
    for name, template in (("own", CHATML), ("none", None)):
        build_language_model(tmp_path / name, template=template)


@pytest.mark.parametrize(
    ("name", "chosen", "example"),
    [
        ("none", "plain", "User: What is the capital of France?"),
        ("none", "alpaca", "### Response:\nParis&lt;/s&gt;"),
        ("own", "plain", ""),
    ],
)
def test_form_offers_chat_templates_for_a_base_model_without_one(name, chosen, example, browser, chats, two_bases):
    fields = {"data.dataset_name": "chats@1", "do": "show", "model.name": name, "model.chat_template": chosen}
    answer = browser.post("/train/", fields)
    warned = [warning.text for warning in answer.context["plan"].warnings if "chat template" in warning.text]
    if name == "own":
        assert not warned and answer.context["template_choice"] is None
        assert "id_model.chat_template" not in answer.content.decode()
        return
    assert [plain_templates.TITLES[chosen] in text for text in warned] == [True]
    page = answer.content.decode()
    assert f'<option value="{chosen}" selected>' in page and example in page


def test_form_offers_templates_for_a_base_model_that_is_not_here_without_an_example(browser, chats):
    fields = {"data.dataset_name": "chats@1", "do": "show", "model.name": "someone/unknown"}
    choice = browser.post("/train/", fields).context["template_choice"]
    assert choice and not choice.is_certain and not choice.preview


def test_chosen_template_without_effect_is_refused_beside_its_field(browser, api, member, chats, two_bases):
    chosen = {"model": {"name": "own", "chat_template": "chatml"}}
    answer = api(member).post("/api/train/validate", tiny_run() | chosen, format="json")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "model.chat_template"
    fields = {"data.dataset_name": "chats@1", "model.name": "own", "model.chat_template": "chatml"}
    page = browser.post("/train/", fields | {"do": "start"})
    assert (
        page.context["form"]["model.chat_template"].errors and "id_model.chat_template_error" in page.content.decode()
    )
    assert browser.post("/train/", fields | {"do": "show"}).context["plan"].problem
    answer = api(member).post(
        "/api/train/validate", tiny_run() | {"model": {"name": "none", "chat_template": "chatml"}}, format="json"
    )
    assert answer.status_code == 200


def test_answers_are_written_for_an_estimate(member, chats, monkeypatch):
    written = []

    def write(*arguments):
        answers = write_answers(*arguments)
        written.append(len(answers.written))
        return answers

    monkeypatch.setattr("engine.tasks.language_model.write_answers", write)
    config = services.parse_config(tiny_run(), member)
    estimate = services.estimate(user=member, config=config)
    jobs.measure(str(estimate.measurement.pk))
    estimated = services.estimate(user=member, config=config).forecast
    assert estimated and estimated.steps == 4
    measured = Timing.objects.get().result
    assert measured and measured["evaluation_s"] > 0 and written == [6]
    assert len(measured["base_s"]) == 3  # what a run of these settings then keeps
    token_cache_dir().mkdir(parents=True)
    for name in measured["base_s"]:
        write_json(token_cache_dir() / name, {})
    again = services.estimate(user=member, config=config).forecast
    assert again and again.seconds == pytest.approx(estimated.seconds - sum(measured["base_s"].values()))


def test_run_that_is_cancelled_goes_on_from_its_checkpoint(member, chats, monkeypatch):
    task = submit(member)
    is_cancelled = running.StopSignal.is_cancelled

    def cancel_after_the_first_step(self):
        services.cancel(user=member, task=Task.objects.get(pk=task.pk))
        self.checked_at = 0.0
        return is_cancelled(self)

    monkeypatch.setattr(running.StopSignal, "is_cancelled", cancel_after_the_first_step)
    jobs.run(str(task.pk))
    task.refresh_from_db()
    assert (task.status, task.step) == (Status.CANCELLED, 1)
    monkeypatch.undo()
    services.resume(user=member, task=task)
    jobs.run(str(task.pk))
    task.refresh_from_db()
    assert (task.status, task.step) == (Status.SUCCESS, 4), task.error
    assert [point["step"] for point in task.experiment.metrics["history"] if "loss" in point] == [1, 2, 3, 4]


def test_quota_of_runs_counts_those_of_language_models(member, chats):
    User.objects.filter(pk=member.pk).update(queued_limit=1)
    member.refresh_from_db()
    submit(member)
    with pytest.raises(QuotaReachedError):
        services.submit(user=member, config=services.parse_config(tiny_run("second"), member))


@pytest.fixture
def assistant(member: Any, chats: Version) -> ModelVersion:
    """The model of a finished run, registered as `helper`."""
    task = submit(member)
    jobs.run(str(task.pk))
    task.refresh_from_db()
    return register(user=member, experiment=task.experiment, name="helper", checkpoint="best")


def test_registered_model_has_a_card_and_a_program_that_answers_as_the_run_did(
    assistant, member, browser, api, monkeypatch, tmp_path, tiny_bases
):
    page = browser.get("/models/helper/").content.decode()
    assert "writes the assistant&#x27;s answers" in page and "GGUF" in page
    assert "Token accuracy" in page and "/chat/?model=helper%401" in page and "AutoPeftModelForCausalLM" in page
    detail = api(member).get("/api/models/helper").json()
    assert detail["task_type"] == "causal_lm" and detail["score_name"] == "token_accuracy"
    archive = zipfile.ZipFile(io.BytesIO(b"".join(browser.get("/models/helper@1/archive.zip").streaming_content)))
    readme = archive.read("helper/README.md").decode()
    assert "pipeline_tag: text-generation" in readme and "type: perplexity" in readme and "chats@1" in readme
    assert "**Chat template:** that of the base model" in readme and "that of the base model" in page

    archive.extractall(tmp_path)
    program = re.search("```python\n(.*?)```", readme, re.DOTALL)
    assert program and "does not come from the model hub" in program[1]
    monkeypatch.chdir(tmp_path / "helper")
    (tmp_path / "helper" / TINY).symlink_to(tiny_bases / TINY)  # where the program tells to put it
    predict = run_program(program[1])
    for answer in assistant.experiment.metrics["answers"][:3]:
        longest = len(predict.__globals__["tokenizer"](answer["tuned"])["input_ids"])
        messages = [{"role": "user", "content": answer["prompt"]}]
        assert predict(messages, longest=longest).startswith(answer["tuned"][:20])


def test_language_model_is_shared_renamed_by_alias_and_handed_over(assistant, member, stranger, api):
    set_alias(user=member, version=assistant, name="champion")
    assert api(stranger).get("/api/models/helper").status_code == 404
    grant_access(assistant.model, to=stranger)
    assert api(stranger).get("/api/models/helper@champion").json()["chosen"]["task_type"] == "causal_lm"


def test_predictions_by_a_language_model_are_refused_in_words(assistant, api, member, browser):
    for name in ("helper", "helper@1", "assistant"):
        answer = api(member).post("/api/predict", {"text": "Colour 3?", "model": name}, format="json")
        assert answer.status_code == 400 and "/v1/chat/completions" in str(answer.json()), answer.json()
    nothing = api(member).post("/api/predict", {"text": "Colour 3?"}, format="json")
    assert nothing.status_code == 409  # it is no default either
    page = browser.post("/predict/", {"model": "helper", "text": "Colour 3?"}).content.decode()
    assert "is a language model" in page or "There is no trained model yet" in page
    recommended = api(member).get("/api/models/recommend?dataset=chats").json()["models"]
    assert recommended[0]["name"] == "helper" and "can't be measured" in recommended[0]["reason"]
    refused = api(member).post("/api/models/helper@1/exports", {"format": "onnx"}, format="json")
    assert refused.status_code == 400 and "can be exported to: safetensors, gguf" in str(refused.json())
    for address in ("/", "/models/", "/models/?dataset=chats@1", "/models/recommend/?dataset=chats@1", "/predict/"):
        assert browser.get(address).status_code == 200


def test_sample_assistant_is_offered_where_its_dataset_is(browser, member, chats, tmp_path):
    assert "preset=orders" not in browser.get("/train/").content.decode() + browser.get("/").content.decode()
    file = write_conversations(tmp_path / "o.jsonl", [conversation(f"{n} mugs", f"[{n}]") for n in range(9)])
    create_version(user=member, name="orders", file=file, filename=file.name)
    assert "Train a small assistant" in browser.get("/").content.decode()
    page = browser.get("/train/?preset=orders")
    form = page.context["form"]
    assert form["data.dataset_name"].value() == "orders@1" and form["model.name"].value() == SAMPLE_LANGUAGE_MODEL
    assert form["training.max_steps"].value() == "24" and form["training.learning_rate"].value() == "0.002"
    sent = {name: form[name].value() or "" for name in form.fields} | {"data.dataset_name": "chats@1"}
    there = browser.post("/train/", sent | {"do": "dataset"}).context["form"]
    assert there["training.max_steps"].value() in ("", None) and there["training.learning_rate"].value() == "0.001"


def test_conversion_of_the_sample_is_told_before_it_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert needs_conversion(SAMPLE_LANGUAGE_MODEL, tmp_path) and not needs_conversion(SAMPLE_MODEL, tmp_path)
    converted_path().mkdir(parents=True)
    assert not needs_conversion(SAMPLE_LANGUAGE_MODEL, tmp_path)


def test_tokens_of_conversations_are_counted_with_the_chat_template(browser, member, chats):
    lengths = count_tokens(chats, TINY)
    tokenizer = chat_tokenizer()
    rows = [json.loads(text) for text in pl.read_parquet(chats.path)["text"]]
    rendered = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in rows]
    expected = Counter(map(len, tokenizer(rendered, add_special_tokens=False)["input_ids"]))
    assert lengths == expected
    save_token_lengths(chats, TINY, lengths)
    fields = {"model.name": TINY, "data.dataset_name": "chats@1", "data.max_length": str(min(lengths))}
    warnings = [warning.text for warning in browser.post("/train/", fields | {"do": "show"}).context["plan"].warnings]
    left_out = 24 - lengths[min(lengths)]
    assert any(f"{left_out} conversations (" in text and "are left out" in text for text in warnings), warnings
    page = browser.get(f"/datasets/chats/?model={TINY}&max_length={min(lengths)}").content.decode()
    assert "Training with this limit leaves them out." in page


def test_tokens_of_conversations_are_counted_with_the_chosen_template(browser, member, chats, two_bases):
    rows = [json.loads(text) for text in pl.read_parquet(chats.path)["text"]]
    tokenizer = chat_tokenizer(plain_templates.TEMPLATES["alpaca"])
    rendered = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in rows]
    expected = Counter(map(len, tokenizer(rendered, add_special_tokens=False)["input_ids"]))
    limit = min(expected)
    model = {"name": "none", "chat_template": "alpaca"}
    fields = {f"model.{name}": value for name, value in model.items()} | {"data.dataset_name": "chats@1"}
    save_token_lengths(chats, "none", {limit + 1: 24})  # with the usual template
    assert not warned_of_length(browser, fields | {"data.max_length": str(limit)})
    browser.post("/datasets/chats/tokens/", {"version": "1", "model": "none", "chat_template": "alpaca"})
    count_tokens_for_task(DataTask.objects.get(), ignore_progress)()
    (warning,) = warned_of_length(browser, fields | {"data.max_length": str(limit)})
    assert warning.text.startswith(f"{24 - expected[limit]} conversations (")
    page = browser.get(warning.href).content.decode()
    assert '<option value="alpaca" selected>' in page and "Training with this limit leaves them out." in page
    assert page.count("<option>none</option>") == 1
    rule = {"data": {"dataset_name": "chats", "max_length": limit, "validation_rules": {"over_token_limit": "error"}}}
    with pytest.raises(InvalidError, match=f": {24 - expected[limit]} rows"):
        services.submit(user=member, config=services.parse_config(tiny_run() | rule | {"model": model}, member))


def warned_of_length(browser, fields):
    plan = browser.post("/train/", fields | {"do": "show"}).context["plan"]
    return [warning for warning in plan.warnings if "left out" in warning.text]


def test_dataset_of_preferences_becomes_a_run_that_is_judged_by_pairs(browser, member, tmp_path, settings, tiny_bases):
    settings.BASE_MODELS_DIR = tiny_bases
    rows = [
        {"prompt": f"Colour {n}?", "chosen": f"red {n}", "rejected": "no", "split": "eval" if n % 4 == 3 else "train"}
        for n in range(24)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    version = create_version(user=member, name="chats", file=file, filename=file.name)
    form = browser.get("/train/?dataset=chats@1").context["form"]
    assert form["model.name"].value() == SAMPLE_LANGUAGE_MODEL and "training.dpo_beta" in form.fields
    assert "Ready to train" in browser.get("/datasets/chats/").content.decode()

    task = submit(member, per_device_train_batch_size=4)
    jobs.run(str(task.pk))
    task.refresh_from_db()
    assert task.status == Status.SUCCESS, task.error
    assert version.kind == "preferences" and task.experiment.task_type == "preference"
    metrics = task.experiment.metrics
    assert (metrics["data"]["train_rows"], metrics["data"]["eval_rows"]) == (18, 6)
    assert task.experiment.score == metrics["eval"]["preference_accuracy"]
    for language in ("en", "zh-hant"):
        for tab in ("overview", "answers", "log", "config", "files", "access"):
            page = browser.get(f"/runs/{task.pk}/?tab={tab}", headers={"accept-language": language})
            assert page.status_code == 200
    overview = browser.get(f"/runs/{task.pk}/").content.decode()
    assert "of the held-out pairs the model moved towards the chosen answer" in overview
    assert "Base model: chosen answer is likelier" in overview
    register(user=member, experiment=task.experiment, name="preferred")
    assert "as people preferred them" in browser.get("/models/preferred/").content.decode()
    for address in ("/", "/experiments/", "/models/", f"/experiments/compare?name={task.experiment.name}&name=none"):
        assert browser.get(address, follow=True).status_code in (200, 404)
