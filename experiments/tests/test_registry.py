"""Models that outlive their runs: registered whole, described, found, handed on."""

import io
import json
import shutil
import zipfile
from typing import Any

import pytest
import yaml
from django.db import DatabaseError, transaction

from accounts.permissions import grant_access
from accounts.sharing import find_recipients, set_access
from audit.models import Entry
from engine.storage import verify_folder, write_manifest
from experiments import services as experiments
from experiments.models import Alias, Experiment, ModelVersion, RegisteredModel
from experiments.registry import card, selectors, services
from experiments.services import NameTakenError
from testing.removals import pass_time
from web.errors import ConflictError, InvalidError, NotFoundError

pytestmark = pytest.mark.django_db


@pytest.fixture
def registered(member: Any, learnt: Experiment) -> ModelVersion:
    return services.register(user=member, experiment=learnt, name="mood", summary="Tells the mood of a tweet.")


def test_version_holds_what_is_known_of_its_run(registered, learnt):
    assert (registered.number, registered.experiment, registered.dataset_hash) == (1, learnt, learnt.dataset_hash)
    assert registered.language == "English" and registered.labels == ["negative", "neutral", "positive"]
    assert registered.accuracy == learnt.accuracy and "confusion_matrix" in registered.metrics["eval"]
    assert registered.licence["base_model"] == "apache-2.0" and registered.machine["device"]
    assert registered.model.summary and "negative, neutral, positive" in registered.card
    assert {limit["code"] for limit in registered.limits} == {f.code for f in learnt.version.findings.all()}
    entry = Entry.objects.get(action="model.register")
    assert (entry.username, entry.object_id) == ("member", "mood@1")


@pytest.mark.medium
@pytest.mark.django_db(transaction=True)
def test_deleted_experiment_breaks_no_model(registered, learnt, member, api):
    before = api(member).post("/api/predict", {"text": "a fine day", "model": "mood"}, format="json").json()
    assert (registered.folder / "adapter_model.safetensors").stat().st_nlink == 2  # one file on the disk
    experiments.delete(user=member, experiment=learnt)
    verify_folder(registered.folder)
    after = api(member).post("/api/predict", {"text": "a fine day", "model": "mood@1"}, format="json").json()
    assert before["probabilities"] == after["probabilities"] and after["model"] == "mood@1"
    registered.refresh_from_db()
    assert registered.experiment is None and registered.experiment_name == "small"


@pytest.mark.medium
def test_archive_loads_in_plain_peft_and_its_card_is_a_model_card(registered, member, api, tmp_path):
    import torch
    from huggingface_hub import ModelCard
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from samples import base_model_path
    from testing.adapters import temperature_of

    answer = api(member).get("/api/models/mood/archive")
    zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))).extractall(tmp_path)
    base = AutoModelForSequenceClassification.from_pretrained(base_model_path(), num_labels=3)
    model = PeftModel.from_pretrained(base, tmp_path / "mood").eval()
    with torch.inference_mode():
        inputs = AutoTokenizer.from_pretrained(tmp_path / "mood")("a fine day", return_tensors="pt")
        logits = model(**inputs).logits[0] / temperature_of(tmp_path / "mood")
        expected = logits.softmax(-1).tolist()
    answer = api(member).post("/api/predict", {"text": "a fine day", "model": "mood"}, format="json").json()
    assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
    hub = ModelCard.load(tmp_path / "mood" / "README.md")
    assert hub.data.base_model == registered.base_model and hub.data.license == "apache-2.0"
    results = yaml.safe_load(hub.data.to_yaml())["model-index"][0]["results"][0]
    assert results["dataset"]["revision"] == registered.dataset_hash
    assert {metric["type"]: metric["value"] for metric in results["metrics"]}["accuracy"] == round(
        registered.accuracy, 4
    )
    assert "| negative |" in hub.text and "Use it in plain PEFT" in hub.text


@pytest.mark.medium
def test_next_version_keeps_the_text_and_becomes_the_newest(registered, learnt, member):
    services.describe(user=member, version=registered, text="Ours.", summary="Moods.", licence={"dataset": "cc-by-4.0"})
    second = services.register(user=member, experiment=learnt, name="mood", note="again", checkpoint="last")
    assert (second.number, second.card, second.checkpoint) == (2, "Ours.", "last")
    model = RegisteredModel.objects.get()
    assert model.latest == second and model.summary == "Moods."
    assert registered.licence == {"base_model": "", "dataset": "cc-by-4.0"}


