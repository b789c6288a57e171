"""A cell of the confusion matrix leads to its rows, and from a row to its label in the dataset."""

import html
import json
import re
from typing import Any

import pytest

from accounts.permissions import grant_access
from experiments.models import Experiment
from testing.belongings import Belongings, belongings
from training.models import Status, Task

pytestmark = pytest.mark.django_db

METRICS: dict[str, Any] = {
    "labels": ["bad", "good"],
    "eval": {"accuracy": 0.9, "loss": 0.2, "confusion_matrix": [[9, 1], [3, 7]], "per_label": {}},
}
ROWS = [
    {"text": "a fine day", "label": "good", "predicted": "bad", "probability": 0.93},
    {"text": "100 % & more <b>", "label": "good", "predicted": "bad", "probability": 0.7},
    {"text": "a poor day", "label": "bad", "predicted": "good", "probability": 0.6},
]


@pytest.fixture
def owned(member: Any) -> Belongings:
    """A finished run whose errors were kept."""
    owned = belongings(member)
    Task.objects.filter(pk=owned.task.pk).update(status=Status.SUCCESS)
    Experiment.objects.filter(pk=owned.experiment.pk).update(metrics=METRICS, score=0.9, accuracy=0.9)
    (owned.experiment.folder / "artifacts").mkdir()
    (owned.experiment.folder / "artifacts/wrong_rows.json").write_text(json.dumps(ROWS))
    return owned


def cell_page(client: Any, owned: Belongings, label: str = "good", predicted: str = "bad") -> str:
    address = f"/runs/{owned.task.pk}/?tab=errors&label={label}&predicted={predicted}"
    return str(client.get(address).content.decode())


def links(page: str, title: str) -> list[str]:
    return [html.unescape(link) for link in re.findall(rf'<a href="([^"]+)">{title}</a>', page)]


@pytest.mark.medium
def test_cell_lists_its_rows_and_a_row_leads_to_the_form_of_its_label(
    client: Any, member: Any, owned: Belongings
) -> None:
    client.force_login(member)
    overview = client.get(f"/runs/{owned.task.pk}/?tab=errors").content.decode()
    assert (
        '<a href="?tab=errors&amp;label=good&amp;predicted=bad#wrong-rows"' in overview
        and "wrong-rows-title" not in overview
    )
    page = cell_page(client, owned)
    assert "“good” taken for “bad”" in page and "3 held-out rows" in page and "The first 2 are shown." in page
    assert "a poor day" not in page and "100 % &amp; more &lt;b&gt;" in page
    fix, _second = links(page, "Fix label")
    form = client.get(fix).content.decode()
    assert 'id="edit"' in form and ">a fine day</textarea>" in form and 'value="good"' in form
    assert 'name="text"' in client.get(links(page, "Predict")[1]).content.decode()


def test_text_with_signs_stays_whole_in_the_links(client: Any, member: Any, owned: Belongings) -> None:
    client.force_login(member)
    predict = links(cell_page(client, owned), "Predict")[1]
    assert ">100 % &amp; more &lt;b&gt;</textarea>" in client.get(predict).content.decode()


@pytest.mark.parametrize(("label", "predicted"), [("good", "good"), ("good", "nothing"), ("", "bad")])
def test_what_is_no_cell_of_errors_lists_nothing(
    client: Any, member: Any, owned: Belongings, label: str, predicted: str
) -> None:
    client.force_login(member)
    assert "wrong-rows-title" not in cell_page(client, owned, label, predicted)


def test_run_of_an_earlier_release_has_a_matrix_without_links(client: Any, member: Any, owned: Belongings) -> None:
    (owned.experiment.folder / "artifacts/wrong_rows.json").unlink()
    client.force_login(member)
    page = cell_page(client, owned)
    assert "Confusion matrix" in page and "#wrong-rows" not in page and "wrong-rows-title" not in page


def test_who_sees_the_run_alone_is_offered_no_way_into_the_dataset(
    client: Any, stranger: Any, owned: Belongings
) -> None:
    grant_access(owned.task, to=stranger)
    client.force_login(stranger)
    page = cell_page(client, owned)
    assert "a fine day" in page and not links(page, "Open in dataset") and not links(page, "Fix label")
    grant_access(owned.dataset, to=stranger)
    page = cell_page(client, owned)
    assert len(links(page, "Open in dataset")) == 2 and not links(page, "Fix label")
