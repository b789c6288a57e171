"""Causal language modelling: a model learns to write the assistant's answers, by cross entropy on their tokens alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.config import RunConfig
from engine.data.batches import batches_by_length
from engine.data.conversation_tokens import ConversationTokens, tokenise_conversations
from engine.data.labelled_rows import Rows, Split, explain_skipped
from engine.devices import DevicePlan
from engine.errors import ChatTemplateError, EvaluationNotFiniteError, TextsTooLongError, TooFewRowsError
from engine.events import Notice
from engine.models.base_model_head import Head
from engine.models.base_models import find_origin
from engine.models.causal import CausalForward, PackedConversations
from engine.models.chat_template import ChatTemplate
from engine.models.loading import adapts_feed_forward, add_adapter, load_language_model
from engine.models.random_pissa import convert_to_plain_lora, initial_pairs
from engine.models.text_encoding import load_config, load_tokenizer, longest_text
from engine.models.weights_hash import hash_base_weights
from engine.out_of_memory import largest_fitting, release_memory, retry_with_half, trim_heap
from engine.storage import write_json
from engine.tasks.answers import Answers, write_answers
from engine.tasks.evaluation_mode import evaluation_mode
from engine.training.memory_model import DecoderMemory, DecoderSizes
from engine.training.saved_language_model import SavedTargets, check_saved_language_model
from engine.training.saved_model import SavedModelCheck

NO_HEAD = Head(modules=[], origin="kept", notices=[])  # a language model brings its own, which stays frozen
SHOWN_ANSWERS = 8  # in metrics.json, the tuned model's beside the base model's
CHECKED = 8  # conversations that the saved model is compared on


class Task:
    """See engine.tasks.Task. Rows that can't be learned are left out before training, so rows are indexes of conversations."""

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
        self.plan = replace(plan, fused_encoder=False, int8=plan.int8 and not config.lora.use_dora)
        self.rows = _load_rows(data_file, config, seed)
        self.data_hash = self.rows.digest()

        # Tokens: too long conversations and those that the template refuses are left out, in each split.
        name = config.model.name
        self.notices: list[Notice] = []
        self.tokenizer = load_tokenizer(base, name)
        self.max_length = self._lowered_max_length()
        self.template = ChatTemplate(self.tokenizer, name)
        self.skipped = dict(self.rows.skipped_by_reason)
        self.train_tokens = self._tokenise(self.rows.train)
        self.eval_tokens = self._tokenise(self.rows.eval)
        self.test_tokens = self._tokenise(self.rows.test) if self.rows.test else None
        self._refuse_too_few()
        self.end_id = self._find_end_id()
        self.lengths = self.train_tokens.lengths
        self.test_share = len(self.test_tokens.rows if self.test_tokens else ()) / len(self.eval_tokens.rows)
        self.facts = self._describe_data()
        self._add_notices()

        # The model, with its adapter.
        base_model = load_language_model(base, name, self.plan)
        self.model = add_adapter(base_model, config.lora, NO_HEAD, name, seed, "causal")
        self.model.peft_config["default"].revision = config.model.revision
        self.model.to(plan.device)
        self.forward = CausalForward(self.model, self.plan.int8)
        self.initial_pairs = initial_pairs(self.model)
        trim_heap()
        self.memory = DecoderMemory(DecoderSizes.from_base_model(base), self.plan, adapts_feed_forward(self.model))
        self.answers: Answers | None = None  # of the last evaluation

    def matches_data(self, data_hash: str) -> bool:
        """See engine.tasks.Task."""
        return data_hash == self.data_hash

    def hash_base_model(self) -> str:
        """See engine.tasks.Task."""
        return hash_base_weights(self.base, self.config.model.name)

    def loss_weight(self, rows: np.ndarray) -> float:
        """Return the number of tokens that the rows teach."""
        return float(self.train_tokens.targets[rows].sum()) or 1.0

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss of the rows' targets."""
        return self.forward.sum_of_losses(PackedConversations.pack(self.train_tokens, rows))

    def backward(self, rows: np.ndarray, weight: float) -> torch.Tensor:
        """Add the gradients of the rows' loss divided by `weight` to the parameters; return that loss: ()."""
        loss = self.loss(rows) / weight
        loss.backward()
        return loss.detach()

    def estimate_step_bytes(self, rows: int, length: int) -> float:
        """Return the estimated bytes of the activations of so many tokens, and of a chunk of logits."""
        return self.memory.training(rows, length)

    def padded_length(self, rows: np.ndarray) -> int:
        """Return the mean length of the rows: nothing is padded, and time goes by the tokens."""
        return int(self.lengths[rows].mean())

    def evaluation_batches(self) -> list[np.ndarray]:
        """See engine.tasks.Task."""
        return batches_by_length(self.eval_tokens.lengths, self._evaluation_batch_size(self.eval_tokens))

    def evaluate_batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the summed loss, the right tokens and the tokens of evaluation rows: (3,) float64."""
        with evaluation_mode(self.model):
            return self._scores_of(self.eval_tokens, rows).cpu().numpy()

    def evaluate(self) -> dict[str, Any]:
        """Return loss, perplexity and token accuracy of the evaluation rows, and how good answers to their prompts are."""
        scores = self._score(self.eval_tokens, "evaluation")
        self.answers = self._write_answers(self.rows.eval, self.eval_tokens)
        return scores | self.answers.scores()

    def summary(self) -> dict[str, Any]:
        """Return the base model's scores and answers beside the tuned ones and, if there are test rows, the metrics on them."""
        summary: dict[str, Any] = {"labels": []}
        if self.test_tokens is not None and self.rows.test is not None and len(self.test_tokens.rows):
            answers = self._write_answers(self.rows.test, self.test_tokens)
            summary["test"] = self._score(self.test_tokens, "test") | answers.scores()
        tuned = self.answers or self._write_answers(self.rows.eval, self.eval_tokens)
        with self.model.disable_adapter():
            base_scores = self._score(self.eval_tokens, "evaluation")
            base = self._write_answers(self.rows.eval, self.eval_tokens)
        summary["baseline"] = {f"base_{name}": value for name, value in (base_scores | base.scores()).items()}
        summary["answers"] = tuned.beside(base)[:SHOWN_ANSWERS]
        return summary

    def baseline(self) -> dict[str, float]:
        """Return nothing: what an answer is compared with is the base model, which `summary` has asked."""
        return {}

    def wrong_rows(self) -> list[dict[str, Any]]:
        """Return none: answers have no labels."""
        return []

    def save_extras(self, folder: Path) -> None:
        """Write the tokenizer with its chat template, and lorasite.json."""
        if self.initial_pairs:
            convert_to_plain_lora(folder, self.initial_pairs)
        self.tokenizer.save_pretrained(folder)
        saved_facts = {"base_model_hash": self.hash_base_model(), "base_model_origin": find_origin(self.base)}
        write_json(folder / "lorasite.json", self.facts | saved_facts)

    def verify(self, folder: Path) -> SavedModelCheck:
        """Load base model and adapter as plain PEFT does, and compare the log-probabilities of a few rows' targets."""
        shortest_first = np.argsort(self.eval_tokens.lengths, kind="stable")
        checked = shortest_first[np.linspace(0, len(shortest_first) - 1, CHECKED).round().astype(int)]
        packed = [
            PackedConversations.pack(self.eval_tokens, np.array([row])) for row in dict.fromkeys(checked.tolist())
        ]
        rows = self.eval_tokens.rows[list(dict.fromkeys(checked.tolist()))]
        with evaluation_mode(self.model):
            logs = [self._target_log_probabilities(each).cpu() for each in packed]
        if self.plan.quantization is None:
            self.model.to("meta")  # loading the weights again must not need more memory than training did
        release_memory(self.plan.device)
        texts = [self.rows.eval.texts[row] for row in rows.tolist()]
        return check_saved_language_model(folder, self.base, self.plan, SavedTargets(texts, packed, logs))

    def _tokenise(self, split: Split) -> ConversationTokens:
        return tokenise_conversations(split.texts, self.template, self.max_length, self.skipped)

    def _lowered_max_length(self) -> int:
        """Return data.max_length, or what the model can take if that is less; then with a notice."""
        wanted = self.config.data.max_length
        longest = longest_text(load_config(self.base, self.config.model.name))
        if longest is None or wanted <= longest:
            return wanted
        message = f"Conversations may have {longest:,} tokens instead of data.max_length {wanted:,}: the base model takes no more."
        self.notices.append(Notice("warning", "max_length_lowered", message))
        return longest

    def _refuse_too_few(self) -> None:
        """Raise TextsTooLongError or TooFewRowsError for what is left out of the data."""
        over_long = self.skipped.get("over_long", 0)
        if over_long and self.config.data.truncation == "refuse":
            raise TextsTooLongError(
                f"{over_long} conversations are longer than {self.max_length} tokens, and data.truncation is refuse. "
                "Raise data.max_length, or set data.truncation to truncate to leave them out.",
                field="data.max_length",
                rows=over_long,
            )
        train = len(self.train_tokens.rows)
        held_out = len(self.eval_tokens.rows)
        if train < 2 or not held_out:
            raise TooFewRowsError(
                f"{train} conversations are left for training and {held_out} for evaluation; at least 2 and 1 are needed. "
                f"Rows left out: {explain_skipped(self.skipped)}. Raise data.max_length, or correct the data.",
                field="data.dataset_name",
            )

    def _find_end_id(self) -> int:
        """Return the id of the token that ends answers: the model stops there. Raises ChatTemplateError if there are several."""
        ends = sorted(self.train_tokens.end_tokens | self.eval_tokens.end_tokens)
        if len(ends) > 1:
            raise ChatTemplateError(
                f"Answers end in different ways ({', '.join(ends)}): the data have conversations and plain texts. "
                "Train on one of both.",
                field="data.dataset_name",
            )
        return int(self.tokenizer.get_vocab()[ends[0]])

    def _describe_data(self) -> dict[str, Any]:
        config = self.config
        return {
            "task": config.task,
            "labels": [],
            "base_model": config.model.name,
            "revision": config.model.revision,
            "dataset": config.data.dataset_name,
            "experiment": config.experiment_name,
            "train_rows": len(self.train_tokens.rows),
            "eval_rows": len(self.eval_tokens.rows),
            "truncated_rows": 0,
            "skipped_rows": sum(self.skipped.values()),
            "skipped_by_reason": self.skipped,
            "max_length": self.max_length,
            "end_of_turn": self.tokenizer.convert_ids_to_tokens(self.end_id),
            "target_tokens": int(self.train_tokens.targets.sum()),
            "own_chat_template": not self.template.is_plain,
        }

    def _add_notices(self) -> None:
        """Tell what a person would not expect of data and base model."""
        skipped = {reason: count for reason, count in self.skipped.items() if reason != "unknown_split"}
        if skipped:
            message = f"Conversations were left out: {explain_skipped(skipped)}."
            self.notices.append(Notice("warning", "skipped_conversations", message))
        if self.template.is_plain:
            message = (
                f"{self.config.model.name} has no chat template, so a plain one is used and saved with the model: "
                '"User: …", "Assistant: …".'
            )
            self.notices.append(Notice("info", "plain_template", message))

    def _score(self, tokens: ConversationTokens, name: str) -> dict[str, float]:
        """Return the metrics of all targets, computed by all processes together. name: evaluation or test."""
        world = self.plan.world
        own = world.share_of(np.arange(len(tokens.rows)))

        def own_scores(batch_size: int) -> torch.Tensor:
            scores = torch.zeros(3, dtype=torch.float64)
            for batch in batches_by_length(tokens.lengths[own], batch_size):
                scores += self._scores_of(tokens, own[batch]).cpu()
            return scores

        with evaluation_mode(self.model):
            size = self._evaluation_batch_size(tokens)
            sums = retry_with_half(own_scores, size, self.plan.device, smaller=lambda _: None)
            loss, right, count = world.all_reduce(sums.to(self.plan.device)).cpu().tolist()
        if not np.isfinite(loss):
            message = (
                f"The model's output is not finite for some {name} rows. Lower training.learning_rate and start again."
            )
            raise EvaluationNotFiniteError(message, field="training.learning_rate")
        mean = loss / max(1.0, count)
        return {"loss": mean, "perplexity": float(np.exp(min(mean, 700.0))), "token_accuracy": right / max(1.0, count)}

    def _scores_of(self, tokens: ConversationTokens, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss, the tokens that the model would have written, and all targets of some rows: (3,) float64."""
        packed = PackedConversations.pack(tokens, rows)
        loss = torch.zeros((), dtype=torch.float64, device=self.plan.device)
        right = torch.zeros_like(loss)
        for states, targets in self.forward.chunks(self.forward.states(packed), packed.targets):
            logits = self.forward.logits(states)
            loss += torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            right += (logits.argmax(dim=-1) == targets).sum()
        return torch.stack([loss, right, torch.full_like(loss, len(packed.targets))])

    def _target_log_probabilities(self, packed: PackedConversations) -> torch.Tensor:
        """Return the log-probability of each target: (targets,)."""
        parts = [
            self.forward.logits(states).log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
            for states, targets in self.forward.chunks(self.forward.states(packed), packed.targets)
        ]
        return torch.cat(parts)

    def _write_answers(self, split: Split, tokens: ConversationTokens) -> Answers:
        """Let the model answer the prompts of some held-out conversations."""
        conversations = [json.loads(split.texts[row]) for row in tokens.rows.tolist()]
        longest = int(tokens.targets.max(initial=1))
        with evaluation_mode(self.model), self.forward.generating():
            return write_answers(self.forward.model, self.template, conversations, self.end_id, longest)

    def _evaluation_batch_size(self, tokens: ConversationTokens) -> int:
        """Return the configured batch size, or on a CPU the largest of its halves that fits into free memory."""
        size = self.config.training.per_device_eval_batch_size
        if self.plan.device.type != "cpu":
            return size
        longest = int(tokens.lengths.max(initial=1))
        return largest_fitting(size, lambda rows: self.memory.evaluation(rows, longest))


def _load_rows(data_file: Path | Rows | Callable[[], Rows], config: RunConfig, seed: int) -> Rows:
    """Return the conversations of a run from whatever it was given."""
    if isinstance(data_file, Rows):
        return data_file
    if callable(data_file):
        return data_file()
    from engine.data.conversation_rows import load_conversations  # deferred: imports polars

    return load_conversations(data_file, config.data, seed)
