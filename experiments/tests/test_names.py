"""What experiments, datasets and registered models may be called: one rule for all three."""

import json

import pytest
from django.urls import reverse

from datasets_app import services as datasets
from datasets_app.models import Dataset
from engine import ConfigError, RunConfig
from engine.names import is_valid_name
from experiments import services
from experiments.models import Experiment
from experiments.names import RESERVED_EXPERIMENTS, RESERVED_MODELS
from experiments.registry import services as registry
from testing.datasets import store_dataset
from testing.experiments import row
from web.errors import InvalidError

pytestmark = pytest.mark.django_db
VALID = ["a", "7", "Tweets-en_2.1", "a.b.c", "a-", "a_", "x" * 80]
INVALID = ["", ".a", "-a", "_a", "a.", "a..b", "a b", "a/b", "a\n", "é", "a\x00", "x" * 81, "a" + ".b" * 40]


@pytest.mark.parametrize("name", ["mine", "compare", "Compare"])
def test_names_that_are_addresses_are_refused(api, member, tweets_csv, name):
    store_dataset(member, "tweets", tweets_csv)
    answer = api(member).post(
        "/api/train", {"experiment_name": name, "data": {"dataset_name": "tweets"}}, format="json"
    )
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "experiment_name"


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
    assert is_valid_name(name) is not expected
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
