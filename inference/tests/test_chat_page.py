"""The chat page without JavaScript, and the streams that its script reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from audit.models import Entry
from engine.models import plain_templates
from experiments.models import ModelVersion
from inference.tests.test_openai_api import chat
from testing.registered import register_language_model

pytestmark = pytest.mark.django_db
SETTINGS = {"max_tokens": "8", "temperature": "0"}


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client


def say(browser: Client, message: str, **fields: str) -> Any:
    """Send a message to the base model and return the chat that the page shows."""
    return browser.post("/chat/", SETTINGS | {"model": "tiny", "message": message} | fields).context


def asked_again(context: Any) -> dict[str, str]:
    """Return what the page's form sends along with the next message."""
    return {"exchanges": context["chat"].exchanges_json}


@pytest.mark.medium
def test_conversation_goes_on_in_the_page_alone(tiny: str, browser: Client, member: Any) -> None:
    first = say(browser, "two boxes of tea")
    second = say(browser, "and one of coffee", **asked_again(first))
    exchanges = second["chat"].exchanges
    assert [exchange.question for exchange in exchanges] == ["two boxes of tea", "and one of coffee"]
    assert exchanges[0] == first["chat"].exchanges[0] and exchanges[1].answers[0].text
    messages = second["chat"].body(member, 0)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    page = browser.post("/chat/", asked_again(second) | {"model": "tiny", "do": "code"}).content.decode()
    assert 'Set the environment variable TOKEN to one of your <a href="/account/tokens/">' in page
    assert "tea" not in json.dumps(list(Entry.objects.values_list("details", flat=True)))
    assert [copy["title"] for copy in second["copies"]] == ["curl", "Python", "OpenAI Python"]


@pytest.mark.medium
def test_base_and_tuned_model_answer_side_by_side(registered: ModelVersion, browser: Client) -> None:
    answers = say(browser, "two boxes", model="assistant", second="tiny")["chat"].exchanges[0].answers
    assert [answer.model for answer in answers] == ["assistant", "tiny"]
    assert answers[0].text != answers[1].text


@pytest.mark.medium
def test_base_model_reads_the_chat_template_of_the_tuned_one_beside_it(
    bare: str, tmp_path: Path, api: Callable[..., Any], member: Any, browser: Client
) -> None:
    tuned = register_language_model(member, "helper", tmp_path / bare)
    info = json.loads((tuned.folder / "lorasite.json").read_text())
    (tuned.folder / "lorasite.json").write_text(json.dumps(info | {"chat_template": "alpaca"}))
    (tuned.folder / "chat_template.jinja").write_text(plain_templates.TEMPLATES["alpaca"])
    page = say(browser, "two boxes", model=bare, second="helper")
    question = [{"role": "user", "content": "two boxes"}]
    texts = [
        chat(api(member), model=bare, messages=question, **fields).json()["choices"][0]["message"]["content"]
        for fields in ({"chat_template": "alpaca"}, {})
    ]
    assert page["chat"].exchanges[0].answers[0].text == texts[0] != texts[1]
    assert "extra_body={'chat_template': 'alpaca'}" in page["copies"][2]["code"]
    assert "chat_template" not in page["chat"].body(member, 1)
    assert "chat_template" not in say(browser, "two boxes", model=bare)["chat"].body(member, 0)


def test_question_is_answered_again_or_edited(tiny: str, browser: Client) -> None:
    first = say(browser, "two boxes")
    again = say(browser, "", do="again", system="Be brief.", **asked_again(first))
    assert len(again["chat"].exchanges) == 1 and again["chat"].exchanges[0].answers[0].text
    edited = say(browser, "", do="edit", **asked_again(first))
    assert edited["chat"].exchanges == [] and edited["values"]["message"] == "two boxes"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"message": "tea " * 600}, "shorten the prompt"),
        ({"message": "hi", "model": "nowhere"}, "no model nowhere"),
        ({"message": "hi", "temperature": "warm"}, "Temperature must be a number"),
        ({"message": "hi", "top_p": "7"}, "less than or equal to 1"),
    ],
)
def test_what_can_not_be_answered_is_explained_and_kept(
    tiny: str, browser: Client, fields: dict[str, str], words: str
) -> None:
    page = browser.post("/chat/", SETTINGS | {"model": "tiny"} | fields)
    assert words in page.content.decode()
    assert page.context["values"]["message"] == fields["message"].strip() and page.context["chat"].exchanges == []


def test_one_model_that_fails_keeps_the_answer_of_the_other(tiny: str, browser: Client) -> None:
    page = browser.post("/chat/", SETTINGS | {"model": "tiny", "second": "nowhere", "message": "hi"})
    assert page.context["chat"].exchanges[0].answers[0].text and "no model nowhere" in page.content.decode()


def test_markup_in_answers_and_questions_is_text(tiny: str, browser: Client) -> None:
    page = say(browser, "<script>alert(1)</script>")
    exchanges = [{"question": "<b>", "answers": [{"model": "tiny", "text": "<img src=x onerror=alert(1)>"}]}]
    page = browser.post("/chat/", {"do": "code", "model": "tiny", "exchanges": json.dumps(exchanges)})
    assert "&lt;img src=x" in page.content.decode() and "<img src=x" not in page.content.decode()


@pytest.mark.parametrize("exchanges", ["{", "[1]", '[{"question": 1, "answers": []}]', "[" * 10_000])
def test_conversation_that_was_tampered_with_is_refused(tiny: str, browser: Client, exchanges: str) -> None:
    page = browser.post("/chat/", {"model": "tiny", "message": "hi", "exchanges": exchanges})
    assert "Start a new one." in page.content.decode()


@pytest.mark.medium
def test_stream_of_each_column_says_what_the_page_would(registered: ModelVersion, browser: Client) -> None:
    form = SETTINGS | {"model": "assistant", "second": "tiny", "message": "two boxes"}
    whole = browser.post("/chat/", form).context["chat"].exchanges[0].answers
    for column in (0, 1):
        response = browser.post(
            "/chat/stream/", form | {"column": str(column)}, headers={"Accept": "text/event-stream"}
        )
        lines = b"".join(response).decode().split("\n\n")
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == whole[column].text and lines[-2] == "data: [DONE]"
    refused = browser.post(
        "/chat/stream/", form | {"model": "nowhere", "column": "0"}, headers={"Accept": "text/event-stream"}
    )
    assert refused.status_code == 404 and "no model nowhere" in refused.json()["detail"]


def test_conversation_is_downloaded_as_rows_of_a_dataset(tiny: str, browser: Client) -> None:
    answers = [{"model": "assistant", "text": "茶"}, {"model": "tiny", "text": ""}]
    form = {
        "do": "download",
        "system": "Be brief.",
        "exchanges": json.dumps([{"question": "tea?", "answers": answers}]),
    }
    file = browser.post("/chat/", form)
    assert file["Content-Disposition"] == 'attachment; filename="conversation.jsonl"'
    (messages,) = (json.loads(line)["messages"] for line in file.content.decode().splitlines())  # tiny gave no answer
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "Be brief."),
        ("user", "tea?"),
        ("assistant", "茶"),
    ]


def test_page_without_own_models_leads_to_training_one(tiny: str, browser: Client) -> None:
    page = browser.get("/chat/").content.decode()
    assert 'href="/datasets/new/">Add data' in page and '<option value="tiny"' in page


def test_models_that_classify_are_not_offered(models: Any, registered: ModelVersion, browser: Client) -> None:
    page = browser.get("/chat/?model=assistant").content.decode()
    assert '<option value="assistant@1" selected' in page and "single@1" not in page