@pytest.mark.medium
def test_other_checkpoint_brings_its_own_adapter(learnt, member):
    """The fixture's run keeps one checkpoint under three names; here the last one is another file."""
    last = learnt.folder / "artifacts/checkpoints/checkpoint-99"
    shutil.copytree(learnt.folder / learnt.metrics["checkpoints"]["last"]["path"], last)
    marked = json.loads((last / "adapter_config.json").read_text()) | {"revision": "marked"}
    (last / "adapter_config.json").write_text(json.dumps(marked))
    learnt.metrics["checkpoints"]["last"] = {"step": 99, "path": "artifacts/checkpoints/checkpoint-99", "metric": 0.4}
    learnt.metrics["history"].append({"step": 99, "eval_accuracy": 0.4, "eval_macro_f1": 0.3})
    learnt.save()
    with pytest.raises(ConflictError, match="does not hold what was written"):
        services.register(user=member, experiment=learnt, name="mood", checkpoint="last")
    assert not RegisteredModel.objects.exists()
    write_manifest(last)
    version = services.register(user=member, experiment=learnt, name="mood", checkpoint="last")
    assert version.accuracy == 0.4 and version.metrics["eval"]["macro_f1"] == 0.3
    assert json.loads((version.folder / "adapter_config.json").read_text())["revision"] == "marked"


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a@b", "register", "Recommend", ".hidden", "a" * 81, "a\x00b"])
def test_bad_name_is_refused(learnt, member, name):
    with pytest.raises(InvalidError):
        services.register(user=member, experiment=learnt, name=name)
    assert not (learnt.folder.parent.parent / "data" / "models").exists()


def test_name_of_somebody_else_is_refused_for_models_and_runs(registered, learnt, member, stranger):
    grant_access(learnt, to=stranger, manage=True)
    for name in ("mood", "MOOD"):
        with pytest.raises(NameTakenError):
            services.register(user=stranger, experiment=learnt, name=name)
    Experiment.objects.create(name="secret", owner=member, dataset_name="d", base_model="b")
    with pytest.raises(NameTakenError):
        services.register(user=stranger, experiment=learnt, name="secret")
    with pytest.raises(NameTakenError):
        experiments.create(owner=stranger, name="Mood", config={}, version=None, dataset_name="a/b", base_model="b")
    experiments.create(owner=member, name="mood", config={}, version=None, dataset_name="a/b", base_model="b")


def test_only_who_manages_a_finished_experiment_registers_it(learnt, member, stranger, viewer, api):
    body = {"experiment": "small", "name": "mood"}
    assert api(stranger).post("/api/models", body, format="json").status_code == 404
    grant_access(learnt, to=stranger)
    assert api(stranger).post("/api/models", body, format="json").status_code == 403
    grant_access(learnt, to=viewer, manage=True)
    assert api(viewer).post("/api/models", body, format="json").status_code == 403
    Experiment.objects.filter(pk=learnt.pk).update(accuracy=None)
    assert api(member).post("/api/models", body, format="json").status_code == 409
    assert not RegisteredModel.objects.exists()


