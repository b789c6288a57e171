"""The configuration of a run: what it refuses, how it reports that, and its page of the documentation."""

from pathlib import Path

import pytest

from engine import config_reference
from engine.config import RunConfig
from engine.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_configuration_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == config_reference.page()


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_valid(path: Path) -> None:
    config = RunConfig.from_yaml(path.read_text(encoding="utf-8"))
    assert RunConfig.from_yaml(config.to_yaml()) == config
    assert RunConfig.parse(config.concise()) == config


@pytest.mark.parametrize(
    ("data", "field", "text"),
    [
        ({"nonsense": 1}, "nonsense", "not a field"),
        ({"lora": {"rank": 8}}, "lora.rank", "not a field"),
        ({"training": {"learnig_rate": 1}}, "training.learnig_rate", "Did you mean training.learning_rate?"),
        ({"lora": {"r": 0}}, "lora.r", "greater than or equal to 1"),
        ({"training": {"learning_rate": -0.1}}, "training.learning_rate", "greater than 0"),
        ({"training": {"num_train_epochs": float("inf")}}, "training.num_train_epochs", "finite"),
        ({"model": {"name": "../up"}}, "model.name", "never a path"),
        ({"experiment_name": "a/b"}, "experiment_name", "letters"),
        ({"experiment_name": ""}, "experiment_name", "length of at least 1"),
        ({"data": {"validation_rules": {"typo": "error"}}}, "data.validation_rules", "finding codes"),
        ({"training": {"device": "tpu"}}, "training.device", "'auto', 'cpu', 'cuda' or 'mps'"),
        ({"lora": "all"}, "lora", "must be an object"),
        ({"lora": {"use_dora": True, "init_lora_weights": "pissa"}}, "lora.use_dora", "Remove one of them"),
        ({"lora": {"bias": "all"}, "training": {"precision": "bf16"}}, "training.precision", "adapters only"),
        ({"model": {"load_in_8bit": True, "load_in_4bit": True}}, "model.load_in_8bit", "exclude each other"),
        ({"model": {"load_in_4bit": True}, "lora": {"bias": "all"}}, "model.load_in_4bit", "adapters only"),
        ({"model": {"load_in_8bit": True}, "lora": {"init_lora_weights": "pissa"}}, "model.load_in_8bit", "pissa"),
        ({"model": {"load_in_4bit": True}, "training": {"device": "cpu"}}, "model.load_in_4bit", "NVIDIA GPU"),
    ],
)
def test_problem_names_its_field_and_what_is_allowed(data: dict, field: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(data)
    (problem,) = caught.value.problems
    assert problem.field == field and text in problem.message


def test_all_invalid_fields_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse({"lora": {"r": 0, "lora_dropout": 1}, "training": {"seed": -1}})
    assert {p.field for p in caught.value.problems} == {"lora.r", "lora.lora_dropout", "training.seed"}


def test_all_contradictions_are_reported_at_once_each_with_its_field() -> None:
    lora = {"use_dora": True, "init_lora_weights": "pissa", "bias": "all"}
    training = {"precision": "bf16", "device": "cpu"}
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse({"model": {"load_in_4bit": True}, "lora": lora, "training": training})
    problems = caught.value.problems
    assert [problem.field for problem in problems] == [
        "lora.use_dora",
        "training.precision",
        "model.load_in_4bit",
        "model.load_in_4bit",
        "model.load_in_4bit",
    ]
    assert {problem.code for problem in problems} == {"contradiction"}
    assert len({problem.message for problem in problems}) == 5


def test_assignment_that_contradicts_is_refused_too() -> None:
    config = RunConfig.parse({"lora": {"use_dora": True}})
    config.lora.init_lora_weights = "pissa"
    with pytest.raises(ValueError, match="exclude each other"):
        config.experiment_name = "other"


def test_broken_yaml_names_the_line() -> None:
    with pytest.raises(ConfigError, match="line 3"):
        RunConfig.from_yaml("lora:\n  r: [1, 2\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("training.max_grad_norm", True),
        ("lora.r", False),
        ("lora.use_dora", 1),
        ("experiment_name", None),
        ("lora.layers_to_transform", [False]),
        ("training.class_weights", {"good": True}),
    ],
)
def test_booleans_are_not_numbers_and_null_is_not_a_name(field: str, value: object) -> None:
    section, _, name = field.rpartition(".")
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse({section: {name: value}} if section else {name: value})
    assert [problem.field for problem in caught.value.problems] == [field]


def test_name_that_yaml_reads_as_a_number_or_a_date_is_accepted() -> None:
    assert [RunConfig.from_yaml(f"experiment_name: {name}").experiment_name for name in ("2024", "2026-11-25")] == [
        "2024",
        "2026-11-25",
    ]
