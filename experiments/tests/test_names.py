"""What experiments, datasets and registered models may be called: one rule for all three."""

import io
import json
import unicodedata
import zipfile
from urllib.parse import quote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse

from audit.selectors import search as search_audit_log
from datasets_app import services as datasets
from datasets_app.models import Dataset
from datasets_app.selectors import version_for
from engine import ConfigError, RunConfig
from engine.names import find_problem, folder_name
from experiments import services
from experiments.models import Experiment, ModelVersion, RegisteredModel
from experiments.names import RESERVED_EXPERIMENTS, RESERVED_MODELS
from experiments.registry import card
from experiments.registry import services as registry
from experiments.selectors import search
from testing.belongings import belongings
from testing.datasets import store_dataset
from testing.experiments import row
from web.errors import ConflictError, InvalidError

pytestmark = pytest.mark.django_db
VALID = ["a", "7", "Tweets-en_2.1", "a.b.c", "a-", "a_", "x" * 80, "é", "客服工單", "고객문의"]
INVALID = [
    "",
    ".a",
    "-a",
    "_a",
    "a.",
    "a..b",
    "a b",
    "a/b",
    "a\n",
    "🎉",
    "a\u200b",
    "ﷺ",
    "a\x00",
    "x" * 81,
    "a" + ".b" * 40,
]


@pytest.fixture
def good_csv_file():
    return SimpleUploadedFile("a.csv", b"text,label\n" + b"a text here,good\nanother one,bad\n" * 20)


@pytest.mark.parametrize("name", ["mine", "compare", "Compare"])
def test_names_that_are_addresses_are_refused(api, member, tweets_csv, name):
    store_dataset(member, "tweets", tweets_csv)
    answer = api(member).post(
        "/api/train", {"experiment_name": name, "data": {"dataset_name": "tweets"}}, format="json"
    )
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "experiment_name"


@pytest.mark.medium
def test_page_says_beside_the_field_that_a_name_is_an_address(browser, member, tweets_csv):
    store_dataset(member, "tweets", tweets_csv)
    page = browser.post("/train/", {"experiment_name": "mine", "data.dataset_name": "tweets"})
    assert page.status_code == 400 and page.context["form"]["experiment_name"].errors
    assert not Experiment.objects.exists()


def test_name_is_taken_in_any_case_because_some_disks_do_not_tell_them_apart(member):
    row(member, "First")
    with pytest.raises(services.NameTakenError) as refused:
        services.create(owner=member, name="first", config={}, version=None, dataset_name="a/b", base_model="b")
    assert refused.value.facts["suggestion"] == "first-2"


def refuses(check, *arguments, **options):
    try:
        check(*arguments, **options)
    except (InvalidError, ConfigError):
        return True
    return False


@pytest.mark.parametrize("name", VALID + INVALID)
def test_three_kinds_of_objects_accept_the_same_names(member, name):
    expected = name in INVALID
    assert (find_problem(name) is not None) is expected
    assert refuses(RunConfig.from_yaml, json.dumps({"experiment_name": name})) is expected
    assert refuses(services.check_name, name) is expected
    assert refuses(datasets.check_name, member, name) is expected
    assert refuses(registry.target_model, member, name) is expected


def test_addresses_of_pages_are_no_names_in_any_case(member):
    for name in RESERVED_EXPERIMENTS:
        assert refuses(services.check_name, name.upper())
    for name in RESERVED_MODELS:
        assert refuses(registry.target_model, member, name.title())
    for name in ("new", "Tasks"):
        with pytest.raises(InvalidError, match=f"“{name}” is reserved"):
            datasets.check_name(member, name)


def test_dataset_from_before_the_rule_gets_further_versions(member):
    Dataset.objects.create(name="a..b.", owner=member)
    datasets.check_name(member, "a..b.")
    assert reverse("datasets:detail", args=["a..b."]) == "/datasets/a..b./"


def decompose(name):
    return unicodedata.normalize("NFD", name)


@pytest.mark.medium
@pytest.mark.parametrize("name", ["客服工單", "고객문의", "résumé"])
def test_objects_are_found_by_any_form_of_their_name(api, client, member, name):
    owned, files = belongings(member, name), api(member)
    assert decompose(name) != name or name == "客服工單"
    for form in (name, decompose(name)):
        assert files.get(f"/api/datasets/{quote(form)}").json()["name"] == name
        assert files.get(f"/api/experiments/{quote(form)}").json()["experiment"] == name
        assert files.get(f"/api/models/{quote(form)}").json()["name"] == name
        assert version_for(member, f"{form}@1") == owned.version
        for path in ("/api/experiments/mine", "/api/models"):
            rows = files.get(path, {"q": form}).json()["results"]
            assert [row.get("experiment") or row["name"] for row in rows] == [name]
    client.force_login(member)
    for address in (owned.dataset, owned.experiment, owned.model):
        assert address.get_absolute_url().isascii()
        assert name in client.get(address.get_absolute_url(), follow=True).content.decode()


def test_name_is_stored_composed(api, member, good_csv_file):
    answer = api(member).post(
        "/api/datasets", {"name": decompose("고객문의"), "file": good_csv_file}, format="multipart"
    )
    assert (answer.status_code, answer.json()["name"]) == (201, "고객문의")
    assert answer.json()["report_url"].endswith("/datasets/%EA%B3%A0%EA%B0%9D%EB%AC%B8%EC%9D%98/")
    assert Dataset.objects.get().name == "고객문의"
    assert search_audit_log({"q": decompose("고객")}).get().object_id == "고객문의@1"


