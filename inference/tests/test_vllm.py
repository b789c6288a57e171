"""Answers of a vLLM server, by a small server that speaks its documented endpoints: adapters at run time, streams, errors."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from engine.serve.token_logprobs import TokenLogprob
from engine.serve.tool_calls import ToolCall
from experiments.models import ModelVersion
from inference import vllm
from inference.tests.test_openai_api import chat, events, json_schema
from testing.language_models import build_language_model

pytestmark = pytest.mark.django_db
WORDS = ["two ", "boxes ", "of 茶"]


def logprobs_of(word: str, body: dict[str, Any]) -> dict[str, Any] | None:
    entry = {"token": word, "logprob": -0.5, "bytes": list(word.encode())}
    return {"content": [entry | {"top_logprobs": [entry]}]} if body.get("logprobs") else None


class Server(ThreadingHTTPServer):
    """What `vllm serve tiny --enable-lora` answers; `requests` are those that it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.adapters: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.cut_off = False
        self.refusal = ""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        adapters = [{"id": name, "object": "model", "parent": "tiny"} for name in self.server.adapters]
        self.answer(200, {"object": "list", "data": [{"id": "tiny", "object": "model", "parent": None}, *adapters]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        if self.path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.server.adapters:
                self.answer(400, {"error": {"message": "The lora adapter has already been loaded.", "code": 400}})
            elif self.server.refusal:
                self.answer(400, {"object": "error", "message": self.server.refusal})
            else:
                self.server.adapters[body["lora_name"]] = body["lora_path"]
                self.answer(200, "Success")
        elif self.path == "/v1/unload_lora_adapter":
            self.answer(200 if self.server.adapters.pop(body["lora_name"], None) else 404, "done")
        elif body["model"] not in {"tiny", *self.server.adapters}:
            self.answer(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        else:
            self.stream(body)

    def stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        chunks: list[Any] = [{"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}]
        chunks += [
            {"choices": [{"delta": {"content": word}, "logprobs": logprobs_of(word, body), "finish_reason": None}]}
            for word in WORDS
        ]
        if self.server.cut_off:
            chunks = [*chunks[:2], {"error": {"message": "The engine died.", "code": 500}}]
        else:
            chunks.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
            chunks.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(WORDS)}})
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
        self.wfile.write("".join(lines).encode())

    def answer(self, status: int, content: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        settings.VLLM_URL = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(vllm, "adapters", vllm.Adapters())
        yield server
        server.shutdown()


def loads(server: Server) -> int:
    return sum(path == "/v1/load_lora_adapter" for path, _body in server.requests)


def test_adapter_is_loaded_once_and_its_answers_are_streamed_through(
    server: Server, api: Callable[..., Any], member: Any, registered: ModelVersion
) -> None:
    answer = chat(api(member), model="assistant", seed=3, stop=["x"]).json()
    assert answer["choices"][0]["message"]["content"] == "two boxes of 茶"
    assert answer["choices"][0]["finish_reason"] == "length" and answer["model"] == "assistant@1"
    assert answer["usage"]["total_tokens"] == 7 + len(WORDS)
    *chunks, _last = events(chat(api(member), model="assistant", stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "two boxes of 茶"
    assert loads(server) == 1 and list(server.adapters.values()) == [str(registered.folder)]
    body = server.requests[1][1]
    assert (body["seed"], body["stop"], body["max_tokens"], body["temperature"]) == (3, ["x"], 8, 0)
    assert body["model"] == next(iter(server.adapters)) and body["messages"][0]["role"] == "user"


def test_schemas_and_log_probabilities_pass_through(
    server: Server, api: Callable[..., Any], member: Any, tiny: str
) -> None:
    answer = chat(api(member), **json_schema({"type": "object"}), logprobs=True, top_logprobs=1).json()
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in tokens] == WORDS and tokens[2]["top_logprobs"][0]["logprob"] == -0.5
    body = server.requests[-1][1]
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"} and body["top_logprobs"] == 1
    texts = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}], "text_offset": [0]}
    assert vllm.read_logprobs(texts) == (TokenLogprob(b"a", -1.0, ((b"a", -1.0),)),)


def test_calls_of_tools_that_come_in_parts_are_put_together() -> None:
    parts: list[dict[str, Any]] = [
        {"name": "look_up", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"},
    ]  # fmt: skip
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": part}]}, "finish_reason": None}]}
        for part in parts
    ]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    (last,) = vllm.read_pieces(iter(f"data: {json.dumps(chunk)}".encode() for chunk in chunks))
    assert last.finish_reason == "tool_calls" and last.calls == (ToolCall("look_up", '{"a": 1}'),)


def test_base_model_is_asked_under_its_own_name(
    server: Server, api: Callable[..., Any], member: Any, tiny: str
) -> None:
    assert chat(api(member)).json()["choices"][0]["message"]["content"] == "two boxes of 茶"
    assert [body["model"] for _path, body in server.requests] == ["tiny"]
    assert "chat_template" not in server.requests[0][1]


def test_chosen_chat_template_is_sent_as_vllm_reads_it(
    server: Server, api: Callable[..., Any], member: Any, tiny: str, settings: Any, tmp_path: Path
) -> None:
    settings.BASE_MODELS_DIR = tmp_path
    build_language_model(tmp_path / tiny, template=None)
    assert chat(api(member), chat_template="chatml").status_code == 200
    sent = server.requests[0][1]["chat_template"]
    assert "<|im_start|>" in sent and "'<|im_end|>'" in sent


@pytest.mark.medium
def test_server_that_was_restarted_gets_the_adapter_again(
    server: Server, api: Callable[..., Any], member: Any, registered: ModelVersion
) -> None:
    chat(api(member), model="assistant")
    server.adapters.clear()
    assert chat(api(member), model="assistant").status_code == 200
    assert loads(server) == 2
    vllm.adapters.loaded.clear()  # the site was restarted, and the server was not
    assert chat(api(member), model="assistant").status_code == 200


def test_adapters_that_were_not_used_long_are_unloaded(
    server: Server, api: Callable[..., Any], member: Any, registered: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "MOST_ADAPTERS", 1)
    vllm.adapters.loaded["lorasite-old"] = None
    chat(api(member), model="assistant")
    assert ("/v1/unload_lora_adapter", {"lora_name": "lorasite-old"}) in server.requests


def test_adapter_that_the_server_refuses_is_explained(
    server: Server, api: Callable[..., Any], member: Any, registered: ModelVersion
) -> None:
    server.refusal = "LoRA rank 64 is greater than max_lora_rank 16."
    response = chat(api(member), model="assistant")
    assert response.status_code == 409 and server.refusal in response.json()["error"]["message"]


def test_strangers_do_not_reach_the_server(
    server: Server, api: Callable[..., Any], stranger: Any, registered: ModelVersion
) -> None:
    assert chat(api(stranger), model="assistant").status_code == 404 and server.requests == []


def test_answer_that_breaks_off_says_so(
    server: Server, api: Callable[..., Any], member: Any, registered: ModelVersion
) -> None:
    server.cut_off = True
    lines = b"".join(chat(api(member), model="assistant", stream=True).streaming_content).decode()
    assert "two " in lines and "The engine died." in lines and "[DONE]" not in lines


def test_base_model_that_the_server_lacks_is_computed_here(
    settings: Any, server: Server, api: Callable[..., Any], member: Any, tiny: str
) -> None:
    vllm.adapters.base_models, vllm.adapters.listed_at = {"other"}, float("inf")
    assert chat(api(member)).json()["usage"]["completion_tokens"] <= 8 and server.requests == []
    settings.VLLM_URL = "http://127.0.0.1:1"
    vllm.adapters.listed_at = -vllm.LISTED_FOR
    assert chat(api(member)).status_code == 200


def test_server_that_went_away_is_named(
    settings: Any, server: Server, api: Callable[..., Any], member: Any, registered: ModelVersion
) -> None:
    chat(api(member), model="assistant")
    settings.VLLM_URL = "http://127.0.0.1:1"
    response = chat(api(member), model="assistant")
    assert response.status_code == 503 and "vLLM" in response.json()["error"]["message"]