def test_failed_registration_leaves_no_files(learnt, member, monkeypatch):
    monkeypatch.setattr(services, "record", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        services.register(user=member, experiment=learnt, name="mood")
    root = learnt.folder.parent.parent / "data" / "models"
    assert list(root.iterdir()) == [] and not ModelVersion.objects.exists()


def test_damaged_run_is_not_registered(learnt, member):
    (learnt.final_model / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConflictError, match="does not hold what was written"):
        services.register(user=member, experiment=learnt, name="mood")


@pytest.mark.medium
def test_alias_is_moved_from_version_to_version(registered, learnt, member, api):
    second = services.register(user=member, experiment=learnt, name="mood")
    client = api(member)
    assert client.put("/api/models/mood/aliases/champion", {"version": 1}, format="json").json()["aliases"] == {
        "champion": 1
    }
    assert selectors.version_for(member, "mood@champion") == registered
    services.set_alias(user=member, version=second, name="champion")
    assert selectors.version_for(member, "mood@champion") == second and Alias.objects.count() == 1
    assert client.put("/api/models/mood/aliases/9th", {"version": 1}, format="json").status_code == 400
    assert client.delete("/api/models/mood/aliases/champion").status_code == 204
    with pytest.raises(NotFoundError, match="it has 2, 1"):
        selectors.version_for(member, "mood@champion")


@pytest.mark.medium
def test_stranger_learns_nothing_and_a_reader_changes_nothing(registered, member, stranger, api):
    reading = ("/api/models/mood", "/api/models/mood@1", "/api/models/mood/archive", "/api/models/nothing")
    assert {api(stranger).get(path).status_code for path in reading} == {404}
    assert api(stranger).post("/api/predict", {"text": "a", "model": "mood@1"}, format="json").status_code == 404
    grant_access(registered.model, to=stranger)
    assert api(stranger).get("/api/models/mood").json()["owner"] == "member"
    assert api(stranger).post("/api/predict", {"text": "a", "model": "mood@1"}, format="json").status_code == 200
    assert api(stranger).patch("/api/models/mood", {"card": "x"}, format="json").status_code == 403
    assert api(stranger).put("/api/models/mood/aliases/a", {"version": 1}, format="json").status_code == 403
    assert api(stranger).delete("/api/models/mood").status_code == 403


def test_what_is_shared_with_everyone_is_seen_by_every_role(registered, member, stranger, viewer):
    for role in find_recipients("everyone"):
        set_access(user=member, obj=registered.model, to=role, level="view")
    assert [selectors.model_for(person, "mood").pk for person in (stranger, viewer)] == [registered.model.pk] * 2


@pytest.mark.medium
@pytest.mark.django_db(transaction=True)
def test_deletion_removes_rows_and_files(registered, learnt, member, api):
    services.register(user=member, experiment=learnt, name="mood")
    assert api(member).delete("/api/models/mood@1").status_code == 204
    assert not registered.folder.exists() and ModelVersion.objects.get().number == 2
    refused = api(member).delete("/api/models/mood@2")
    assert refused.status_code == 409 and "only version" in refused.json()["title"]
    assert api(member).delete("/api/models/mood").status_code == 204
    assert not RegisteredModel.objects.exists() and list(registered.folder.parent.iterdir()) == []
    assert learnt.final_model.exists()


@pytest.mark.medium
@pytest.mark.django_db(transaction=True)
def test_model_whose_deletion_is_rolled_back_keeps_its_files(registered, member):
    services.register(user=member, experiment=registered.experiment, name="mood")
    key = registered.pk
    for delete in (
        lambda: services.delete(user=member, model=RegisteredModel.objects.get()),
        lambda: services.delete_version(user=member, version=ModelVersion.objects.get(pk=key)),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            delete()
            raise DatabaseError
        for version in ModelVersion.objects.all():
            verify_folder(version.folder)
        assert ModelVersion.objects.count() == 2


def test_registration_spares_a_draft_that_somebody_else_is_filling(learnt, member):
    draft = learnt.folder.parent.parent / "data" / "models" / ".draft-of-another-registration"
    draft.mkdir(parents=True)
    services.register(user=member, experiment=learnt, name="mood")
    assert draft.exists()


@pytest.mark.parametrize(
    ("query", "expected"),
    [("q=tweet", ["mood"]), ("q=TWEET+english", ["mood"]), ("q=nothing", []), ("language=English", ["mood"]),
     ("language=Chinese", []), ("labels=Positive,negative, NEUTRAL", ["mood"]), ("labels=positive,negative", []),
     ("base_model=sentence-transformers/all-MiniLM-L6-v2", ["mood"]), ("owner=me", ["mood"]), ("q=neutral", ["mood"])],
)  # fmt: skip
def test_models_are_found_by_word_language_base_model_and_labels(registered, member, api, query, expected):
    assert [line["name"] for line in api(member).get(f"/api/models?{query}").json()["results"]] == expected


@pytest.mark.parametrize("query", ["sort=owner__password", "sort=-card", "owner=admin"])
def test_unknown_filter_is_refused(registered, member, browser, api, query):
    assert browser.get(f"/models/?{query}").status_code == 400
    assert api(member).get(f"/api/models?{query}").status_code == 400


ATTACKS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "[x](data:text/html,<script>1</script>)",
    '<a href="https://a" onclick="x()">x</a>', "![x](https://evil.example/pixel)", "<style>*{display:none}</style>",
    "[x](vbscript:x)", "<svg/onload=alert(1)>", '<iframe src="https://a"></iframe>', "```html\n<script>1</script>\n```",
    "<https://a.example/\"onmouseover=alert(1)>", "[a](https://a \"t' onx='1\")", "<form action=//a><input name=q></form>",
]  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS)
def test_markdown_of_a_card_is_inert(text):
    """S9: parsed again as a browser would, there is no tag, attribute or address but the harmless ones."""
    from html.parser import HTMLParser

    seen: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.append((tag, dict(attrs)))

    Reader().feed(card.render_card(text))
    assert {tag for tag, _attrs in seen} <= card.TAGS
    for _tag, attrs in seen:
        assert attrs.keys() <= {"href", "rel", "title"}
        assert (attrs.get("href") or "https:").split(":")[0] in {"http", "https", "mailto"}


