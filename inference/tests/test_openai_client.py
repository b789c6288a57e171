"""The official client of OpenAI and the chat page against the site's web server: answers, streams, errors, and readers who leave."""

import ast
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
from django.http import QueryDict
from django.test import RequestFactory
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI
from playwright.sync_api import expect, sync_playwright
from pydantic import BaseModel

from accounts.models import User
from inference.chat import Chat
from inference.copy_as import chat_copies
from testing.browser import launch, sign_in
from testing.chat_templates import HERMES
from testing.language_models import build_language_model
from testing.site import running_web

pytestmark = pytest.mark.process

TOKEN = """
from accounts.services import make_token
print(make_token(user=root, name="openai", scopes=["read", "predict"], days=1)[1])
"""
QUESTION: Any = [{"role": "user", "content": "two boxes of tea"}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a site with the tiny base model `tiny`, and a token."""
    folder = tmp_path_factory.mktemp("site")
    # Long answers of many layers are still being written when their readers leave, on a busy machine, too.
    build_language_model(folder / "base-models" / "tiny", max_position_embeddings=4096, num_hidden_layers=24)
    build_language_model(folder / "base-models" / "caller", template=HERMES)
    with running_web(folder, more=TOKEN, BASE_MODELS_DIR=str(folder / "base-models")) as (address, token):
        yield address, token


@pytest.fixture
def client(site: tuple[str, str]) -> OpenAI:
    return OpenAI(base_url=f"{site[0]}/v1", api_key=site[1], max_retries=0, timeout=60)


def test_client_chats_streams_and_lists_models(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=12, temperature=0, stop=["zzz"])
    assert whole.usage and 0 < whole.usage.completion_tokens <= 12
    assert whole.usage.prompt_tokens_details and whole.usage.prompt_tokens_details.cached_tokens is not None
    stream = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_completion_tokens=12, temperature=0, stream=True, seed=1,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [model.id for model in client.models.list() if model.id == "tiny"] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "base-model"
    continued = client.completions.create(model="tiny", prompt="two boxes", max_tokens=4)
    assert continued.choices[0].finish_reason in ("stop", "length")


def test_client_raises_the_errors_that_it_knows(client: OpenAI, site: tuple[str, str]) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        client.chat.completions.create(model="nowhere", messages=QUESTION)
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "tea " * 20_000}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(AuthenticationError):
        OpenAI(base_url=f"{site[0]}/v1", api_key="ls_pat_wrong", max_retries=0).models.list()


def test_object_is_answered_where_json_is_asked_for(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=200, seed=1, response_format={"type": "json_object"}
    ).choices[0]
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content or ""), dict)
    else:
        assert (answer.message.content or "").lstrip().startswith("{")


class Order(BaseModel):
    quantity: Literal[1, 2]
    unit: Literal["box", "bag"]


def test_client_parses_answers_into_its_own_models_and_reads_log_probabilities(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="tiny", messages=QUESTION, max_tokens=300, temperature=0, response_format=Order
    ).choices[0]
    assert answer.finish_reason == "stop" and isinstance(answer.message.parsed, Order)
    choice = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=5, temperature=0, logprobs=True, top_logprobs=2
    ).choices[0]
    tokens = choice.logprobs.content if choice.logprobs else None
    assert tokens and tokens[0].logprob == tokens[0].top_logprobs[0].logprob
    text = client.completions.create(model="tiny", prompt="two boxes", max_tokens=4, logprobs=1).choices[0]
    assert text.logprobs and text.logprobs.tokens and text.logprobs.top_logprobs


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "price_of",
        "description": "Return the price of an item.",
        "parameters": {
            "type": "object",
            "properties": {"item": {"enum": ["tea", "milk"]}},
            "required": ["item"],
            "additionalProperties": False,
        },
    },
}


def test_client_gets_calls_of_tools_and_sends_their_results(client: OpenAI) -> None:
    options: Any = {"model": "caller", "max_tokens": 200, "temperature": 0, "tools": [TOOL]}
    answer = client.chat.completions.create(messages=QUESTION, tool_choice="required", **options).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.tool_calls
    call: Any = answer.message.tool_calls[0]
    assert call.function.name == "price_of" and json.loads(call.function.arguments)["item"] in ("tea", "milk")
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "3.50"}
    told = client.chat.completions.create(messages=[*QUESTION, answer.message, result], **options | {"max_tokens": 5})
    assert told.usage and told.usage.prompt_tokens > 50
    chosen: Any = {"type": "function", "function": {"name": "price_of"}}
    chunks = client.chat.completions.create(messages=QUESTION, tool_choice=chosen, stream=True, **options)
    deltas = [chunk.choices[0] for chunk in chunks]
    (streamed,) = [call for delta in deltas for call in delta.delta.tool_calls or ()]
    assert streamed.function and streamed.function.arguments == call.function.arguments
    assert deltas[-1].finish_reason == "tool_calls"
    with pytest.raises(BadRequestError, match="takes no tools"):
        client.chat.completions.create(messages=QUESTION, **options | {"model": "tiny"})


AWKWARD = 'It\'s "half price" for $HOME, `date`,\nC:\\new 兩箱茶 😀 {{x}} %s'


def test_copied_code_answers_as_the_page_does(site: tuple[str, str], client: OpenAI, rf: RequestFactory) -> None:
    exchanges = [
        {"question": AWKWARD, "answers": [{"model": "tiny", "text": AWKWARD}]},
        {"question": "2?", "answers": []},
    ]
    form = QueryDict(mutable=True)
    form.update({"model": "tiny", "system": AWKWARD, "temperature": "0", "max_tokens": "6", "seed": "1"})
    form["exchanges"] = json.dumps(exchanges)
    body = Chat.read(form).body(User(), 0)
    expected = client.chat.completions.create(**body).choices[0].message.content
    host = site[0].removeprefix("http://")
    copies = {copy["id"]: copy["code"] for copy in chat_copies(rf.get("/chat/", headers={"host": host}), body)}
    environment = os.environ | {"TOKEN": site[1]}

    def run_pasted(*command: str) -> str:
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=100).stdout

    curl = json.loads(run_pasted("bash", "-c", copies["copy-curl"]))
    python = ast.literal_eval(run_pasted(sys.executable, "-c", copies["copy-python"]))
    assert [answer["choices"][0]["message"]["content"] for answer in (curl, python)] == [expected] * 2
    assert run_pasted(sys.executable, "-c", copies["copy-openai"]) == f"{expected}\n"


def send(address: str, token: str, stream: bool) -> socket.socket:
    """Ask for a long answer over a connection of its own, and return that."""
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"model": "tiny", "messages": QUESTION, "max_tokens": 4000, "stream": stream, "temperature": 0})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


def open_stream(address: str, token: str) -> socket.socket:
    """Ask for a long stream, and return the connection once the first piece has arrived."""
    connection = send(address, token, stream=True)
    received = b""
    while b"data: " not in received:
        received += connection.recv(4096)
    return connection


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def answers_left(address: str) -> float:
    return metric(address, 'lorasite_generations_total{outcome="left"}')


def comes_true(condition: Callable[[], bool]) -> bool:
    """Return whether a condition holds within half a minute."""
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


def test_whole_answer_ends_when_its_reader_leaves(site: tuple[str, str]) -> None:
    before = answers_left(site[0])
    open_stream(*site).close()  # the model is in memory from here on
    assert comes_true(lambda: answers_left(site[0]) == before + 1)
    send(*site, stream=False).close()
    assert comes_true(lambda: answers_left(site[0]) == before + 2)


def test_streams_block_nobody_and_end_when_their_readers_leave(site: tuple[str, str]) -> None:
    """More streams than the site has threads for pages, whose readers then go away."""
    before = answers_left(site[0])
    with ThreadPoolExecutor(8) as pool:
        connections = list(pool.map(lambda _: open_stream(*site), range(8)))
    with urllib.request.urlopen(f"{site[0]}/login/", timeout=10) as page:
        assert page.status == 200
    for connection in connections:
        connection.close()
    assert comes_true(lambda: answers_left(site[0]) == before + 8), answers_left(site[0]) - before


@pytest.mark.browser
def test_page_streams_stops_and_keeps_the_conversation(site: tuple[str, str]) -> None:
    with sync_playwright() as play:
        browser = launch(play)
        page = browser.new_context(base_url=site[0], locale="en").new_page()
        complaints: list[str] = []
        page.on("console", lambda entry: complaints.append(entry.text) if entry.type == "error" else None)
        page.goto("/login/")
        sign_in(page)
        # Always the most likely word: it never ends, where a word drawn by chance may at once.
        page.goto("/chat/?model=tiny&second=tiny&max_tokens=12&temperature=0")
        message = page.get_by_label("Message")
        message.fill("<b>two</b> boxes")
        message.press("Enter")
        expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=30_000)
        expect(page.locator(".answer [data-text]:not(:empty)")).to_have_count(2)
        expect(page.locator("[data-question]")).to_have_text("<b>two</b> boxes")
        expect(message).to_be_focused()
        page.locator("summary", has_text="Use this from code").click()
        expect(page.locator("#copy-openai")).to_contain_text("client.chat.completions.create")

        page.get_by_label("Longest answer").fill("4000")
        message.fill("and on")
        message.press("Enter")
        expect(page.locator(".exchange").last.locator(".answer [data-text]:not(:empty)")).to_have_count(2)
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("Stopped.").first).to_be_visible()
        page.get_by_label("System prompt").fill("Be brief.")
        message.fill("half a senten")
        page.reload()
        expect(page.locator(".exchange")).to_have_count(2)
        expect(message).to_have_value("half a senten")
        expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
        expect(page.get_by_label("Longest answer")).to_have_value("4000")
        expect(page.locator("#copy-openai")).to_contain_text("Be brief.")
        message.fill("")
        page.reload()
        expect(page.locator("#copy-openai")).to_contain_text("Be brief.")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download conversation").click()
        rows = [json.loads(line) for line in download.value.path().read_text().splitlines()]
        assert [row["messages"][1]["content"] for row in rows] == ["<b>two</b> boxes"] * 2
        page.get_by_role("button", name="Edit question").click()
        expect(message).to_have_value("and on")
        expect(page.locator(".exchange")).to_have_count(1)
        browser.close()
    assert complaints == []
