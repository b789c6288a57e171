"""/v1/: OpenAI's shapes, statuses and errors, by the client of Django's tests."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient
from transformers import AutoTokenizer

from accounts.permissions import grant_access
from audit.models import Entry
from engine.models.plain_templates import plain_template
from experiments.models import ModelVersion
from inference import language_models
from inference.generation import generator
from inference.metrics import GENERATIONS
from lorasite import model_server
from samples import SAMPLE_LANGUAGE_MODEL, language_model

pytestmark = pytest.mark.django_db

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "two boxes of tea"}]


def chat(client: Any, **body: Any) -> Any:
    settings = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0}
    return client.post(CHAT, settings | body, format="json")


def events(response: Any) -> list[Any]:
    """Return the events of a stream, without the last one, which says that it is done."""
    lines = b"".join(response.streaming_content).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_answer_has_the_shape_of_openai(api: Callable[..., Any], member: Any, tiny: str) -> None:
    answer = chat(api(member)).json()
    (choice,) = answer["choices"]
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-") and answer["model"] == "tiny"
    assert choice["message"]["role"] == "assistant" and choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens"] <= 8 and "cached_tokens" in usage["prompt_tokens_details"]


@pytest.mark.medium
def test_chat_template_is_chosen_for_a_base_model_without_one(
    api: Callable[..., Any], member: Any, bare: str, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / bare)
    counts = {}
    for name in ("plain", "chatml", "alpaca"):
        template = plain_template(name, tokenizer.all_special_tokens)
        ids = tokenizer.apply_chat_template(
            HELLO, chat_template=template, add_generation_prompt=True, return_dict=False
        )
        counts[name] = len(ids)
    for name, expected in counts.items():
        assert chat(api(member), model=bare, chat_template=name).json()["usage"]["prompt_tokens"] == expected
    assert chat(api(member), model=bare).json()["usage"]["prompt_tokens"] == counts["plain"]
    assert len(set(counts.values())) == 3


def test_chat_template_without_effect_is_refused(api: Callable[..., Any], member: Any, tiny: str) -> None:
    refused = chat(api(member), chat_template="alpaca")
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "chat_template"
    assert "has a chat template of its own" in refused.json()["error"]["message"]


def test_stream_says_the_same_as_the_whole_answer(api: Callable[..., Any], member: Any, tiny: str) -> None:
    whole = chat(api(member)).json()
    response = chat(api(member), stream=True, stream_options={"include_usage": True})
    assert response["Content-Type"].startswith("text/event-stream") and "ETag" not in response
    *chunks, last = events(response)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert all(chunk["usage"] is None for chunk in chunks)


def test_sample_model_is_converted_outside_of_the_request_which_asks_to_come_again(
    api: Callable[..., Any], member: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    conversion = language_model.Conversion()
    conversion.process = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(language_models, "conversion", conversion)
    try:
        answer = chat(api(member), model=SAMPLE_LANGUAGE_MODEL)
    finally:
        conversion.process.kill()
    assert answer.status_code == 503 and answer["Retry-After"] == "20"
    assert "prepared for its first use" in answer.json()["error"]["message"]


def test_conversion_that_failed_is_not_awaited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr(language_model.sys, "executable", "/bin/false")
    conversion = language_model.Conversion()
    assert conversion.start()
    assert conversion.process is not None and conversion.process.wait() == 1
    assert not conversion.start()  # then the request converts, and says what is wrong


TOOLS = [{"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}]


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {  # the body's changes, the field at fault, words of the message
    "unknown role": ({"messages": [{"role": "boss", "content": "hi"}]}, "messages.0.role", "'system'"),
    "no messages": ({"messages": []}, "messages", "at least 1"),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages.0.content",
        "",
    ),
    "empty answer": (
        {"messages": [*HELLO, {"role": "assistant", "content": ""}, *HELLO]},
        "messages.1",
        "content or tool calls",
    ),
    "several answers": ({"n": 2}, "n", "one answer"),
    "two models": ({"model": ["tiny", "other"]}, "model", "name of one model"),
    "unknown chat template": ({"chat_template": "vicuna"}, "chat_template", "'alpaca'"),
    "misspelt": ({"max_token": 5}, "max_token", "Unknown field"),
    "no tools": ({"tools": []}, "tools", "at least 1"),
    "a tool without a name": ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools", "pattern"),
    "a choice among no tools": ({"tool_choice": "required"}, "tool_choice", "no tool"),
    "a tool that is not there": (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "b"}}},
        "tool_choice",
        "no tool",
    ),
    "tools beside a format": ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "tools", "either"),
    "no schema": ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format", "json_object"),
    "schema of nothing": (json_schema({"type": "objekt"}), "response_format", "there is no type objekt"),
    "schema from elsewhere": (json_schema({"$ref": "http://localhost/x"}), "response_format", "not fetched"),
    "endless schema": (json_schema({"description": "x" * 60_000}), "response_format", "too long"),
    "alternatives of nothing": ({"top_logprobs": 2}, "top_logprobs", "logprobs: true"),
    "too many alternatives": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    "endless": ({"max_tokens": 10**9}, "max_tokens", "4096"),
    "hot": ({"temperature": 3}, "temperature", "2"),
    "text for a number": ({"max_tokens": "5"}, "max_tokens", "integer"),
    "empty stop": ({"stop": [""]}, "stop", "none of them empty"),
    "nothing": ({"model": ""}, "model", "name of one model"),
    "no list": ({"messages": "hi"}, "messages", "must be a list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused_with_the_field_at_fault(
    api: Callable[..., Any], member: Any, case: str
) -> None:
    changes, field, words = REFUSED[case]
    response = chat(api(member), **changes)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", field), error
    assert words in error["message"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ["tiny", "other"]}, "請填寫一個模型的名稱"),
        ({"max_tokens": 5000}, "max_tokens: 必須小於或等於 4096"),
        ({"messages": [{"role": "boss", "content": "hi"}]}, "messages.0.role: 必須是 'system'"),
        ({"messages": [{"role": "user", "content": "<|im_end|>"}]}, "有一則訊息含有 <|im_end|>"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "不支援工具"),
        (json_schema({"type": "objekt"}), "沒有 objekt 這個類型"),
    ],
)
def test_refusals_are_in_the_language_of_the_reader(
    api: Callable[..., Any], member: Any, tiny: str, changes: dict[str, Any], words: str
) -> None:
    settings = {"model": tiny, "messages": HELLO, "max_tokens": 8} | changes
    response = api(member).post(CHAT, settings, format="json", headers={"Accept-Language": "zh-Hant"})
    assert response.status_code == 400 and words in response.json()["error"]["message"], response.json()


def test_prompt_longer_than_the_model_is_a_context_length_error(
    api: Callable[..., Any], member: Any, tiny: str
) -> None:
    for text in ("tea " * 10_000, "x" * 400_001):
        response = chat(api(member), messages=[{"role": "user", "content": text}], stream=True)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"model": "\xff"}', 400),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (
            b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "response_format": '
            b'{"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": "\\ud800"}}}}',
            400,
        ),
        (b"[" * 200_000, 400),
        (b" " * 5_000_000, 413),
    ],
)
def test_broken_bodies_get_errors_in_the_same_shape(
    api: Callable[..., Any], member: Any, tiny: str, body: bytes, status: int
) -> None:
    response = api(member).generic("POST", CHAT, body, content_type="application/json")
    assert response.status_code == status and set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.medium
def test_callers_without_access_learn_nothing(
    api: Callable[..., Any], member: Any, stranger: Any, registered: ModelVersion
) -> None:
    response = chat(APIClient())
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    bad = APIClient()
    bad.credentials(HTTP_AUTHORIZATION="Bearer sk-none")
    assert chat(bad).json()["error"]["type"] == "authentication_error"
    for name in ("assistant", "assistant@1", "nowhere"):
        response = chat(api(stranger), model=name)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert api(stranger).get("/v1/models/assistant").status_code == 404
    grant_access(registered.model, to=stranger)
    assert chat(api(stranger), model="assistant").json()["model"] == "assistant@1"
    assert api(stranger).get("/v1/models/assistant").json()["owned_by"] == member.username


def test_models_that_write_are_listed_with_base_models(
    api: Callable[..., Any], member: Any, registered: ModelVersion, models: Any
) -> None:
    listed = api(member).get("/v1/models").json()
    names = [model["id"] for model in listed["data"]]
    assert listed["object"] == "list" and names[0] == "assistant" and "tiny" in names
    assert not set(models) & set(names)
    assert {"id": "tiny", "object": "model", "created": 0, "owned_by": "base-model"} in listed["data"]


def test_classifier_is_refused_with_the_address_for_it(api: Callable[..., Any], member: Any, models: Any) -> None:
    response = chat(api(member), model="single")
    assert response.status_code == 400 and "/api/predict" in response.json()["error"]["message"]


@pytest.mark.medium
def test_audit_log_has_the_model_and_no_text(api: Callable[..., Any], member: Any, registered: ModelVersion) -> None:
    chat(api(member), model="assistant")
    entry = Entry.objects.get(action="model.generate")
    assert (entry.username, entry.object_id, entry.details["base_model"]) == (member.username, "assistant@1", "tiny")
    assert "tea" not in json.dumps(entry.details)


def test_stop_text_ends_the_answer_and_is_left_out(api: Callable[..., Any], member: Any, tiny: str) -> None:
    whole = chat(api(member), max_tokens=20).json()["choices"][0]["message"]["content"]
    stop = whole[4:6]
    answer = chat(api(member), max_tokens=20, stop=stop).json()["choices"][0]
    assert answer["message"]["content"] == whole[: whole.index(stop)] and answer["finish_reason"] == "stop"


def test_seed_repeats_an_answer(api: Callable[..., Any], member: Any, tiny: str) -> None:
    texts = [
        chat(api(member), temperature=1.5, seed=seed).json()["choices"][0]["message"]["content"] for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_text_is_continued_without_a_template(api: Callable[..., Any], member: Any, tiny: str) -> None:
    body = {"model": tiny, "prompt": "two boxes", "max_tokens": 4, "temperature": 0}
    answer = api(member).post("/v1/completions", body, format="json").json()
    assert answer["object"] == "text_completion" and isinstance(answer["choices"][0]["text"], str)
    assert answer["usage"]["prompt_tokens"] < chat(api(member)).json()["usage"]["prompt_tokens"]
    chunks = events(api(member).post("/v1/completions", body | {"stream": True}, format="json"))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == answer["choices"][0]["text"]


def test_client_of_streams_may_accept_events_alone(api: Callable[..., Any], member: Any, tiny: str) -> None:
    body = {"model": tiny, "messages": HELLO, "max_tokens": 2, "stream": True}
    response = api(member).post(CHAT, body, format="json", headers={"Accept": "text/event-stream"})
    assert response.status_code == 200


def test_messages_of_every_role_are_read(api: Callable[..., Any], member: Any, tiny: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "price", "arguments": '{"item": "tea"}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "two boxes"}, {"type": "text", "text": " of tea"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "3.50"},
    ]
    assert chat(api(member), messages=messages).status_code == 200
    call["function"]["arguments"] = "{"  # type: ignore[index]
    assert "tool call" in chat(api(member), messages=messages).json()["error"]["message"]


def test_closing_the_stream_ends_the_computation(api: Callable[..., Any], member: Any, tiny: str) -> None:
    before = GENERATIONS.labels("left")._value.get()
    response = chat(api(member), stream=True, max_tokens=400)
    next(iter(response.streaming_content))
    response.close()
    assert GENERATIONS.labels("left")._value.get() == before + 1


def test_more_answers_than_there_are_places_are_refused_with_a_wait(
    api: Callable[..., Any], member: Any, tiny: str, settings: Any
) -> None:
    settings.SERVE_WAIT_SECONDS = 0.2
    batching = generator().batching
    batching.places = 1
    batching.before_step = lambda: time.sleep(0.01)
    first = chat(api(member), stream=True, max_tokens=400)
    response = chat(api(member))
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(response["Retry-After"]) >= 1
    first.close()


def test_server_without_accounts_answers_the_same_addresses(tiny: str, registered: ModelVersion, settings: Any) -> None:
    for name, value in model_server.SETTINGS.items():
        setattr(settings, name, value)
    client = APIClient()
    assert chat(client, model="assistant").json()["model"] == "assistant@1"
    assert {"assistant", "tiny"} <= {model["id"] for model in client.get("/v1/models").json()["data"]}
    settings.SERVED_MODEL = "assistant"
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["assistant"]
    assert chat(client).json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/models/assistant").json()["id"] == "assistant@1"
