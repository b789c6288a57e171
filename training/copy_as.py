"""The same request as curl, Python, a command and YAML."""

import json
import shlex
from typing import Any

import yaml

from engine.config import RunConfig
from engine.errors import ConfigError


def copies(request: Any, config: dict[str, Any]) -> list[dict[str, str]]:
    """Of a run."""
    address = request.build_absolute_uri("/api/train")
    return ways(address, shortened(config), "python manage.py train run.yaml   # the YAML below")


def ways(address: str, body: dict[str, Any], command: str) -> list[dict[str, str]]:
    """A POST of `body` to `address`, and the command that does the same."""
    content = shlex.quote(json.dumps(body, ensure_ascii=False))
    bearer = '-H "Authorization: Bearer $TOKEN"'
    curl = f"curl {address} {bearer} -H 'Content-Type: application/json' -d {content}"
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    codes = {"curl": curl, "Python": python(address, body), "manage.py": command, "YAML": text}
    names = ("curl", "python", "command", "yaml")
    return [
        {"id": f"copy-{name}", "title": title, "code": code}
        for name, (title, code) in zip(names, codes.items(), strict=True)
    ]


def python(address: str, body: dict[str, Any]) -> str:
    return (
        "import json, os, urllib.request\n\n"
        f"body = {body!r}\n"
        f"request = urllib.request.Request({address!r}, json.dumps(body).encode(), {{\n"
        '    "Authorization": "Bearer " + os.environ["TOKEN"], "Content-Type": "application/json"})\n'
        "print(json.load(urllib.request.urlopen(request)))\n"
    )


def shortened(config: dict[str, Any]) -> dict[str, Any]:
    """Without what is the default anyway; a configuration with mistakes stays as it is."""
    try:
        return RunConfig.parse(config).concise()
    except ConfigError:
        return config
