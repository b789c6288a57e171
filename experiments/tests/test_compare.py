"""Experiments side by side."""

import pytest

from testing.experiments import row

pytestmark = pytest.mark.django_db


def test_comparison_marks_the_best_and_shows_what_differs(browser, member):
    row(member, "slow", accuracy=0.9, runtime_s=20.0, config={"lora": {"r": 8}, "seed": 1})
    row(member, "fast", accuracy=0.8, runtime_s=10.0, config={"lora": {"r": 4}, "seed": 1})
    page = browser.get("/experiments/compare?name=slow&name=fast")
    best = {str(line["column"].title): [cell["best"] for cell in line["cells"]] for line in page.context["measures"]}
    assert (
        best["Accuracy"] == [True, False]
        and best["Training time (s)"] == [False, False]
        and best["Macro F1"] == [False, False]
    )
    assert page.context["settings"] == [{"title": "lora.r", "values": [8, 4]}]
    assert len(browser.get("/experiments/compare?name=slow&name=fast&all=1").context["settings"]) == 2
    losses, scores = page.context["charts"]
    assert [(curve["label"], curve["hue"]) for curve in losses["series"]] == [("slow", 0), ("fast", 1)]
    assert losses["series"][0]["values"] == [0.9, 0.5] and scores["series"][1]["values"] == [0.8]


def test_comparison_of_one_or_of_the_invisible_is_refused(browser, member, stranger):
    row(member, "own")
    row(stranger, "other")
    few = browser.get("/experiments/compare?name=own")
    assert few.status_code == 400 and b"Tick two to six" in few.content
    assert browser.get("/experiments/compare?name=own&name=other").status_code == 404


def test_best_is_marked_only_among_runs_with_the_same_evaluation_rows(browser, member):
    row(member, "small", accuracy=1.0, dataset_name="small@1")
    row(member, "small-too", accuracy=0.9, dataset_name="small@1")
    row(member, "large", accuracy=0.8, config={"data": {"eval_fraction": 0.2}})
    page = browser.get("/experiments/compare?name=small&name=small-too&name=large")
    best = {str(line["column"].title): [cell["best"] for cell in line["cells"]] for line in page.context["measures"]}
    assert best["Accuracy"] == [True, False, False]
    assert b"evaluated on different rows" in page.content
    assert "cannot be compared" in page.context["charts"][1]["sentence"]
    alike = browser.get("/experiments/compare?name=small&name=small-too")
    assert b"evaluated on different rows" not in alike.content


def test_comparison_says_how_exact_an_accuracy_is(browser, member):
    row(member, "one", accuracy=0.8)
    row(member, "two", accuracy=0.9)
    page = browser.get("/experiments/compare?name=one&name=two")
    accuracies = {line["column"].key: line["cells"] for line in page.context["measures"]}["accuracy"]
    assert accuracies[0]["margin"] == pytest.approx(0.17, abs=0.01)  # 16 of 20 rows
    assert "±\xa00.17" in page.content.decode().replace("&nbsp;", "\xa0")
