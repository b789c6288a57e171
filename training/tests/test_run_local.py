"""manage.py run_local: the engine in the foreground, with the platform's folders."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from engine.names import folder_name
from samples import tweets_en


def write_run(folder: Path, **training: Any) -> Path:
    """Write forty tweets and, beside them, the YAML of a run of one step."""
    rows = tweets_en().unique("text", keep="first", maintain_order=True).sample(40, seed=3).select("text", "label")
    rows.write_csv(folder / "tweets.csv")
    sections = {
        "experiment_name": "local",
        "lora": {"layers_to_transform": [5]},
        "data": {"dataset_name": "tweets.csv", "max_length": 16},
        "training": {"max_steps": 1, **training},
        "system": {"baseline": False, "num_threads": 1},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(sections))  # JSON is YAML
    return path


@pytest.mark.slow
def test_file_beside_the_yaml_is_trained_on(tmp_path, settings, capsys):
    settings.RESULTS_DIR = tmp_path / "results"
    settings.DATA_DIR = tmp_path / "data"
    call_command("run_local", str(write_run(tmp_path)))
    shown = capsys.readouterr()
    assert "The model is in" in shown.out and "Finished: evaluation accuracy" in shown.err
    assert (tmp_path / "results/local/artifacts/final_model/adapter_model.safetensors").is_file()


def test_invalid_configuration_is_refused_with_its_field(tmp_path):
    with pytest.raises(CommandError, match=r"training\.seed"):
        call_command("run_local", str(write_run(tmp_path, seed=-1)))


@pytest.mark.slow
def test_run_with_a_chinese_name_lies_in_a_folder_of_ascii_letters(tmp_path, settings):
    settings.RESULTS_DIR = tmp_path / "results"
    settings.DATA_DIR = tmp_path / "data"
    call_command("run_local", str(write_run(tmp_path)), "--name", "客服")
    (folder,) = settings.RESULTS_DIR.iterdir()
    assert folder.name == folder_name("客服")
    assert "experiment_name: 客服" in (folder / "config.yaml").read_text(encoding="utf-8")
