"""The settings of the environment and .env.example."""

import re
from pathlib import Path

from django.conf import settings

from lorasite.env import Env


def example() -> dict[str, str]:
    text = (Path(settings.BASE_DIR) / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_example_names_every_variable_and_no_other() -> None:
    assert {name.lower() for name in example()} == set(Env.model_fields)


def test_example_shows_the_defaults() -> None:
    example_env = Env(_env_file=Path(settings.BASE_DIR) / ".env.example")
    default = Env(_env_file=None)
    for name in set(Env.model_fields) - {"data_dir", "results_dir"}:
        assert getattr(example_env, name) == getattr(default, name), name
