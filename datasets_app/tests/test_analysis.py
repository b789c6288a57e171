"""Statistics of a version's texts: tokens with a base model, languages, typical words of each label."""

import shutil

import polars as pl
import pytest

from datasets_app.checks import text_statistics
from datasets_app.models import DataTask
from engine import resolve_base_model
from engine.config_sections import SAMPLE_MODEL
from work.models import Status

pytestmark = pytest.mark.django_db


@pytest.fixture
def own_model(settings, tmp_path):
    """A base model in a folder of one's own, known as `mine`."""
    settings.BASE_MODELS_DIR = tmp_path / "models"
    shutil.copytree(resolve_base_model(SAMPLE_MODEL), settings.BASE_MODELS_DIR / "mine")
    return "mine"


def test_words_are_typical_of_their_label():
    rows = [(f"the room {i} was {('clean', 'filthy')[i % 2]} indeed", "ab"[i % 2]) for i in range(40)]
    words_by_label = text_statistics.words_by_label(pl.DataFrame(rows, schema=["text", "label"], orient="row"))
    assert {label: [word for word, _rows in words] for label, words in words_by_label.items()} == {
        "a": ["clean"],
        "b": ["filthy"],
    }
    assert words_by_label["a"] == [["clean", 20]]


def test_chinese_words_are_pairs_of_characters():
    rows = [(("服務很好，值得再來", "服務太差，不會再來")[i % 2], "好壞"[i % 2]) for i in range(40)]
    words_by_label = text_statistics.words_by_label(pl.DataFrame(rows, schema=["text", "label"], orient="row"))
    assert ["很好", 20] in words_by_label["好"] and ["太差", 20] in words_by_label["壞"]
    assert "服務" not in [word for words in words_by_label.values() for word, _rows in words]


@pytest.mark.parametrize(
    ("lengths", "limit"), [({5: 10, 40: 5}, 16), ({3: 1}, 128), ({9: 99, 600: 1}, 7), ({200: 4}, 128)]
)
def test_no_bin_of_the_histogram_straddles_the_limit(lengths, limit):
    bins = text_statistics.histogram(lengths, limit)
    over, _share = text_statistics.share_over(lengths, limit)
    assert sum(b["rows"] for b in bins) == sum(lengths.values())
    assert sum(b["rows"] for b in bins if b["from"] > limit) == over
    assert all(b["to"] <= limit or b["from"] > limit for b in bins)


@pytest.mark.medium
def test_report_shows_tokens_languages_and_words(client, member, stored):
    client.force_login(member)
    page = client.get("/datasets/moods/?max_length=16").content.decode()
    assert "are longer than 16 tokens" in page or "is longer than 16 tokens" in page
    assert "English" in page and "q=lovely" in page and "q=awful" in page


@pytest.mark.medium
def test_tokens_are_counted_with_the_chosen_model(client, member, stored, own_model):
    client.force_login(member)
    assert "not counted yet" in client.get("/datasets/moods/?model=mine").content.decode()
    answer = client.post("/datasets/moods/tokens/", {"version": 1, "model": own_model, "max_length": 12}, follow=True)
    assert "longer than 12 tokens" in answer.content.decode()
    stored.refresh_from_db()
    assert stored.tokens["mine"] == stored.tokens[SAMPLE_MODEL]


def test_unavailable_model_is_reported(client, member, stored, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    client.force_login(member)
    answer = client.post("/datasets/moods/tokens/", {"version": 1, "model": "nobody/nothing"}, follow=True)
    assert answer.status_code == 200
    assert "is not on this machine" in answer.content.decode()


@pytest.mark.medium
@pytest.mark.django_db(transaction=True)
def test_many_rows_are_counted_by_the_queue(client, member, stored, own_model, monkeypatch, run_worker):
    monkeypatch.setattr(text_statistics, "AT_ONCE", 10)
    client.force_login(member)
    address = client.post("/datasets/moods/tokens/", {"version": 1, "model": own_model}).url
    run_worker()
    task = DataTask.objects.get()
    assert task.status == Status.SUCCESS, task.error
    assert "version=1&amp;model=mine" in client.get(address).content.decode()
    stored.refresh_from_db()
    assert text_statistics.token_lengths(stored, "mine") == text_statistics.token_lengths(stored, SAMPLE_MODEL)


@pytest.mark.parametrize(("lengths", "last", "most"), [({5: 10, 27: 3}, 27, 20), ({5: 1000, 400: 1}, 400, 20)])
def test_histogram_has_few_bins_and_none_up_to_a_limit_that_nothing_reaches(lengths, last, most):
    bins = text_statistics.histogram(lengths, 128)
    assert (
        len(bins) <= most
        and bins[-1]["to"] in (last, last + 1)
        and sum(b["rows"] for b in bins) == sum(lengths.values())
    )
