"""What an experiment may be called."""

import pytest

from experiments import services
from experiments.models import Experiment

from .rows import row

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", ["mine", "compare", "Compare"])
def test_names_that_are_addresses_are_refused(api, member, tweets_csv, name):
    from datasets_app.services import create_version

    create_version(user=member, name="tweets", file=tweets_csv, filename="tweets.csv")
    answer = api(member).post(
        "/api/train", {"experiment_name": name, "data": {"dataset_name": "tweets"}}, format="json"
    )
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "experiment_name"


def test_page_says_beside_the_field_that_a_name_is_an_address(browser, member, tweets_csv):
    from datasets_app.services import create_version

    create_version(user=member, name="tweets", file=tweets_csv, filename="tweets.csv")
    page = browser.post("/train/", {"experiment_name": "mine", "data.dataset_name": "tweets"})
    assert page.status_code == 400 and page.context["form"]["experiment_name"].errors
    assert not Experiment.objects.exists()


def test_name_is_taken_in_any_case_because_some_disks_do_not_tell_them_apart(member):
    row(member, "First")
    with pytest.raises(services.NameTakenError) as refused:
        services.create(owner=member, name="first", config={}, version=None, dataset_name="a/b", base_model="b")
    assert refused.value.facts["suggestion"] == "first-2"
