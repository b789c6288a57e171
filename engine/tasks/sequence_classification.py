"""Sequence classification: one label per text, learned by cross entropy on the pooled output of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.config import Problem, RunConfig
from engine.data.batches import batches_by_length
from engine.data.labelled_rows import Rows, find_similar_labels, were_sorted_alike
from engine.data.tokens import Tokens, tokenise
from engine.devices import DevicePlan
from engine.errors import BaseModelUnavailableError, ConfigError, TextsTooLongError
from engine.events import Notice
from engine.kernels import FusedForward, PackedTexts, fused_forward
from engine.memory_limits import free_bytes
from engine.models.base_models import find_origin
from engine.models.forward import plain_forward
from engine.models.loading import (
    adapts_feed_forward,
    add_adapter,
    load_classifier,
)
from engine.models.random_pissa import convert_to_plain_lora, initial_pairs
from engine.models.text_encoding import prepare_encoding, set_padding_id
from engine.models.weights_hash import hash_base_weights
from engine.out_of_memory import largest_fitting, release_memory, retry_with_half, trim_heap
from engine.storage import write_json
from engine.tasks.class_weights import weights_by_label
from engine.tasks.linear_baseline import linear_accuracy
from engine.tasks.metrics import (
    classification_metrics,
    majority_accuracy,
    refuse_not_finite,
    worst_rows,
)
from engine.training import probe
from engine.training.cuda_graphs import CudaGraphs
from engine.training.memory_model import ActivationMemory, EncoderSizes
from engine.training.saved_model import ROWS, SavedModelCheck, check_saved_model, select_texts

ROOM_FOR_PROBE = 512 * 2**20  # bytes of free memory


class Task:
    """The data and the classifier of one run; see engine.tasks.Task for the contract."""

    def __init__(
        self,
        config: RunConfig,
        plan: DevicePlan,
        base: Path,
        data_file: Path | Rows | Callable[[], Rows],
        cache_dir: Path | None,
        seed: int,
    ) -> None:
        self.config = config
        self.base = base

        # Data: rows and their tokens.
        if isinstance(data_file, Rows):
            self.rows = data_file
        elif callable(data_file):
            self.rows = data_file()
        else:
            from engine.data.rows import load_rows  # deferred: imports polars, which rows in memory do not need

            self.rows = load_rows(data_file, config.data, seed)
        self.encoding = prepare_encoding(base, config.model.name, config.data.max_length)
        self.tokenizer = self.encoding.tokenizer
        self.max_length = self.encoding.max_length
        self.train_tokens = tokenise(self.rows.train.texts, self.tokenizer, self.max_length, cache_dir)
        self.eval_tokens = tokenise(self.rows.eval.texts, self.tokenizer, self.max_length, cache_dir)
        self.test_tokens: Tokens | None = None
        if self.rows.test:
            self.test_tokens = tokenise(self.rows.test.texts, self.tokenizer, self.max_length, cache_dir)
        self.lengths = self.train_tokens.lengths
        self.test_share = len(self.rows.test or ()) / max(1, len(self.rows.eval))
        self.data_hash = self.rows.digest()
        self.class_weights = self._class_weights()
        self.facts = self._check_data()
        unknown_tokens = self.encoding.notice_of_unknown_tokens(self.facts["unknown_token_share"])
        self.notices: list[Notice] = [*self.encoding.notices, *unknown_tokens]

        self._load_model(plan, seed)
        self._check_batches(plan, seed)
        trim_heap()
        self.facts["base_model_head"] = self.head.origin
        self.notices += self.head.notices
        self.initial_pairs = initial_pairs(self.model)
        self.memory = ActivationMemory(
            EncoderSizes.from_base_model(base), self.plan, adapts_feed_forward(self.model), config.lora.use_dora
        )
        self.eval_logits = np.empty((0, len(self.rows.labels)), dtype=np.float32)  # of the latest `evaluate`

    def matches_data(self, data_hash: str) -> bool:
        """Return whether the hash is that of these rows or, if it is empty, whether labels have the order they had then."""
        return data_hash == self.data_hash or (not data_hash and were_sorted_alike(self.rows.labels))

    def _load_model(self, plan: DevicePlan, seed: int) -> None:
        """Load the base model with an adapter and, where the architecture is covered, a fused forward pass."""
        name = self.config.model.name
        base_model, self.head = load_classifier(self.base, name, self.rows.labels, plan)
        set_padding_id(base_model, self.encoding.padding_id)
        self.model = add_adapter(base_model, self.config.lora, self.head, name, seed)
        self.model.peft_config["default"].revision = self.config.model.revision
        self.model.to(plan.device)
        fused = None
        if plan.fused_encoder:
            fused = fused_forward(self.model, plan.int8, plan.packed, self.config.training.deterministic)
        can_replay = fused is not None and fused.body.flash and plan.world.size == 1
        self.graphs = self._create_graphs(fused) if fused is not None and can_replay else None
        self.weights_on_device = None if self.class_weights is None else self.class_weights.to(plan.device)
        self.forward: Callable[..., torch.Tensor] = fused or plain_forward(self.model, self.max_length)
        self.plan = replace(plan, fused_encoder=bool(fused), int8=bool(fused) and plan.int8)

    def _check_batches(self, plan: DevicePlan, seed: int) -> None:
        """Load the model again in fp32, with a notice, if it can't compute batches in the planned precision.

        Raises BaseModelUnavailableError if it can't do so in fp32 either.
        """
        if plan.quantization is not None:
            return  # products in 8 bits depend on the other rows of a batch (arXiv 2208.07339), and there is no fp32
        if self.plan.fused_encoder and free_bytes() < ROOM_FOR_PROBE:
            return  # its batches are compared with plain ones by our tests, and a batch leaves 130 MiB of kernels behind
        fault = probe.find_fault(self.model, self.logits, self.train_tokens, plan.dtype)
        if fault and plan.dtype != torch.float32:
            message = f"{self.config.model.name} {fault} in {self.plan.precision}, so it is trained in fp32."
            self.notices.append(Notice("warning", "precision_fallback", message))
            self.model.to("meta")  # both at once may not fit into memory
            release_memory(plan.device)
            torch.manual_seed(seed)  # the same new head as in a run that was configured with fp32
            self._load_model(replace(plan, dtype=torch.float32, int8=False), seed)
            fault = probe.find_fault(self.model, self.logits, self.train_tokens, torch.float32)
        if fault:
            raise BaseModelUnavailableError(
                f"The base model {self.config.model.name} {fault}, so it can't be trained. Choose another base model.",
                field="model.name",
            )

    def hash_base_model(self) -> str:
        """Return the hash of the base model's weights on disk."""
        return hash_base_weights(self.base, self.config.model.name)

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return the number of rows, or the sum of their class weights: the mean is then that of torch's cross_entropy."""
        if self.class_weights is None:
            return float(len(rows))
        # A step whose rows all have the weight 0 has a loss of 0, not 0/0.
        return float(self.class_weights[torch.from_numpy(self.rows.train.labels[rows])].sum()) or 1.0

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Return the summed cross entropy of training rows."""
        labels = torch.from_numpy(self.rows.train.labels[rows]).to(self.plan.device)
        return self._cross_entropy(self.logits(self.train_tokens, rows), labels)

    def backward(self, rows: np.ndarray, weight: float) -> torch.Tensor:
        """Add the gradients of the rows' loss divided by `weight` to the parameters; return that loss: ()."""
        if self.graphs is None:
            loss = self.loss(rows) / weight
            loss.backward()
            return loss.detach()
        texts = PackedTexts.pack(*self._padded(self.train_tokens, rows), self.plan.dtype).rounded()
        labels = torch.from_numpy(self.rows.train.labels[rows])
        return self.graphs.backward([texts.tokens, texts.offsets, texts.mask, labels, torch.tensor(weight)])

    def _create_graphs(self, fused: FusedForward) -> CudaGraphs:
        """Return the graphs of `backward`; an epoch has few shapes, as texts are rounded to few."""

        def compute_loss(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
            *texts, labels, weight = inputs
            return self._cross_entropy(fused.packed_logits(PackedTexts(*texts)).float(), labels) / weight

        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return CudaGraphs(compute_loss, trained)

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum over rows, on the device of both. logits: (rows, labels); labels: (rows,)."""
        return cross_entropy(
            logits,
            labels,
            weight=self.weights_on_device,
            reduction="sum",
            label_smoothing=self.config.training.label_smoothing_factor,
        )

    def estimate_step_bytes(self, rows: int, length: int) -> float:
        """Return the estimated bytes of the activations; everything else that a step takes is small beside them."""
        return self.memory.training(rows, self.train_tokens.padded_length(length))

    def padded_length(self, rows: np.ndarray) -> int:
        """Return the number of tokens that each of these training rows is padded to."""
        return self.train_tokens.padded_length(int(self.lengths[rows].max()))

    def evaluation_batches(self) -> list[np.ndarray]:
        """Return the rows of each evaluation batch, longest texts first."""
        return batches_by_length(self.eval_tokens.lengths, self._evaluation_batch_size(self.eval_tokens))

    def evaluate_batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits of evaluation rows: (rows, labels)."""
        with _evaluation_mode(self.model):
            return self.logits(self.eval_tokens, rows).cpu().numpy()

    def evaluate(self) -> dict[str, Any]:
        """Return the metrics on the evaluation rows; their logits are kept for `summary`."""
        self.eval_logits = self._all_logits(self.eval_tokens)
        refuse_not_finite(self.eval_logits, self.rows.eval.texts, "evaluation")
        return classification_metrics(self.eval_logits, self.rows.eval.labels, self.rows.labels)

    def summary(self) -> dict[str, Any]:
        """Return labels, the accuracy of the majority class, the worst evaluation rows and, if there are test rows, the metrics on them."""
        summary: dict[str, Any] = {
            "labels": self.rows.labels,
            "baseline": {"majority_accuracy": majority_accuracy(self.rows.train, self.rows.eval)},
            "worst": worst_rows(self.eval_logits, self.rows.eval, self.rows.labels),
        }
        if self.rows.test and self.test_tokens:
            logits = self._all_logits(self.test_tokens)
            refuse_not_finite(logits, self.rows.test.texts, "test")
            summary["test"] = classification_metrics(logits, self.rows.test.labels, self.rows.labels)
        return summary

    def baseline(self) -> dict[str, float]:
        """Return the accuracy of a linear model on word counts."""
        return {"linear_accuracy": linear_accuracy(self.rows.train, self.rows.eval)}

    def save_extras(self, folder: Path) -> None:
        """Write the tokenizer's files, and lorasite.json with the label names."""
        if self.initial_pairs:
            convert_to_plain_lora(folder, self.initial_pairs)
        self.tokenizer.save_pretrained(folder)
        saved_facts = {
            "id2label": dict(enumerate(self.rows.labels)),
            "base_model_hash": self.hash_base_model(),
            "base_model_origin": find_origin(self.base),
        }
        write_json(folder / "lorasite.json", self.facts | saved_facts)

    def verify(self, folder: Path) -> SavedModelCheck:
        """Load base model and adapter as serving and plain PEFT do, and compare their answers with the last evaluation's."""
        logits = self.eval_logits
        if not len(logits):  # an estimate saves without an evaluation before
            logits = self.evaluate_batch(np.arange(min(ROWS, len(self.rows.eval))))
        evaluated = select_texts(self.rows.eval.texts, self.eval_tokens, logits)

        # Free the trained weights first: loading them again must not need more memory than training did.
        # bitsandbytes' weights cannot move to the meta device, and are small.
        if self.plan.quantization is None:
            self.model.to("meta")
        # In place of the fused forward pass, which holds weights too, as do the graphs.
        self.forward = plain_forward(self.model, self.max_length)
        self.graphs = None
        release_memory(self.plan.device)
        return check_saved_model(folder, self.base, self.plan, evaluated)

    def logits(self, tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
        """Return the model's output for some rows of `tokens`, in fp32: (rows, labels)."""
        ids, mask = self._padded(tokens, rows)
        return self.forward(input_ids=ids, attention_mask=mask).float()

    def _padded(self, tokens: Tokens, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and attention mask of some rows of `tokens`, on the CPU: (rows, length)."""
        ids, mask = tokens.padded(rows, self.encoding.padding_id, self.encoding.padding_side)
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def _all_logits(self, tokens: Tokens) -> np.ndarray:
        """Return the logits of all rows, computed by all processes together: (rows, labels)."""
        world = self.plan.world
        own_rows = world.share_of(np.arange(len(tokens.lengths)))

        def own_logits(batch_size: int) -> torch.Tensor:
            logits = torch.zeros(len(tokens.lengths), len(self.rows.labels))
            for batch in batches_by_length(tokens.lengths[own_rows], batch_size):
                rows = own_rows[batch]
                logits[rows] = self.logits(tokens, rows).cpu()
            return logits

        with _evaluation_mode(self.model):
            batch_size = self._evaluation_batch_size(tokens)
            logits = retry_with_half(own_logits, batch_size, self.plan.device, smaller=lambda _: None)
            # Rows of other processes are zero here, so the sum is everybody's logits.
            return world.all_reduce(logits.to(self.plan.device)).cpu().numpy()

    def _evaluation_batch_size(self, tokens: Tokens) -> int:
        """Return the configured batch size, or on a CPU the largest of its halves that fits into free memory."""
        batch_size = self.config.training.per_device_eval_batch_size
        if self.plan.device.type != "cpu":
            return batch_size  # a GPU reports cleanly when memory runs out, so no estimate is needed
        return largest_fitting(batch_size, lambda size: self.memory.evaluation(size, tokens.longest))

    def _class_weights(self) -> torch.Tensor | None:
        """Return the weight of each label in the loss, or None if all are 1."""
        setting = self.config.training.class_weights
        if setting == "none":
            return None
        if isinstance(setting, dict):
            return torch.tensor(weights_by_label(setting, self.rows.labels))
        counts = np.bincount(self.rows.train.labels, minlength=len(self.rows.labels)).clip(1)
        return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32)

    def _check_data(self) -> dict[str, Any]:
        """Return the facts about the data; raise ConfigError or TextsTooLongError if they contradict the configuration."""
        num_labels = self.config.model.num_labels
        if num_labels is not None and num_labels != len(self.rows.labels):
            message = f"model.num_labels is {num_labels}, but the data have {len(self.rows.labels)} labels. Remove it."
            raise ConfigError([Problem("model.num_labels", message, "num_labels")])
        truncated = self.train_tokens.truncated + self.eval_tokens.truncated
        if truncated and self.config.data.truncation == "refuse":
            raise TextsTooLongError(
                f"{truncated} texts are longer than {self.max_length} tokens, and data.truncation is refuse. "
                "Raise data.max_length, shorten the texts, or set data.truncation to truncate.",
                field="data.max_length",
                rows=truncated,
            )
        return {
            "task": self.config.task,
            "labels": self.rows.labels,
            "base_model": self.config.model.name,
            "revision": self.config.model.revision,
            "dataset": self.config.data.dataset_name,
            "experiment": self.config.experiment_name,
            "train_rows": len(self.rows.train),
            "eval_rows": len(self.rows.eval),
            "truncated_rows": truncated,
            "skipped_rows": self.rows.skipped,
            "skipped_by_reason": self.rows.skipped_by_reason,
            "rare_labels": self.rows.rare,
            "similar_labels": find_similar_labels(self.rows.labels),
            **self.encoding.facts(self.train_tokens),
        }


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turn off dropout and gradients inside of the block; afterwards the model is in training mode."""
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train()
