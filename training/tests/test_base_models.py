"""The list of base models: what is on this machine, what is recommended, what the hub finds, and which one fits the data."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.apps import apps
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from huggingface_hub import constants

from accounts.models import BaseModelRule
from engine.config_sections import SAMPLE_MODEL
from engine.models.recommended import RECOMMENDED_MODELS
from samples import SAMPLE_LANGUAGE_MODEL, reviews_zh
from testing.datasets import store_dataset
from training import services
from training.base_models import find_language_mismatch, languages_of, list_base_models, suggest_base_model
from training.models import Task

pytestmark = pytest.mark.django_db
CHINESE_BERT = "google-bert/bert-base-chinese"
ON_HUB = [
    {
        "id": "somebody/bert-tiny-german",
        "safetensors": {"parameters": {"F32": 4_400_000}, "total": 4_400_000},
        "cardData": {"language": ["de", "en"], "license": "mit"},
        "config": {"model_type": "bert"},
    },
    {"id": "somebody/plain"},
    {"id": "nobody/forbidden"},
]


class Hub(BaseHTTPRequestHandler):
    """The two requests that we send to a model hub: search, and facts about one model."""

    asked: list[str] = []
    files: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if urlsplit(self.path).path == "/api/models":
            content: Any = ON_HUB
        else:
            content = {
                "id": "somebody/plain",
                "sha": "0" * 40,
                "siblings": [{"rfilename": name} for name in self.files],
            }
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache of the hub, and no hub."""
    cache.clear()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A model hub on this machine; `asked` has the addresses that were requested."""
    for proxy in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    Hub.asked, Hub.files = [], []
    BaseModelRule.objects.create(pattern="somebody/*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])  # it ends within so many seconds
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", constants.ENDPOINT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def chinese(member: Any, tmp_path: Path) -> Any:
    """A dataset of Chinese reviews."""
    reviews_zh().gather_every(100).write_csv(tmp_path / "reviews.csv")
    return store_dataset(member, "reviews", tmp_path / "reviews.csv")


@pytest.fixture
def folders(settings: Any, tmp_path: Path) -> Path:
    settings.BASE_MODELS_DIR = tmp_path / "bases"
    settings.BASE_MODELS_DIR.mkdir()
    return settings.BASE_MODELS_DIR


def put_folder(root: Path, name: str) -> None:
    """Put a folder there that is a base model by its config.json."""
    (root / name).mkdir(parents=True)
    (root / name / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')


def names(answer: Any) -> list[str]:
    return [model["name"] for model in answer.json()["results"]]


def test_a_new_installation_allows_every_recommended_model() -> None:
    listed = {model.name for model in list_base_models()}
    assert all(listed & set(model.names) for model in RECOMMENDED_MODELS)


def test_upgrade_leaves_a_list_alone_that_an_administrator_has_changed() -> None:
    migration = import_module("accounts.migrations.0006_recommended_models")
    BaseModelRule.objects.exclude(pattern__in=migration.SEEDED).delete()
    BaseModelRule.objects.filter(pattern="roberta-base").delete()
    migration.allow_recommended_models(apps, None)
    assert BaseModelRule.objects.count() == 3
    BaseModelRule.objects.create(pattern="roberta-base")
    migration.allow_recommended_models(apps, None)
    assert BaseModelRule.objects.filter(pattern="Qwen/Qwen3-0.6B").exists()


def test_models_on_this_machine_come_first_and_once(folders: Path) -> None:
    put_folder(folders, "roberta-base")
    put_folder(folders, "mine")
    put_folder(folders, "team/ours")
    listed = list_base_models()
    assert [model.name for model in listed[:4]] == [SAMPLE_MODEL, "mine", "roberta-base", "team/ours"]
    assert listed[4].name == SAMPLE_LANGUAGE_MODEL and listed[4].place == "sample"
    assert [model.is_here for model in listed[:6]] == [True] * 5 + [False]
    assert "FacebookAI/roberta-base" not in {model.name for model in listed}
    assert listed[2].licence == "mit" and listed[1].longest_text == 512 and listed[1].language_count is None


@pytest.mark.medium
def test_card_in_a_folder_says_languages_and_licence(folders: Path, chinese: Any, tweets_csv: Path) -> None:
    put_folder(folders, "ours")
    put_folder(folders, "mixed")
    (folders / "ours/README.md").write_text("---\nlanguage: [en, no, nb]\nlicense: cc-by-4.0\n---\n# Ours\n")
    (folders / "mixed/README.md").write_text("---\nlanguage:\n- multilingual\n- en\n---\n")
    models = {model.name: model for model in list_base_models()}
    assert (models["ours"].languages, models["ours"].licence) == (("English", "Norwegian"), "cc-by-4.0")
    assert models["mixed"].language_count is None
    mismatch = find_language_mismatch(chinese, "ours")
    assert mismatch and mismatch.read == "English and Norwegian" and find_language_mismatch(chinese, "mixed") is None


def test_list_asks_the_database_once(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        list_base_models()


def test_models_that_administrators_do_not_allow_are_left_out(folders: Path) -> None:
    BaseModelRule.objects.all().delete()
    put_folder(folders, "mine")
    assert [model.name for model in list_base_models()] == [SAMPLE_MODEL, "mine", SAMPLE_LANGUAGE_MODEL]


def test_api_lists_filters_and_says_what_is_known(api: Any, viewer: Any) -> None:
    answer = api(viewer).get("/api/base-models?q=chinese apache")
    assert names(answer)[0] == CHINESE_BERT and answer.json()["hub"] == "not_asked"
    first = answer.json()["results"][0]
    assert (first["parameters_m"], first["languages"], first["on_this_machine"]) == (102, ["Chinese"], False)
    assert first["fused_kernels"] and first["shared_serving"] and first["longest_text"] == 512
    readers = names(api(viewer).get("/api/base-models", {"language": "Zulu"}))
    assert "Qwen/Qwen3-0.6B" in readers and SAMPLE_MODEL not in readers
    assert api(viewer).get("/api/base-models?hub=perhaps").json()["errors"][0]["field"] == "hub"


def test_command_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("base_models", "chinese")
    assert "bert-base-chinese" in capsys.readouterr().out
    call_command("base_models", "no such model", "--hub")
    assert "No base models match.\nThe model hub can't be reached" in capsys.readouterr().out
    call_command("base_models", "--json", "--language", "Chinese")
    assert json.loads(capsys.readouterr().out)["results"][0]["languages"] == ["Chinese"]


def test_hub_is_searched_once_for_the_same_words(api: Any, member: Any, hub: type[Hub]) -> None:
    for query in ("bert tiny", " Bert  tiny"):
        answer = api(member).get("/api/base-models", {"q": query, "hub": "true"})
        assert answer.json()["hub"] == "searched" and names(answer) == ["somebody/bert-tiny-german", "somebody/plain"]
    (asked,) = hub.asked
    parameters = parse_qs(urlsplit(asked).query)
    assert parameters["search"] == ["bert tiny"] and parameters["filter"] == ["safetensors"]
    model = answer.json()["results"][0]
    assert (model["parameters_m"], model["languages"], model["licence"]) == (4.4, ["German", "English"], "mit")
    assert model["place"] == "hub" and model["shared_serving"] and not model["recommended"]
    assert answer.json()["results"][1]["language_count"] is None


def test_hub_that_is_off_or_away_is_said_and_not_asked_again(
    api: Any, member: Any, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = api(member).get("/api/base-models?q=chinese&hub=true")
    assert answer.json()["hub"] == "away" and names(answer)[0] == CHINESE_BERT and hub.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert api(member).get("/api/base-models?q=bert&hub=true").json()["hub"] == "away" and hub.asked == []


def test_page_of_the_form_shows_what_the_hub_finds(client: Client, member: Any, hub: type[Hub]) -> None:
    client.force_login(member)
    page = client.get("/train/base-models/?q=bert").content.decode()
    assert (
        'data-name="somebody/bert-tiny-german"' in page and "4.4 million parameters · German and English · mit" in page
    )
    assert "forbidden" not in page and SAMPLE_MODEL not in page


def test_model_of_the_hub_with_pickled_weights_is_refused_before_anything_is_queued(
    api: Any, member: Any, hub: type[Hub], chinese: Any
) -> None:
    hub.files = ["config.json", "pytorch_model.bin"]
    for name, advice in (
        ("somebody/plain", "Convert it"),
        ("microsoft/deberta-v3-base", "Set model.revision to 82d8d18"),
    ):
        config = {"model": {"name": name}, "data": {"dataset_name": "reviews"}}
        answer = api(member).post("/api/train", config, format="json")
        assert answer.status_code == 400 and advice in answer.json()["errors"][0]["message"]
    assert not Task.objects.exists()
    hub.files = ["config.json", "model.safetensors"]
    assert api(member).post("/api/train", config, format="json").status_code == 202


def test_data_in_another_language_are_a_notice_and_no_error(api: Any, member: Any, chinese: Any) -> None:
    assert languages_of(chinese) == ["Chinese"]
    config = {"data": {"dataset_name": "reviews@1"}}
    validated = api(member).post("/api/train/validate", config, format="json")
    (notice,) = validated.json()["notices"]
    assert (notice["level"], notice["code"]) == ("warning", "base_model_language")
    assert notice["message"] == (
        f"The data reviews@1 are in Chinese; the base model {SAMPLE_MODEL} reads English. No base model on this machine reads it. "
        f"{CHINESE_BERT} does, and is downloaded from the model hub when the run starts."
    )
    accepted = api(member).post("/api/train", config, format="json", HTTP_ACCEPT_LANGUAGE="zh-hant")
    assert accepted.status_code == 202 and accepted.json()["notices"] == [notice]
    assert Task.objects.get().experiment.config["model"]["name"] == SAMPLE_MODEL


@pytest.mark.medium
def test_page_of_a_run_shows_the_notice_of_its_languages(client: Client, member: Any, chinese: Any) -> None:
    config = services.parse_config({"data": {"dataset_name": "reviews"}}, member)
    task = services.submit(user=member, config=config)
    client.force_login(member)
    assert "The data reviews@1 are in Chinese" in client.get(f"/runs/{task.pk}/").content.decode()
    chinese.languages = {}  # the notice stays as it is stored
    chinese.save()
    assert "The data reviews@1 are in Chinese" in client.get(f"/runs/{task.pk}/").content.decode()


def test_data_in_a_language_that_the_base_model_reads_have_no_notice(api: Any, member: Any, tweets_csv: Path) -> None:
    version = store_dataset(member, "tweets", tweets_csv)
    answer = api(member).post("/api/train/validate", {"data": {"dataset_name": "tweets"}}, format="json")
    assert answer.json()["notices"] == []
    mismatch = find_language_mismatch(version, "bert-base-chinese")
    assert mismatch and mismatch.better and mismatch.better.name == SAMPLE_MODEL
    assert find_language_mismatch(version, "somebody/unknown") is None
    version.languages = {"Unknown": 40}
    assert find_language_mismatch(version, "bert-base-chinese") is None


def test_command_says_that_the_base_model_does_not_read_the_data(
    member: Any, chinese: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text("data: {dataset_name: reviews}\n")
    call_command("train", str(tmp_path / "run.yaml"), "--user", member.username)
    assert "The data reviews@1 are in Chinese" in capsys.readouterr().out


@pytest.mark.medium
def test_form_starts_with_a_base_model_of_this_machine_that_reads_the_data(
    client: Client, member: Any, chinese: Any, tweets_csv: Path, folders: Path
) -> None:
    store_dataset(member, "tweets", tweets_csv)
    put_folder(folders, "bert-base-chinese")
    client.force_login(member)
    page = client.get("/train/?dataset=reviews@1")
    assert page.context["form"]["model.name"].value() == "bert-base-chinese" and page.context["mismatch"] is None
    assert client.get("/train/?dataset=tweets@1").context["form"]["model.name"].value() == SAMPLE_MODEL
    roberta = client.get("/train/?dataset=reviews@1&preset=roberta")  # this preset is the base model
    assert roberta.context["form"]["model.name"].value() == "roberta-base"
    assert roberta.context["mismatch"].better.name == "bert-base-chinese"


@pytest.mark.medium
def test_form_offers_a_better_base_model_and_fills_it_in(client: Client, member: Any, chinese: Any) -> None:
    client.force_login(member)
    page = client.get("/train/?dataset=reviews@1")
    assert page.context["form"]["model.name"].value() == SAMPLE_MODEL
    content = page.content.decode()
    assert "The data reviews@1 are in Chinese" in content and f"Use {CHINESE_BERT}</button>" in content
    shown = {field.html_name: field.value() or "" for field in page.context["form"]}
    shown |= {"do": "better_model", "better_name": CHINESE_BERT, "training.seed": "7"}
    filled_in = client.post("/train/", shown)
    form = filled_in.context["form"]
    assert (form["model.name"].value(), form["training.seed"].value()) == (CHINESE_BERT, "7")
    assert filled_in.context["mismatch"] is None and not Task.objects.exists()


def test_form_takes_any_name_and_suggests_without_javascript(client: Client, member: Any, folders: Path) -> None:
    put_folder(folders, "mine")
    client.force_login(member)
    content = client.get("/train/").content.decode()
    assert '<input type="text" name="model.name"' in content and 'list="base-model-names"' in content
    assert '<option value="mine">' in content and f'data-name="{CHINESE_BERT}"' in content


def test_suggestion_reads_all_languages_of_the_data_and_can_be_downloaded() -> None:
    suggested = suggest_base_model(["Chinese", "English"])
    assert suggested and suggested.name == "FacebookAI/xlm-roberta-base"
    BaseModelRule.objects.all().delete()
    assert suggest_base_model(["Chinese"]) is None
