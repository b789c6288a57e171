"""Experiments side by side."""

import pytest

from testing.experiments import row

pytestmark = pytest.mark.django_db


def test_comparison_marks_the_best_and_shows_what_differs(browser, member):
    row(member, "slow", accuracy=0.9, runtime_s=20.0, config={"lora": {"r": 8}, "seed": 1})
    row(member, "fast", accuracy=0.8, runtime_s=10.0, config={"lora": {"r": 4}, "seed": 1})
    page = browser.get("/experiments/compare?name=slow&name=fast")
    best = {str(line["column"].title): [cell["best"] for cell in line["cells"]] for line in page.context["measures"]}
    assert best["Accuracy"] == [True, False] and best["Seconds"] == [False, True] and best["Macro F1"] == [False, False]
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