def test_refusal_names_the_character_and_offers_a_name(api, member, good_csv_file):
    answer = api(member).post("/api/datasets", {"name": "客服\u202e工單", "file": good_csv_file}, format="multipart")
    assert answer.status_code == 400 and answer.json()["suggestion"] == "客服工單"
    assert "U+202E RIGHT-TO-LEFT OVERRIDE" in answer.json()["errors"][0]["message"]


def test_name_that_differs_in_case_or_width_only_is_taken(member):
    belongings(member, "Straße")
    for name in ("STRASSE", "strasse", "Ｓｔｒａßｅ"):
        with pytest.raises(ConflictError, match="Straße"):
            datasets.check_name(member, name)
        with pytest.raises(services.NameTakenError):
            services.check_name(name)
        with pytest.raises(services.NameTakenError):
            registry.target_model(member, name)
    assert services.free_name("STRASSE") == "STRASSE-2"


def test_reserved_name_is_refused_in_any_width(member):
    assert refuses(datasets.check_name, member, "ｎｅｗ") and refuses(services.check_name, "ｍｉｎｅ")


def test_same_key_is_refused_by_the_database_too(member):
    Dataset.objects.create(name="tweets", owner=member)
    with pytest.raises(IntegrityError), transaction.atomic():
        Dataset.objects.create(name="Tweets", owner=member)


def test_experiment_lies_in_a_folder_of_ascii_letters(member, settings):
    experiment = row(member, "客服-2026")
    assert experiment.folder.parent == settings.RESULTS_DIR
    assert experiment.folder.name == experiment.folder_name == folder_name("客服-2026")
    assert row(member, "Plain_1").folder == settings.RESULTS_DIR / "Plain_1"


def test_free_name_has_the_number_after_those_that_are_taken(member):
    for number in range(2, 24):
        assert services.free_name("run-1") == ("run-1" if number == 2 else f"run-{number - 1}")
        row(member, "run-1" if number == 2 else f"run-{number - 1}")


def test_free_name_among_many_takes_a_few_queries_and_reads_no_names(member, django_assert_max_num_queries):
    names = ["run-1", *(f"run-{number}" for number in range(2, 301))]
    Experiment.objects.bulk_create(Experiment(name=name, owner=member) for name in names)
    with django_assert_max_num_queries(20) as queries:
        assert services.free_name("run-1") == "run-301"
    assert all(query["sql"].startswith("SELECT 1 ") for query in queries)


def test_free_name_of_the_longest_name_is_an_allowed_one(member):
    for name in ("客" * 80, "𠮷" * 60, "x" * 80):
        row(member, name)
        free = services.free_name(name)
        assert free != name and find_problem(free) is None


def test_archives_carry_the_name_in_header_and_content(client, member, api):
    belongings(member, "客服")
    client.force_login(member)
    name = quote("客服")
    for address, filename in (
        (f"/experiments/{name}/all.zip", "客服.zip"),
        (f"/models/{name}/archive.zip", "客服-1.zip"),
        (f"/datasets/{name}/download/?version=1", "客服-1.csv"),
    ):
        answer = client.get(address)
        assert answer.headers["Content-Disposition"] == f"attachment; filename*=utf-8''{quote(filename)}"
        content = b"".join(answer.streaming_content)
        if filename.endswith(".zip"):
            names = zipfile.ZipFile(io.BytesIO(content)).namelist()
            assert names and all(each.startswith("客服/") for each in names)
    assert "# 客服@1" in card.readme(ModelVersion.objects.get())


BEFORE = [("datasets_app", "0004_kinds"), ("experiments", "0007_model_exports")]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_migration_gives_existing_rows_their_keys_and_keeps_their_folders(member):
    for name in ("First", "second"):
        belongings(member, name)
    RegisteredModel.objects.update(words="ｗｉｄｅ")
    try:
        MigrationExecutor(connection).migrate(BEFORE)
        old = MigrationExecutor(connection).loader.project_state(BEFORE).apps.get_model("datasets_app", "Dataset")
        old.objects.create(name="FIRST", owner_id=member.pk)  # an earlier release allowed both
    finally:
        newest = MigrationExecutor(connection)
        newest.migrate(newest.loader.graph.leaf_nodes())
    keys = set(Dataset.objects.values_list("name", "name_key"))
    assert keys == {("First", "first"), ("FIRST", None), ("second", "second")}
    rows = set(Experiment.objects.values_list("name", "name_key", "folder_name"))
    assert rows == {("First", "first", "First"), ("second", "second", "second")}
    assert set(RegisteredModel.objects.values_list("name_key", "words")) == {("first", "wide"), ("second", "wide")}
    with pytest.raises(ConflictError):
        datasets.check_name(member, "first")
    datasets.check_name(member, "FIRST")


def test_row_of_an_earlier_release_keeps_its_folder_and_is_taken_in_any_case(member, settings):
    row(member, "Old")
    Experiment.objects.update(name_key=None, folder_name=None)
    experiment = Experiment.objects.get()
    experiment.save()
    assert experiment.folder == settings.RESULTS_DIR / "Old" and services.free_name("old") == "old-2"
    assert search(member, q="OLD").get() == experiment