def test_card_shows_markdown_on_the_page(browser, registered, member):
    services.describe(
        user=member, version=registered, text="## Use\n\n| a | b |\n|---|---|\n| **1** | `2` |\n\n<b>x</b>"
    )
    page = browser.get("/models/mood/").content.decode()
    assert "<h2>Use</h2>" in page and "<td><strong>1</strong></td>" in page and "&lt;b&gt;x" in page


@pytest.mark.medium
def test_page_of_a_model_says_what_who_and_how_good(browser, registered, learnt):
    content = browser.get("/models/mood/").content.decode()
    assert "Tells the mood of a tweet." in content and "held-out rows" in content and "English" in content
    assert "/predict/?model=mood%401" in content and "tweets@1" in content and "owned by member" in content
    assert "mood" in browser.get("/models/").content.decode()
    assert 'href="/models/mood/"' in browser.get("/experiments/small/", follow=True).content.decode()


@pytest.mark.medium
def test_older_version_says_that_there_is_a_newer_one(browser, registered, learnt, member):
    services.register(user=member, experiment=learnt, name="mood")
    assert "See version 2, the newest" in browser.get("/models/mood/?version=1").content.decode()
    assert "older version" not in browser.get("/models/mood/").content.decode()
    assert browser.get("/models/mood/?version=7").status_code == 404


@pytest.mark.medium
def test_model_is_registered_described_and_deleted_on_pages(browser, learnt):
    form = browser.get("/models/register/?experiment=small")
    assert 'value="small"' in form.content.decode() and "best: step" in form.content.decode()
    refused = browser.post("/models/register/", {"experiment": "small", "name": "a/b"})
    assert refused.status_code == 400 and "“a-b” can be used." in refused.content.decode()
    browser.post("/models/register/", {"experiment": "small", "name": "mood", "summary": "One.", "checkpoint": "best"})
    browser.post("/models/mood@1/card/", {"summary": "Two.", "card": "Text.", "licence_dataset": "mit"})
    browser.post("/models/mood@1/alias/", {"alias": "champion"})
    version = ModelVersion.objects.get()
    assert (version.card, version.model.summary, version.licence["dataset"]) == ("Text.", "Two.", "mit")
    assert "@champion" in browser.get("/models/mood/").content.decode()
    browser.post("/models/mood@1/alias/", {"remove": "champion"})
    assert not Alias.objects.exists()
    assert browser.post("/models/mood/delete/").url == "/models/"
    pass_time()
    assert not RegisteredModel.objects.exists()
    done = set(Entry.objects.filter(action__startswith="model.").values_list("action", flat=True))
    assert done == {
        "model.register",
        "model.describe",
        "model.alias",
        "model.alias_end",
        "model.remove",
        "model.delete",
    }


@pytest.mark.medium
def test_experiment_page_shows_its_checkpoints_and_what_another_one_reached(browser, learnt):
    page = browser.get("/experiments/small/?tab=files", follow=True)
    assert (
        list(page.context["checkpoints"]) == ["best", "last", "fastest"] and "Checkpoints kept" in page.content.decode()
    )
    other = browser.get("/experiments/small/?tab=files&checkpoint=fastest", follow=True)
    assert "Only scores are known" in other.content.decode() and "checkpoints/checkpoint-" in other.context["code"]
    compile(other.context["code"], "copied", "exec")
    assert browser.get("/experiments/small/?checkpoint=worst", follow=True).status_code == 404


