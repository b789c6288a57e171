"""The request of the predict page as curl, Python, JavaScript, a command and YAML; that of the chat page for OpenAI's client, too."""

import json
import shlex
from typing import Any

from django.http import HttpRequest

from training.copy_as import request_snippets


def copies(request: HttpRequest, model: str, text: str, text_pair: str | None = None) -> list[dict[str, str]]:
    second = {} if text_pair is None else {"text_pair": text_pair}
    body = {"text": text, **second, "model": model}
    options = {"--model": model, "--text": text} | ({} if text_pair is None else {"--text-pair": text_pair})
    command = " ".join(f"{name} {shlex.quote(value)}" for name, value in options.items())
    url = request.build_absolute_uri("/api/predict")
    snippets = request_snippets(url, body, f"python manage.py predict {command}")
    snippets.insert(2, {"id": "copy-javascript", "title": "JavaScript", "code": javascript(url, body)})
    return snippets


def javascript(url: str, body: dict[str, str]) -> str:
    """Return the request in JavaScript, for a browser console or Node.js; `token` is an API token."""
    return (
        f"const response = await fetch({json.dumps(url)}, {{\n"
        '  method: "POST",\n'
        '  headers: {Authorization: `Bearer ${token}`, "Content-Type": "application/json"},\n'
        f"  body: JSON.stringify({json.dumps(body, ensure_ascii=False)}),\n"
        "});\n"
        "console.log(await response.json());\n"
    )


def chat_copies(request: HttpRequest, body: dict[str, Any]) -> list[dict[str, str]]:
    """Return the request of the chat page's last answer as curl, Python and with OpenAI's Python client."""
    url = request.build_absolute_uri("/v1/chat/completions")
    curl, python, *_others = request_snippets(url, body, "")
    known = dict(body)
    if "chat_template" in known:  # its client has no argument of this name
        known["extra_body"] = {"chat_template": known.pop("chat_template")}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in known.items())
    client = (
        "import os\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url={url.removesuffix("/chat/completions")!r}, api_key=os.environ["TOKEN"])\n'
        f"answer = client.chat.completions.create(\n{arguments})\n"
        "print(answer.choices[0].message.content)\n"
    )
    return [curl, python, {"id": "copy-openai", "title": "OpenAI Python", "code": client}]
