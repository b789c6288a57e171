"""Each setting does what its name says in PEFT and transformers, and not merely something."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import get_scheduler

from engine import Evaluated, RunConfig, StepDone, devices
from engine.config_sections import LoraSection, TrainingSection
from engine.models.loading import add_adapter, load_classifier
from engine.tasks.sequence_classification import Task
from engine.tests.conftest import metrics_of, run, small
from engine.training.learning_rate import learning_rate
from samples import base_model_path

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture
def quick(tweets: Path, bases: Path, tmp_path: Path) -> Any:
    """Train the tiny base model without dropout; return the events and the adapter."""

    def trained(**sections: Any) -> tuple[list[Any], dict[str, torch.Tensor]]:
        lora = {"layers_to_transform": None, "lora_dropout": 0.0, **sections.pop("lora", {})}
        results = tmp_path / str(len(list(tmp_path.iterdir())))
        training = {"precision": "fp32", **sections.pop("training", {})}
        config = small(model={"name": "tiny"}, lora=lora, training=training, **sections)
        events = run(config, tweets, results, base_models_dir=bases)
        return events, load_file(results / "artifacts/final_model/adapter_model.safetensors")

    return trained


def losses(events: list[Any]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def adapted(**lora: Any) -> Any:
    base, new = load_classifier(
        base_model_path(), "sample", LABELS, devices.choose(small(training={"precision": "fp32"}))
    )
    return add_adapter(base, LoraSection(**lora), new, "sample", 1)


def with_adapter(model: nn.Module) -> set[str]:
    """Return the kinds of layers that have an adapter."""
    return {name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "lora_A")}


@pytest.mark.medium
def test_default_targets_are_query_and_value_and_all_linear_is_each_layer_but_the_heads() -> None:
    assert with_adapter(adapted()) == {"query", "value"}
    everywhere = adapted(target_modules="all-linear")
    assert with_adapter(everywhere) == {"query", "key", "value", "dense"}
    outside = [
        name for name, module in everywhere.named_modules() if hasattr(module, "lora_A") and ".layer." not in name
    ]
    assert outside == ["base_model.model.bert.pooler.dense"] and not hasattr(everywhere.classifier, "lora_A")


@pytest.mark.medium
def test_scale_is_alpha_over_r_and_over_its_root_with_rslora() -> None:
    for rslora, scale in ((False, 16 / 4), (True, 16 / math.sqrt(4))):
        model = adapted(r=4, lora_alpha=16, use_rslora=rslora)
        scales = {module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
        assert scales == {scale}


@pytest.mark.medium
def test_dora_learns_a_magnitude_for_each_row_of_a_weight() -> None:
    magnitudes = [p for name, p in adapted(use_dora=True).named_parameters() if "magnitude" in name]
    assert len(magnitudes) == 12 and all(p.requires_grad and p.shape == (384,) for p in magnitudes)
    assert not [name for name, _ in adapted().named_parameters() if "magnitude" in name]


@pytest.mark.medium
def test_pissa_starts_from_the_strongest_directions_and_the_same_weight_in_sum() -> None:
    plain, pissa = (adapted(r=4, layers_to_transform=[0], init_lora_weights=start) for start in ("default", "pissa"))
    name = "base_model.model.bert.encoder.layer.0.attention.self.query"
    before, module = plain.get_submodule(name).base_layer.weight, pissa.get_submodule(name)
    update = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
    torch.testing.assert_close(module.base_layer.weight + update, before, atol=1e-4, rtol=1e-3)
    strongest = torch.linalg.svdvals(before)[:4]
    torch.testing.assert_close(torch.linalg.svdvals(update)[:4], strongest, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_lora_plus_gives_matrix_b_its_own_rate(quick) -> None:
    for ratio in (1, 16):
        training = {"max_steps": 1, "learning_rate": 0.001, "lr_scheduler_type": "constant"}
        _, adapter = quick(lora={"loraplus_lr_ratio": ratio}, training=training)
        largest = max(tensor.abs().max().item() for name, tensor in adapter.items() if "lora_B" in name)
        assert largest == pytest.approx(0.001 * ratio, rel=0.02)  # AdamW's first step is the rate itself


@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_learning_rate_follows_the_schedule_of_the_same_name_in_transformers(name: str) -> None:
    total, warmup = 40, 0 if name == "constant" else 8
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    expected = []
    for _ in range(total):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    config = TrainingSection(learning_rate=0.01, warmup_ratio=0.2, lr_scheduler_type=name)
    rates = [learning_rate(step, total, config) for step in range(total)]
    assert rates[warmup:] == pytest.approx(expected[warmup:])
    assert rates[:warmup] == pytest.approx([0.01 * step / 8 for step in range(1, warmup + 1)])


@pytest.mark.slow
def test_gradients_are_clipped_to_the_norm_and_zero_means_not(quick) -> None:
    adapters = [quick(training={"max_grad_norm": norm})[1] for norm in (0, 1000, 0.01)]
    same = [all(torch.equal(adapters[0][name], other[name]) for name in other) for other in adapters[1:]]
    assert same == [True, False]


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(quick) -> None:
    whole, _ = quick(training={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1})
    parts, _ = quick(training={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4})
    assert len(losses(parts)) == len(losses(whole)) == 8
    assert losses(parts)[0] == pytest.approx(losses(whole)[0], rel=0.05)  # its head has dropout
    assert metrics_of(parts)["system"]["micro_batch"] == 2


@pytest.mark.slow
def test_class_weights_weigh_the_loss_as_torch_does(tweets, bases) -> None:
    weights = {"negative": 5.0, "positive": 0.5}
    config = small(model={"name": "still"}, training={"class_weights": weights, "precision": "fp32"})
    task = Task(config, devices.choose(config), bases / "still", tweets, None, 1)
    task.model.eval()
    rows = torch.arange(16).numpy()
    labels = torch.from_numpy(task.rows.train.labels[rows])
    expected = nn.functional.cross_entropy(
        task.logits(task.train_tokens, rows), labels, weight=torch.tensor([5.0, 1.0, 0.5])
    )
    assert task.rows.labels == LABELS and (task.loss(rows) / task.loss_weight(rows)).item() == pytest.approx(
        expected.item()
    )


@pytest.mark.slow
def test_balanced_class_weights_give_each_label_the_same_weight_in_all(tweets, bases) -> None:
    config = small(model={"name": "still"}, data={"train_samples": None}, training={"class_weights": "balanced"})
    task = Task(config, devices.choose(config), bases / "still", tweets, None, 1)
    totals = [task.loss_weight((task.rows.train.labels == label).nonzero()[0]) for label in range(3)]
    assert totals == pytest.approx([totals[0]] * 3)


@pytest.mark.slow
def test_another_seed_is_another_run(quick) -> None:
    assert losses(quick()[0]) == losses(quick()[0]) != losses(quick(training={"seed": 7})[0])


@pytest.mark.slow
def test_deterministic_mode_is_torchs_and_ends_with_the_next_run(quick) -> None:
    for wanted in (True, False):
        quick(training={"deterministic": wanted, "max_steps": 1})
        assert torch.are_deterministic_algorithms_enabled() is wanted


@pytest.mark.parametrize(("deterministic", "attention"), [(True, "eager"), (False, "sdpa")])
def test_deterministic_mode_on_a_gpu_avoids_sdpa_whose_gradients_are_not(monkeypatch, deterministic, attention) -> None:
    monkeypatch.setattr(devices, "find_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    plan = devices.choose(RunConfig.parse({"training": {"deterministic": deterministic}}))
    assert (plan.attention, plan.precision) == (attention, "bf16")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "steps"), [({"eval_strategy": "epoch"}, [4, 8]), ({"eval_strategy": "steps", "eval_steps": 3}, [3, 6, 8]),
                            ({"eval_strategy": "no"}, [8])], ids=["epoch", "steps", "no"],
)  # fmt: skip
def test_evaluations_come_when_asked_and_at_the_end(quick, strategy, steps) -> None:
    events, _ = quick(training=strategy)
    assert [event.step for event in events if isinstance(event, Evaluated)] == steps
