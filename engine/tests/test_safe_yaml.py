"""YAML that somebody sent: what it may cost is bounded, and each mistake has its line."""

import time
from pathlib import Path

import pytest
import yaml

from engine import safe_yaml
from engine.config import RunConfig
from engine.errors import ConfigError
from engine.safe_yaml import LIMIT, NotYamlError, read

VALUES = [
    "!!int abc", "!!int ''", "!!float x", "!!bool x", "!!timestamp zz", "!!timestamp 2026-13-45", "!!binary é",
    "!!omap [x]", "!!pairs [[a]]", "!!python/object:os.system x", "9" * 60_000, "0x" + "f" * 60_000, "{[a]: b}",
    "1" + ":1" * 30_000, "1" + ":1" * 30_000 + ".5", "=", "*nowhere",
]  # fmt: skip


def filled(head: str, unit: str, tail: str = "") -> str:
    """As much of `unit` as the limit has room for."""
    return head + unit * ((LIMIT - len(head) - len(tail)) // len(unit)) + tail


BOMBS = {
    "list": filled("lora: {target_modules: [", "q,", "]}"),
    "wrong list": filled("lora: {layers_to_transform: [", "q,", "]}"),
    "unknown fields": "training: {" + ",".join(f"{n:x}_steps" for n in range(6000)) + "}",
    "flow": filled("", "["),
    "block": filled("", "- "),
    "keys of keys": filled("", "? "),
    "anchors": "[" + ",".join(f"&a{n} x" for n in range(6500)) + "]",
    "aliases": "a: &a x\nb: " + filled("[", "*a,", "]")[:40_000] + "]",
    "merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)),
    "wide merge": "b: &b {" + ",".join(f"k{n}" for n in range(7000)) + "}\nc: {<<: [" + "*b," * 99 + "]}",
    "documents": filled("", "---\n"),
    "quotes": filled('"', "\\n", '"'),
}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:24])
def test_value_that_python_cannot_build_is_no_yaml_and_has_its_line(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_yaml(f"experiment_name: x\ntraining:\n  seed: {value}\n")
    assert caught.value.problems[0].code == "yaml" and caught.value.problems[0].message.endswith("Look at line 3.")


@pytest.mark.parametrize("text", ["a: \0", "a: \ud800", "a: \x01", "&a {<<: *a}", "&a [*a]", "a: 1\n---\nb: 2"])
def test_what_is_no_text_or_no_single_document_is_refused_or_harmless(text: str) -> None:
    try:
        RunConfig.from_yaml(text)
    except ConfigError as error:
        assert error.problems[0].message


@pytest.mark.parametrize("bomb", BOMBS)
def test_worst_text_below_the_limit_takes_about_a_second(bomb: str) -> None:
    assert len(BOMBS[bomb].encode()) <= LIMIT
    before = time.process_time()
    try:
        RunConfig.from_yaml(BOMBS[bomb])
    except ConfigError as error:
        assert len(error.problems) <= 100 and len(str(error)) < 100_000
    assert time.process_time() - before < 2


def test_text_over_the_limit_is_refused_without_a_look() -> None:
    with pytest.raises(ConfigError, match="larger than 64 KiB"):
        RunConfig.from_yaml("# ü" * LIMIT)


def test_file_over_the_limit_is_not_read_to_its_end() -> None:
    with pytest.raises(NotYamlError, match="larger than 64 KiB"):
        safe_yaml.text_of(Path("/dev/zero"))


def test_date_is_text_and_the_rest_reads_as_ever() -> None:
    assert read("2026-13-45") == "2026-13-45" and read("2026-11-25 10:00:00") == "2026-11-25 10:00:00"
    plain = "{a: 1, b: 1.5, c: true, d: ~, e: [x, 'y'], f: 1_000, g: 1:30, h: 0x1f, i: .inf, j: 1e-4}"
    shared = "base: &base {r: 4}\nlora: {<<: *base, bias: none}\n"
    assert [read(text) for text in (plain, shared)] == [yaml.safe_load(text) for text in (plain, shared)]


def test_loader_builds_no_object() -> None:
    assert issubclass(safe_yaml._Loader, yaml.constructor.SafeConstructor)
    assert not issubclass(safe_yaml._Loader, yaml.constructor.FullConstructor)


def test_error_shows_the_beginning_of_a_long_value_only() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse({"training": {"seed": "9" * 60_000}, "lora": {"x" * 60_000: 1}})
    assert len(str(caught.value)) < 2000
