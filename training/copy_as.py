"""Show the same request as curl, Python, a command and YAML."""

import json
import shlex
from contextlib import suppress
from typing import Any

import yaml
from django.http import HttpRequest

from engine.config import RunConfig
from engine.errors import ConfigError


def copies(request: HttpRequest, config: dict[str, Any]) -> list[dict[str, str]]:
    """Return snippets that submit a run with this configuration, without the values that are the default anyway."""
    with suppress(ConfigError):  # the form shows what is wrong; the snippets show what was entered
        config = RunConfig.parse(config).concise()
    url = request.build_absolute_uri("/api/train")
    return request_snippets(url, config, "python manage.py train run.yaml   # the YAML below")


def request_snippets(url: str, body: dict[str, Any], command: str) -> list[dict[str, str]]:
    """Return snippets {id, title, code} that POST `body` to `url`; `command` is the command that does the same."""
    content = shlex.quote(json.dumps(body, ensure_ascii=False))
    headers = "-H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json'"
    # Only the standard library, so that it runs wherever it is pasted.
    python = (
        "import json, os, urllib.request\n\n"
        f"body = {body!r}\n"
        f"request = urllib.request.Request({url!r}, json.dumps(body).encode(), {{\n"
        '    "Authorization": "Bearer " + os.environ["TOKEN"], "Content-Type": "application/json"})\n'
        "print(json.load(urllib.request.urlopen(request)))\n"
    )
    yaml_text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    return [
        {"id": "copy-curl", "title": "curl", "code": f"curl {url} {headers} -d {content}"},
        {"id": "copy-python", "title": "Python", "code": python},
        {"id": "copy-command", "title": "manage.py", "code": command},
        {"id": "copy-yaml", "title": "YAML", "code": yaml_text},
    ]
