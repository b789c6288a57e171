"""Module names and layers that the base model lacks are refused with a near name; embeddings are trained as asked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, GPT2Config, MPNetConfig

from engine import ConfigError, devices
from engine.config_sections import LoraSection
from engine.models.loading import add_adapter, load_classifier
from engine.tests.conftest import metrics_of, run, small

SIZES: dict[str, Any] = {"vocab_size": 50, "num_attention_heads": 2, "num_hidden_layers": 2}


def adapted(folder: Path, **lora: Any) -> Any:
    model, head = load_classifier(folder, "mine", ["a", "b"], devices.choose(small(training={"precision": "fp32"})))
    return add_adapter(model, LoraSection(**lora), head, "mine", 1)


@pytest.mark.parametrize(
    ("lora", "hint"),
    [
        ({"modules_to_save": ["poolerr"]}, "no module poolerr. Did you mean pooler?"),
        ({"target_modules": ["querry", "value"]}, "no module querry. Did you mean query?"),
        ({"modules_to_save": ["zzz"]}, "Its modules with weights are LayerNorm, "),
        ({"modules_to_save": ["dropout"]}, "no module dropout."),
        ({"layers_to_transform": [0, 7]}, "no layer 7. Its layers are 0 to 1."),
    ],
)
def test_name_or_layer_that_the_model_lacks_is_refused_beside_its_field(bases: Path, lora: Any, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapted(bases / "tiny", **lora)
    assert caught.value.field == f"lora.{next(iter(lora))}" and hint in str(caught.value)


def test_names_are_ends_of_paths_and_every_unknown_one_is_reported(bases: Path) -> None:
    adapted(bases / "tiny", target_modules=["attention.self.query"], modules_to_save=["embeddings.LayerNorm"])
    with pytest.raises(ConfigError) as caught:
        adapted(bases / "tiny", target_modules=["querry"], modules_to_save=["poolerr"])
    assert {problem.field for problem in caught.value.problems} == {"lora.target_modules", "lora.modules_to_save"}


def trained(bases: Path, tweets: Path, results: Path, **lora: Any) -> tuple[Any, Path]:
    training = {"max_steps": 2, "num_train_epochs": 1, "precision": "fp32"}
    lora = {"layers_to_transform": None, "lora_dropout": 0.0, **lora}
    config = small(model={"name": "tiny"}, lora=lora, training=training)
    return run(config, tweets, results, base_models_dir=bases), results / "artifacts/final_model"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["embeddings", "word_embeddings"])
def test_embeddings_are_trained_and_saved(bases: Path, tweets: Path, tmp_path: Path, module: str) -> None:
    events, folder = trained(bases, tweets, tmp_path / "run", modules_to_save=[module])
    saved = load_file(folder / "adapter_model.safetensors")["base_model.model.bert.embeddings.word_embeddings.weight"]
    before = load_file(bases / "tiny/model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert metrics_of(events)["train"]["steps"] == 2 and not torch.equal(saved, before)


@pytest.mark.parametrize(
    ("config", "adapted_modules", "layer"),
    [
        (MPNetConfig(hidden_size=16, intermediate_size=16, max_position_embeddings=32, **SIZES), 6, "encoder.layer.1."),
        (GPT2Config(n_embd=16, n_positions=32, pad_token_id=0, **SIZES), 4, ".h.1."),  # no linear layer is an nn.Linear
    ],
    ids=["mpnet", "gpt2"],
)
def test_layers_are_chosen_also_where_targets_fall_back_to_every_linear_module(
    tmp_path: Path, config: Any, adapted_modules: int, layer: str
) -> None:
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    names = [name for name, _ in adapted(tmp_path, layers_to_transform=[1]).named_parameters()]
    with_adapter = {name for name in names if ".lora_A." in name}
    assert len(with_adapter) == adapted_modules and all(layer in name for name in with_adapter)
