"""The same run as curl, Python, a command and YAML."""

import json
from typing import Any

import yaml

from .engine.config import RunConfig
from .engine.errors import ConfigError


def copies(request: Any, config: dict[str, Any]) -> list[dict[str, str]]:
    config = shortened(config)
    address = request.build_absolute_uri("/api/train")
    body = json.dumps(config, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return [
        {
            "id": "copy-curl", "title": "curl",
            "code": f"curl {address} -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{quoted}'",
        },
        {"id": "copy-python", "title": "Python", "code": python(address, config)},
        {"id": "copy-command", "title": "manage.py", "code": "python manage.py train run.yaml   # the YAML below"},
        {"id": "copy-yaml", "title": "YAML", "code": text},
    ]  # fmt: skip


def python(address: str, config: dict[str, Any]) -> str:
    return (
        "import json, os, urllib.request\n\n"
        f"config = {config!r}\n"
        f"request = urllib.request.Request({address!r}, json.dumps(config).encode(), {{\n"
        '    "Authorization": "Bearer " + os.environ["TOKEN"], "Content-Type": "application/json"})\n'
        "print(json.load(urllib.request.urlopen(request)))\n"
    )


def shortened(config: dict[str, Any]) -> dict[str, Any]:
    """Without what is the default anyway; a configuration with mistakes stays as it is."""
    try:
        return RunConfig.parse(config).concise()
    except ConfigError:
        return config
