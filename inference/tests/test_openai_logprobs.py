"""/v1/: log-probabilities of tokens, and answers that are held to a JSON schema."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from inference.tests.test_openai_api import chat, events, json_schema

pytestmark = pytest.mark.django_db
ORDER = {
    "type": "object",
    "properties": {"quantity": {"enum": [1, 2]}, "unit": {"enum": ["box", "bag"]}},
    "required": ["quantity", "unit"],
    "additionalProperties": False,
}


@pytest.mark.medium
def test_answer_is_held_to_the_schema(api: Callable[..., Any], member: Any, tiny: str) -> None:
    choice = chat(api(member), **json_schema(ORDER), max_tokens=300).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    order = json.loads(choice["message"]["content"])
    assert order.keys() == {"quantity", "unit"} and order["quantity"] in (1, 2) and order["unit"] in ("box", "bag")


@pytest.mark.medium
def test_each_token_of_a_chat_has_its_log_probability_beside_the_likeliest_ones(
    api: Callable[..., Any], member: Any, tiny: str
) -> None:
    choice = chat(api(member), logprobs=True, top_logprobs=3).json()["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert (
        b"".join(bytes(token["bytes"]) for token in tokens)
        .decode(errors="replace")
        .startswith(choice["message"]["content"])
    )
    for token in tokens:  # at temperature 0 the likeliest one is chosen
        assert len(token["top_logprobs"]) == 3 and token["logprob"] < 0
        assert token["top_logprobs"][0] == {name: token[name] for name in ("token", "logprob", "bytes")}
    *chunks, _end = events(chat(api(member), logprobs=True, top_logprobs=3, stream=True))
    streamed = [token for chunk in chunks for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert [token["bytes"] for token in streamed] == [token["bytes"] for token in tokens]
    assert chat(api(member), logprobs=False).json()["choices"][0]["logprobs"] is None


def test_each_token_of_a_continued_text_has_its_log_probability(
    api: Callable[..., Any], member: Any, tiny: str
) -> None:
    body = {"model": "tiny", "prompt": "two boxes", "max_tokens": 6, "temperature": 0, "logprobs": 2}
    choice = api(member).post("/v1/completions", body, format="json").json()["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]).startswith(choice["text"].rstrip("\ufffd")) and len(logprobs["tokens"]) <= 6
    assert logprobs["text_offset"] == [len("".join(logprobs["tokens"][:n])) for n in range(len(logprobs["tokens"]))]
    for token, logprob, top in zip(
        *(logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True
    ):
        assert max(top.values()) == logprob == top[token]
    refused = api(member).post("/v1/completions", body | {"logprobs": 6}, format="json").json()["error"]
    assert refused["param"] == "logprobs" and "5" in refused["message"]