def test_texts_that_were_cut_are_told(browser, learnt):
    assert learnt.metrics["data"]["truncated_rows"] > 1
    assert (
        "longer than 24 tokens and were truncated" in browser.get("/experiments/small/", follow=True).content.decode()
    )


@pytest.mark.medium
def test_list_asks_the_database_as_often_for_many_models_as_for_one(
    browser, registered, member, django_assert_max_num_queries
):
    for i in range(60):
        model = RegisteredModel.objects.create(
            name=f"m{i}", owner=member, base_model="b", label_set="x", updated_at=registered.created_at, accuracy=i / 60
        )
        model.latest = ModelVersion.objects.create(
            model=model, number=1, author=member, experiment_name="e", base_model="b"
        )
        model.save()
    with django_assert_max_num_queries(12):
        page = browser.get("/models/?sort=-accuracy")
    assert [m.name for m in page.context["page"]][:2] == ["m59", "m58"] and len(page.context["page"]) == 50


def test_registration_sent_twice_with_a_key_is_one_version(learnt, member, api):
    client, body = api(member), {"experiment": "small", "name": "mood"}
    first, again = (client.post("/api/models", body, format="json", headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.status_code == again.status_code == 201 and first.json() == again.json()
    assert len(list(ModelVersion.objects.get().folder.parent.iterdir())) == 1
    other = client.post("/api/models", body | {"name": "other"}, format="json", headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_used")
    assert client.post("/api/models", body | {"nmae": "x"}, format="json").status_code == 400


@pytest.mark.medium
def test_models_are_shared_and_read_page_by_page_like_everything_else(
    registered, learnt, member, stranger, api, browser
):
    services.register(user=member, experiment=learnt, name="other")
    page = api(member).get("/api/models?limit=1&sort=-accuracy").json()
    rest = api(member).get(page["next"]).json()
    assert {row["name"] for row in page["results"] + rest["results"]} == {"mood", "other"} and rest["next"] is None
    shared = api(member).post("/api/sharing/model/mood", {"to": "everyone", "access": "view"}, format="json")
    assert {line["access"] for line in shared.json() if line["kind"] == "group"} >= {"view"}
    assert api(stranger).get("/api/models/mood").status_code == 200
    assert "everyone with an account" in browser.get("/models/mood/").content.decode()
    browser.post("/sharing/model/mood/", {"to": "everyone", "access": "none"})
    assert api(stranger).get("/api/models/mood").status_code == 404
    assert (
        api(stranger).post("/api/sharing/model/mood", {"to": "stranger", "access": "view"}, format="json").status_code
        == 404
    )


@pytest.fixture
def browser(client, member):
    client.force_login(member)
    return client


@pytest.mark.medium
def test_register_form_offers_the_model_with_these_labels_beside_its_champion(browser, registered, learnt, member):
    services.set_alias(user=member, version=registered, name="champion")
    page = browser.get("/models/register/?experiment=small").content.decode()
    assert '<option value="mood" selected>' in page and 'name="name"' not in page
    assert "mood@1 <code>@champion</code>" in page and "at least as well as mood@1 on the same rows" in page
    ModelVersion.objects.update(score=0.999)
    assert (
        "mood@1 scores better on the same rows." in browser.get("/models/register/?experiment=small").content.decode()
    )
    ModelVersion.objects.update(dataset_hash="other")
    assert "on different rows" in browser.get("/models/register/?experiment=small").content.decode()
    browser.post("/models/register/", {"experiment": "small", "target": "mood"})
    assert registered.model.versions.count() == 2


@pytest.mark.medium
def test_register_form_offers_a_new_model_under_a_free_name(browser, registered, learnt):
    page = browser.get("/models/register/?experiment=small&target=").content.decode()
    assert 'name="name" required value="small"' in page and "the version in use" not in page
    browser.post("/models/register/", {"experiment": "small", "target": "", "name": "other"})
    assert RegisteredModel.objects.filter(name="other").exists()


@pytest.mark.medium
def test_moved_alias_is_said_and_undone_on_the_same_place(browser, registered, learnt, member):
    services.set_alias(user=member, version=registered, name="champion")
    services.register(user=member, experiment=learnt, name="mood")
    answer = browser.post("/models/mood@2/alias/", {"alias": "champion"})
    assert answer.url.endswith("#versions-title")
    page = browser.get(answer.url).content.decode()
    assert "@champion is version 2 now." in page and 'action="/undo/"' in page
