"""One label for each text: cross entropy on the pooled output of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.config import Problem, RunConfig
from engine.data.batches import by_length
from engine.data.rows import Split, load_rows
from engine.data.tokens import Tokens, tokenise
from engine.devices import Plan
from engine.errors import CheckpointDamaged, ConfigError, OverLong
from engine.kernels import fused_forward
from engine.models.loading import (
    adapts_feed_forward,
    add_adapter,
    attach_adapter,
    cast_head_inputs,
    load_classifier,
    load_tokenizer,
)
from engine.out_of_memory import fitting, halving, release
from engine.storage import write_json
from engine.tasks.metrics import classification_metrics, linear_accuracy, majority_accuracy, worst_rows
from engine.training.memory_model import Encoder, Memory

VERIFY_ROWS = 8


class Task:
    """Sequence classification; see engine.tasks.Task for the contract."""

    def __init__(
        self, config: RunConfig, plan: Plan, base: Path, data_file: Path, cache_dir: Path | None, seed: int
    ) -> None:
        self.config, self.plan, self.base, self.seed = config, plan, base, seed
        self.rows = load_rows(data_file, config.data, seed)
        self.tokenizer = load_tokenizer(base, config.model.name)
        self.train = self._tokens(self.rows.train, cache_dir)
        self.held_out = self._tokens(self.rows.eval, cache_dir)
        self.test = self._tokens(self.rows.test, cache_dir) if self.rows.test else None
        self.lengths = self.train.lengths
        self.class_weights = self._class_weights()
        self.facts = self._facts()
        self._check()

    def build(self) -> nn.Module:
        """BERT-like classifier with a LoRA adapter, on the device."""
        base, new_modules = load_classifier(self.base, self.config.model.name, self.rows.labels, self.plan)
        self.model = add_adapter(base, self.config.lora, new_modules, self.config.model.name, self.seed)
        self.model.to(self.plan.device)
        fused = fused_forward(self.model, self.plan.int8) if self.plan.fused_encoder else None
        self.forward: Callable[..., torch.Tensor] = fused or _plain_forward(self.model)
        self.plan = replace(self.plan, fused_encoder=bool(fused), int8=bool(fused) and self.plan.int8)
        self.memory = Memory(
            Encoder.of(self.base), self.plan, adapts_feed_forward(self.model), self.config.lora.use_dora
        )
        return self.model

    def weight(self, rows: np.ndarray) -> float:
        """Number of rows, or the sum of their class weights."""
        if self.class_weights is None:
            return float(len(rows))
        return float(self.class_weights[torch.from_numpy(self.rows.train.labels[rows])].sum())

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Summed cross entropy of training rows."""
        labels = torch.from_numpy(self.rows.train.labels[rows]).to(self.plan.device)
        return cross_entropy(
            self._logits(self.train, rows),
            labels,
            weight=None if self.class_weights is None else self.class_weights.to(self.plan.device),
            reduction="sum",
            label_smoothing=self.config.training.label_smoothing_factor,
        )

    def step_bytes(self, rows: int, length: int) -> float:
        """Of the activations, which all other needs are small beside."""
        return self.memory.training(rows, self.train.padded_length(length))

    def padded(self, rows: np.ndarray) -> int:
        """Tokens that each of these training rows is padded to."""
        return self.train.padded_length(int(self.lengths[rows].max()))

    def evaluation_batches(self) -> list[np.ndarray]:
        """Longest texts first."""
        return by_length(self.held_out.lengths, self._evaluation_batch(self.held_out))

    def evaluate_batch(self, rows: np.ndarray) -> np.ndarray:
        """Logits: (rows, labels)."""
        with _evaluating(self.model):
            return self._logits(self.held_out, rows).cpu().numpy()

    @property
    def test_share(self) -> float:
        """Test rows for each eval row."""
        return len(self.rows.test or ()) / max(1, len(self.rows.eval))

    def evaluate(self) -> dict[str, Any]:
        """Metrics on the eval rows; keeps the logits for the summary."""
        self.eval_logits = self._all_logits(self.held_out)
        return classification_metrics(self.eval_logits, self.rows.eval.labels, self.rows.labels)

    def summary(self) -> dict[str, Any]:
        """Labels, baselines, the worst eval rows, and metrics on the test rows where there are some."""
        found: dict[str, Any] = {
            "labels": self.rows.labels,
            "baseline": self.baseline(),
            "worst": worst_rows(self.eval_logits, self.rows.eval, self.rows.labels),
        }
        if self.rows.test and self.test:
            found["test"] = classification_metrics(self._all_logits(self.test), self.rows.test.labels, self.rows.labels)
        return found

    def baseline(self) -> dict[str, float]:
        """Accuracy of the commonest label, and of a linear model on word counts."""
        train, held_out = self.rows.train, self.rows.eval
        found = {"majority_accuracy": majority_accuracy(train, held_out)}
        if self.config.system.baseline and self.plan.world.leads:
            found["linear_accuracy"] = linear_accuracy(train, held_out)
        return found

    def save_extras(self, folder: Path) -> None:
        """Tokenizer files and lorasite.json with the label names."""
        self.tokenizer.save_pretrained(folder)
        write_json(folder / "lorasite.json", self.facts | {"id2label": dict(enumerate(self.rows.labels))})

    def verify(self, folder: Path) -> None:
        """Reload base and adapter through plain PEFT and compare logits on a few eval rows."""
        rows = np.arange(min(VERIFY_ROWS, len(self.rows.eval)))
        with _evaluating(self.model):
            expected = self._logits(self.held_out, rows).float().cpu()
        self._let_go()
        base, _ = load_classifier(self.base, self.config.model.name, self.rows.labels, self.plan)
        reloaded = cast_head_inputs(attach_adapter(base, folder)).to(self.plan.device)
        with _evaluating(reloaded):
            found = _plain_forward(reloaded)(**self._inputs(self.held_out, rows)).float().cpu()
        tolerance = 0.15 if self.plan.dtype == torch.bfloat16 else 2e-3
        if not torch.allclose(found, expected, atol=tolerance, rtol=tolerance):
            raise CheckpointDamaged(
                "The saved model does not answer as the trained one does, so it was not registered. "
                "The checkpoints are kept; resume the run to save it again.",
                difference=float((found - expected).abs().max()),
            )

    def _let_go(self) -> None:
        """Give the trained weights' memory back: loading them again must not take more than training them did."""
        if self.plan.few_bits is None:  # bitsandbytes' weights don't go there, and are few
            self.model.to("meta")
        self.forward = _plain_forward(self.model)
        release(self.plan.device)

    def _facts(self) -> dict[str, Any]:
        return {
            "task": self.config.task,
            "labels": self.rows.labels,
            "base_model": self.config.model.name,
            "revision": self.config.model.revision,
            "max_length": self.max_length,
            "dataset": self.config.data.dataset_name,
            "experiment": self.config.experiment_name,
            "train_rows": len(self.rows.train),
            "eval_rows": len(self.rows.eval),
            "truncated_rows": self.train.truncated + self.held_out.truncated,
            "skipped_rows": self.rows.skipped,
            "rare_labels": self.rows.rare,
        }

    @property
    def max_length(self) -> int:
        """Longest sequence that both the configuration and the base model allow."""
        return min(self.config.data.max_length, self.tokenizer.model_max_length)

    def _tokens(self, split: Split, cache_dir: Path | None) -> Tokens:
        return tokenise(split.texts, self.tokenizer, self.max_length, cache_dir)

    def _check(self) -> None:
        wanted = self.config.model.num_labels
        if wanted is not None and wanted != len(self.rows.labels):
            message = f"model.num_labels is {wanted}, but the data have {len(self.rows.labels)} labels. Leave it out."
            raise ConfigError([Problem("model.num_labels", message, "num_labels")])
        truncated = self.facts["truncated_rows"]
        if truncated and self.config.data.truncation == "refuse":
            raise OverLong(
                f"{truncated} texts are longer than {self.max_length} tokens, and data.truncation says refuse. "
                "Raise data.max_length, shorten the texts, or choose truncate.",
                field="data.max_length",
                rows=truncated,
            )

    def _class_weights(self) -> torch.Tensor | None:
        chosen = self.config.training.class_weights
        if chosen == "none":
            return None
        if isinstance(chosen, dict):
            return torch.tensor([chosen.get(label, 1.0) for label in self.rows.labels])
        counts = np.bincount(self.rows.train.labels, minlength=len(self.rows.labels)).clip(1)
        return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32)

    def _inputs(self, tokens: Tokens, rows: np.ndarray) -> dict[str, torch.Tensor]:
        ids, mask = tokens.padded(rows, self.tokenizer.pad_token_id or 0)
        device = self.plan.device
        return {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}

    def _logits(self, tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
        return self.forward(**self._inputs(tokens, rows)).float()

    def _all_logits(self, tokens: Tokens) -> np.ndarray:
        world = self.plan.world
        share = world.share(np.arange(len(tokens.lengths)))

        def logits(batch: int) -> torch.Tensor:
            found = torch.zeros(len(tokens.lengths), len(self.rows.labels))
            for rows in by_length(tokens.lengths[share], batch):
                found[share[rows]] = self._logits(tokens, share[rows]).cpu()
            return found

        with _evaluating(self.model):
            found = halving(logits, self._evaluation_batch(tokens), self.plan.device, smaller=lambda _: None)
            return world.sum(found.to(self.plan.device)).cpu().numpy()

    def _evaluation_batch(self, tokens: Tokens) -> int:
        batch = self.config.training.per_device_eval_batch_size
        if self.plan.device.type != "cpu":
            return batch
        return fitting(batch, lambda size: self.memory.evaluation(size, tokens.longest))


def _plain_forward(model: nn.Module) -> Callable[..., torch.Tensor]:
    """The model as PEFT and transformers run it: (batch, length) ids and mask → (batch, labels) logits."""

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return model(input_ids=input_ids, attention_mask=attention_mask).logits

    return forward


@contextmanager
def _evaluating(model: nn.Module):
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train()
