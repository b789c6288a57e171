"""What is wrong with a setting is said in the reader's language, whatever is wrong with it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import translation
from pydantic import BaseModel

from accounts.models import User
from engine import ConfigError, RunConfig
from engine.config_problems import REQUIREMENTS
from inference.completion_requests import ChatRequest, CompletionRequest, parse
from web.errors import InvalidError
from web.sentences import translate

WRONG: list[Any] = [
    None, True, False, 0, 1, -1, 10**30, 1.5, float("inf"), float("nan"), "", "x", "1.5", "9" * 5000, "x" * 1000, "\ud800", "a b",
    b"\xff", [], ["x" * 500], [""], [None], [True], ["9" * 5000], {}, {"x": 1}, {1: 2}, {"too_short": "x"}, {"a": -1}, {"a": "x"},
    {True: 1}, {1: 1, "1": 1}, ("a",), {"a"}, 1j,
]  # fmt: skip
OWN_CODES = {"contradiction", "label_name", "unknown_field"}  # problems that are not Pydantic's
ENGLISH = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,}")
# The field at fault, values and what has to be written so: 'a b', {"type": …}, codes in brackets, names of settings.
AS_WRITTEN = re.compile(r"^[\w.]+: |'[^']*'|\{.*\}|（[a-z_, ]+）|[a-z_]+\.[a-z_]+ [a-z0-9_-]+")


def paths(model: type[BaseModel], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each field, those of sections too."""
    for name, field in model.model_fields.items():
        yield (*before, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from paths(field.annotation, (*before, name))


def english_of(message: str) -> str:
    """Return the first words of a message that are English and should not be."""
    found = ENGLISH.search(AS_WRITTEN.sub("", message.partition("目前的值")[0]))
    return found.group() if found else ""


@pytest.mark.medium
def test_every_error_of_a_configuration_is_said_in_chinese() -> None:
    codes = set()
    for path in [*paths(RunConfig), ("unknown",), ("lora", "unknown")]:
        for value in WRONG:
            data = value
            for name in reversed(path):
                data = {name: data}
            try:
                RunConfig.parse(data)
            except ConfigError as error:
                codes |= {problem.code for problem in error.problems}
                with translation.override("zh-hant"):
                    for problem in error.problems:
                        assert not english_of(translate(problem.message)), (path, value)
    assert codes - OWN_CODES <= REQUIREMENTS.keys() and len(codes & REQUIREMENTS.keys()) > 18


@pytest.mark.medium
@pytest.mark.parametrize(
    ("kind", "request_body"),
    [
        (ChatRequest, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
        (CompletionRequest, {"model": "m", "prompt": "hi"}),
    ],
)
def test_every_error_of_a_request_for_an_answer_is_said_in_chinese(
    kind: type[Any], request_body: dict[str, Any]
) -> None:
    refused = 0
    for name in [*kind.model_fields, "unknown"]:
        for value in [
            *WRONG,
            [{"role": "boss"}],
            [{"role": "user", "content": [{"type": "x"}]}],
            {"type": "json_schema"},
        ]:
            with translation.override("zh-hant"):
                try:
                    parse(kind, request_body | {name: value})
                except InvalidError as error:
                    refused += 1
                    assert not english_of(str(error.message)), (name, value)
    assert refused > 300


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: !!int x", "b: " + "9" * 200, "a: &a [*a]", "[" * 30, "#" * 70_000, "a: &a 1\n" + "b: *a\n" * 200],
)
def test_what_is_wrong_with_a_yaml_text_is_said_in_chinese(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RunConfig.from_yaml(text)
    (problem,) = raised.value.problems
    with translation.override("zh-hant"):
        assert "設定" in translate(problem.message) or "數字" in translate(problem.message)
        assert not english_of(translate(problem.message))


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/api/predict", "/v1/chat/completions"])
@pytest.mark.parametrize("body", [b"{", b'{"a": NaN}', b"\xff", b"{'a': 1}"])
def test_body_that_is_not_json_is_refused_in_chinese(
    api: Callable[..., Any], member: User, address: str, body: bytes
) -> None:
    headers = {"Accept-Language": "zh-Hant"}
    answer = api(member).post(address, body, content_type="application/json", headers=headers)
    content = answer.json()
    message = content.get("detail") or content["error"]["message"]
    assert answer.status_code == 400 and "JSON" in message and not english_of(message), message
    assert "parse_error" in (content.get("code"), content.get("error", {}).get("code"))
