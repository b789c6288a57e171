"""What all task types that read texts have in common: rows, their tokens, the model, its logits, saving and checking it.

A task type is a subclass of `TextTask` in a module of its own, which says what the model's outputs are, how wrong they are
(the loss) and how good (the metrics).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from engine.config import RunConfig
from engine.data.batches import batches_by_length
from engine.data.labelled_rows import Rows, Split, find_similar_labels, were_sorted_alike
from engine.data.rows_ahead import rows_of
from engine.data.tokens import Tokens, tokenise
from engine.devices import DevicePlan
from engine.errors import BaseModelUnavailableError, ConfigError, Problem, TextsTooLongError
from engine.events import Notice
from engine.kernels import FusedForward, PackedTexts, fused_forward
from engine.memory_limits import free_bytes
from engine.models.base_model_head import set_output_bias
from engine.models.base_models import find_origin
from engine.models.forward import plain_forward
from engine.models.loading import adapts_feed_forward, add_adapter, load_classifier
from engine.models.random_pissa import convert_to_plain_lora, initial_pairs
from engine.models.text_encoding import prepare_encoding, set_padding_id
from engine.models.weights_hash import hash_base_weights
from engine.out_of_memory import largest_fitting, release_memory, retry_with_half, trim_heap
from engine.sentences import Sentence, gettext_noop
from engine.storage import write_json
from engine.task_types import HeadKind
from engine.tasks.evaluation_mode import evaluation_mode
from engine.tasks.metrics import refuse_not_finite
from engine.tasks.repeats import NEVER, Repeats
from engine.training import probe
from engine.training.cuda_graphs import CudaGraphs
from engine.training.memory_model import ActivationMemory, EncoderSizes
from engine.training.saved_model import ROWS, EvaluatedTexts, SavedModelCheck, check_saved_model, select_texts

ROOM_FOR_PROBE = 512 * 2**20  # bytes of free memory


class TextTask(ABC):
    """The data and the model of one run; see engine.tasks.Task for the contract.

    Subclasses implement the abstract methods. Logits are (rows, outputs), one row per text, unless a subclass overrides
    everything that handles them.
    """

    head: ClassVar[HeadKind] = "sequence"  # what the base model gets

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
        self.plan = plan
        self.base = base

        # Data: rows and their tokens.
        self.rows = rows_of(data_file, config.data, config.task, seed)
        self.encoding = prepare_encoding(base, config.model.name, config.data.max_length)
        self.tokenizer = self.encoding.tokenizer
        self.max_length = self.encoding.max_length
        self.cache_dir = cache_dir
        self.train_tokens = self.tokenise(self.rows.train)
        self.eval_tokens = self.tokenise(self.rows.eval)
        self.test_tokens = self.tokenise(self.rows.test) if self.rows.test else None
        self.lengths = self.train_tokens.lengths
        self.test_share = len(self.rows.test or ()) / max(1, len(self.rows.eval))
        self.data_hash = self.rows.digest()
        self.prepare_labels()
        self.facts = self.check_data()
        unknown_tokens = self.encoding.notice_of_unknown_tokens(self.facts["unknown_token_share"])
        self.notices: list[Notice] = [*self.encoding.notices, *unknown_tokens]

        self._load_model(plan, seed)
        self._check_batches(plan, seed)
        trim_heap()
        self.facts["base_model_head"] = self.base_head.origin
        self.notices += self.base_head.notices
        self.initial_pairs = initial_pairs(self.model)
        self.memory = ActivationMemory(
            EncoderSizes.from_base_model(base), self.plan, adapts_feed_forward(self.model), config.lora.use_dora
        )
        self.eval_logits = np.empty((0, len(self.output_names)), dtype=np.float32)  # of the latest `evaluate`

    @property
    def output_names(self) -> list[str]:
        """Return the names of the model's outputs, in their order."""
        return self.rows.labels

    @abstractmethod
    def prepare_labels(self) -> None:
        """Prepare what the loss needs of the labels. Called once, before the model is loaded."""

    @abstractmethod
    def training_labels(self, rows: np.ndarray) -> torch.Tensor:
        """Return what `sum_of_losses` compares the logits of training rows with, on the CPU."""

    @abstractmethod
    def sum_of_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, weighted and summed, on the device of both: ().

        logits: (rows, outputs) in fp32; labels: those of `training_labels`.
        """

    @abstractmethod
    def score(self, logits: np.ndarray, split: Split) -> dict[str, Any]:
        """Return the metrics of held-out rows: the part `eval` of metrics.json. logits: (rows, outputs)."""

    @abstractmethod
    def describe(self, logits: np.ndarray) -> dict[str, Any]:
        """Return what metrics.json says about the last evaluation beside its metrics: baseline, worst rows and the like."""

    @abstractmethod
    def baseline(self) -> dict[str, float]:
        """See engine.tasks.Task."""

    def answer_settings(self) -> dict[str, Any]:
        """Return what serving has to know to turn logits into answers, for lorasite.json; after the last evaluation."""
        return {}

    def initial_bias(self) -> np.ndarray | None:
        """Return the bias that a new head starts from: (outputs,); None for the head's own.

        With that of the outputs' frequencies, the first steps need not learn how rare they are.
        """
        return None

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return the number of rows; see engine.tasks.Task."""
        return float(len(rows))

    def tokenise(self, split: Split) -> Tokens:
        """Return the tokens of a split's texts, or of its pairs of texts."""
        encoding = self.encoding
        return tokenise(
            split.texts, self.tokenizer, self.max_length, self.cache_dir, split.text_pairs, encoding.token_types
        )

    def matches_data(self, data_hash: str) -> bool:
        """Return whether the hash is that of these rows or, if it is empty, whether labels have the order they had then."""
        return data_hash == self.data_hash or (not data_hash and were_sorted_alike(self.rows.labels))

    def _load_model(self, plan: DevicePlan, seed: int) -> None:
        """Load the base model with a head and an adapter and, where they are covered, a fused forward pass."""
        name = self.config.model.name
        base_model, self.base_head = load_classifier(self.base, name, self.output_names, plan, self.head)
        set_padding_id(base_model, self.encoding.padding_id)
        bias = self.initial_bias() if self.base_head.origin in ("new", "replaced") else None
        if bias is not None:
            set_output_bias(base_model, bias)
        self.model = add_adapter(base_model, self.config.lora, self.base_head, name, seed, self.head)
        self.model.peft_config["default"].revision = self.config.model.revision
        self.model.to(plan.device)
        fused = None
        if plan.fused_encoder:
            deterministic = self.config.training.deterministic
            fused = fused_forward(self.model, plan.int8, plan.packed, deterministic, all_tokens=self.head == "token")
        can_replay = fused is not None and not fused.all_tokens and fused.body.flash and plan.world.size == 1
        self.graphs = self._create_graphs(fused) if fused is not None and can_replay else None
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
        special_ids = self.tokenizer.all_special_ids
        fault = probe.find_fault(self.model, self.logits, self.train_tokens, plan.dtype, special_ids)
        if fault and plan.dtype != torch.float32:
            message = Sentence(
                gettext_noop("{model} {fault} in {precision}, so it is trained in fp32."),
                model=self.config.model.name,
                fault=fault,
                precision=self.plan.precision,
            )
            self.notices.append(Notice("warning", "precision_fallback", message))
            self.model.to("meta")  # both at once may not fit into memory
            release_memory(plan.device)
            torch.manual_seed(seed)  # the same new head as in a run that was configured with fp32
            self._load_model(replace(plan, dtype=torch.float32, int8=False), seed)
            fault = probe.find_fault(self.model, self.logits, self.train_tokens, torch.float32, special_ids)
        if fault:
            raise BaseModelUnavailableError(
                Sentence(
                    gettext_noop("The base model {name} {fault}, so it can't be trained. Choose another base model."),
                    name=self.config.model.name,
                    fault=fault,
                ),
                field="model.name",
            )

    def hash_base_model(self) -> str:
        """Return the hash of the base model's weights on disk."""
        return hash_base_weights(self.base, self.config.model.name)

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss of training rows."""
        labels = self.training_labels(rows).to(self.plan.device)
        return self.sum_of_losses(self.logits(self.train_tokens, rows), labels)

    def backward(self, rows: np.ndarray, weight: float) -> torch.Tensor:
        """Add the gradients of the rows' loss divided by `weight` to the parameters; return that loss: ()."""
        if self.graphs is None:
            loss = self.loss(rows) / weight
            loss.backward()
            return loss.detach()
        inputs = self.padded(self.train_tokens, rows)
        texts = PackedTexts.pack(dtype=self.plan.dtype, **inputs).rounded()
        labels = self.training_labels(rows)
        return self.graphs.backward([texts.tokens, texts.offsets, texts.mask, labels, torch.tensor(weight)])

    def _create_graphs(self, fused: FusedForward) -> CudaGraphs:
        """Return the graphs of `backward`; an epoch has few shapes, as texts are rounded to few."""

        def compute_loss(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
            *texts, labels, weight = inputs
            return self.sum_of_losses(fused.packed_logits(PackedTexts(*texts)).float(), labels) / weight

        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return CudaGraphs(compute_loss, trained)

    def estimate_step_bytes(self, rows: int, length: int) -> float:
        """Return the estimated bytes of the activations; everything else that a step takes is small beside them."""
        return self.memory.training(rows, self.train_tokens.padded_length(length))

    def recompute_activations(self) -> bool:
        """Return False: a text is cut to the length that fits, and its activations are kept."""
        return False

    def padded_length(self, rows: np.ndarray) -> int:
        """Return the number of tokens that each of these training rows is padded to."""
        return self.train_tokens.padded_length(int(self.lengths[rows].max()))

    def evaluation_batches(self) -> list[np.ndarray]:
        """Return the rows of each evaluation batch, longest texts first."""
        return batches_by_length(self.eval_tokens.lengths, self._evaluation_batch_size(self.eval_tokens))

    def evaluate_batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits of evaluation rows: (rows, labels)."""
        with evaluation_mode(self.model):
            return self.logits(self.eval_tokens, rows).cpu().numpy()

    def evaluate(self, is_last: bool = True) -> dict[str, Any]:
        """Return the metrics on the evaluation rows; their logits are kept for `summary`."""
        self.eval_logits = self._all_logits(self.eval_tokens)
        self.refuse_not_finite(self.eval_logits, self.rows.eval, gettext_noop("evaluation"))
        return self.score(self.eval_logits, self.rows.eval)

    def summary(self) -> dict[str, Any]:
        """Return labels, what `describe` adds and, if there are test rows, the metrics on them."""
        summary: dict[str, Any] = {"labels": self.rows.labels, **self.describe(self.eval_logits)}
        if self.rows.test and self.test_tokens:
            logits = self._all_logits(self.test_tokens)
            self.refuse_not_finite(logits, self.rows.test, gettext_noop("test"))
            summary["test"] = self.score(logits, self.rows.test)
        return summary

    def write_some_answers(self) -> Repeats:
        """Write none: texts get labels or scores."""
        return NEVER

    def check_forgetting(self) -> Repeats:
        """Check nothing: a classifier writes no sentences."""
        return NEVER

    def base_model_files(self) -> dict[str, Path | None]:
        """Return none: the base model of a classifier has no scores."""
        return {}

    def shown_answers(self) -> list[dict[str, str]]:
        """Return none, for the same reason."""
        return []

    def wrong_rows(self) -> list[dict[str, Any]]:
        """Return none: only of a single label it is plain what a row was taken for."""
        return []

    def save_extras(self, folder: Path) -> None:
        """Write the tokenizer's files, and lorasite.json with the label names."""
        if self.initial_pairs:
            convert_to_plain_lora(folder, self.initial_pairs)
        self.tokenizer.save_pretrained(folder)
        saved_facts = {
            "id2label": dict(enumerate(self.output_names)),
            "answers": self.answer_settings(),
            "base_model_hash": self.hash_base_model(),
            "base_model_origin": find_origin(self.base),
        }
        write_json(folder / "lorasite.json", self.facts | saved_facts)

    def evaluated_texts(self) -> EvaluatedTexts:
        """Return a few texts of the last evaluation with their logits, to compare those of the saved model with."""
        logits = self.eval_logits
        if not len(logits):  # an estimate saves without an evaluation before
            logits = self.evaluate_batch(np.arange(min(ROWS, len(self.rows.eval))))
        return select_texts(self.rows.eval, self.eval_tokens, logits)

    def verify(self, folder: Path) -> SavedModelCheck:
        """Load base model and adapter as serving and plain PEFT do, and compare their answers with the last evaluation's."""
        evaluated = self.evaluated_texts()

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
        """Return the model's output for some rows of `tokens`, in fp32: (rows, outputs)."""
        inputs = self.padded(tokens, rows)
        return self.forward(**inputs).float()

    def padded(self, tokens: Tokens, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return a model's inputs for some rows of `tokens`, on the CPU, each (rows, length)."""
        side = self.encoding.padding_side
        ids, mask = tokens.padded(rows, self.encoding.padding_id, side)
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        types = tokens.padded_types(rows, side)
        return inputs if types is None else inputs | {"token_type_ids": torch.from_numpy(types)}

    def output_count(self, tokens: Tokens) -> int:
        """Return the rows of the logits of all `tokens`."""
        return len(tokens.lengths)

    def output_rows(self, tokens: Tokens, rows: np.ndarray) -> np.ndarray:
        """Return the rows of the logits of some rows of `tokens`, among those of all."""
        return rows

    def refuse_not_finite(self, logits: np.ndarray, split: Split, name: str) -> None:
        """Raise EvaluationNotFiniteError if the logits of a text are not finite. name: evaluation or test."""
        refuse_not_finite(logits, split.texts, name)

    def _all_logits(self, tokens: Tokens) -> np.ndarray:
        """Return the logits of all rows, computed by all processes together: (rows, labels)."""
        world = self.plan.world
        own_rows = world.share_of(np.arange(len(tokens.lengths)))

        def own_logits(batch_size: int) -> torch.Tensor:
            logits = torch.zeros(self.output_count(tokens), len(self.output_names))
            for batch in batches_by_length(tokens.lengths[own_rows], batch_size):
                rows = own_rows[batch]
                logits[self.output_rows(tokens, rows)] = self.logits(tokens, rows).cpu()
            return logits

        with evaluation_mode(self.model):
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

    def check_data(self) -> dict[str, Any]:
        """Return the facts about the data; raise ConfigError or TextsTooLongError if they contradict the configuration."""
        num_labels = self.config.model.num_labels
        if num_labels is not None and num_labels != len(self.rows.labels):
            message = Sentence(
                gettext_noop("model.num_labels is {num_labels}, but the data have {labels} labels. Remove it."),
                num_labels=num_labels,
                labels=len(self.rows.labels),
            )
            raise ConfigError([Problem("model.num_labels", message, "num_labels")])
        truncated = self.train_tokens.truncated + self.eval_tokens.truncated
        if truncated and self.config.data.truncation == "refuse":
            raise TextsTooLongError(
                Sentence(
                    gettext_noop(
                        "{truncated} texts are longer than {max_length} tokens, and data.truncation is refuse. Raise "
                        "data.max_length, shorten the texts, or set data.truncation to truncate."
                    ),
                    truncated=truncated,
                    max_length=self.max_length,
                ),
                field="data.max_length",
                rows=truncated,
            )
        return {
            "task": self.config.task,
            "text_pairs": self.rows.train.text_pairs is not None,
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
            "held_out_share": self.rows.held_out_share,
            "eval_fraction": self.config.data.eval_fraction,
            "similar_labels": find_similar_labels(self.rows.labels),
            **self.encoding.facts(self.train_tokens),
        }
