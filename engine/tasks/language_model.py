"""What the task types of language models share: conversations, tokens, the model with its adapter, answers, the saved model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from engine.config import RunConfig
from engine.data.batches import batches_by_length
from engine.data.conversation_tokens import ConversationTokens
from engine.data.conversations import Conversation
from engine.data.general_texts import VERSION
from engine.data.labelled_rows import Rows, Split, explain_skipped
from engine.data.rows_ahead import rows_of
from engine.devices import DevicePlan
from engine.errors import ChatTemplateError, EvaluationNotFiniteError, TextsTooLongError, TooFewRowsError
from engine.events import Notice
from engine.models.base_model_head import Head
from engine.models.base_models import find_origin
from engine.models.causal import CausalForward, PackedConversations
from engine.models.chat_template import ChatTemplate
from engine.models.loading import adapts_feed_forward, add_adapter, load_language_model
from engine.models.plain_templates import notice
from engine.models.random_pissa import convert_to_plain_lora, initial_pairs
from engine.models.text_encoding import load_config, load_tokenizer, longest_text
from engine.models.untrained import UntrainedModel
from engine.models.weights_hash import hash_base_weights
from engine.out_of_memory import largest_fitting, release_memory, retry_with_half, trim_heap
from engine.sentences import Sentence, gettext_noop
from engine.storage import write_json
from engine.tasks.answer_writers import AnswerWriter, DecoderWriter, TransformersWriter, sharing_skeleton
from engine.tasks.answers import EARLY_ANSWERS, METRICS_OF_ANSWERS, MOST_ANSWERS, Answers, answers_path, write_answers
from engine.tasks.base_figures import Figures, figures_path, load_or_compute
from engine.tasks.evaluation_mode import evaluation_mode
from engine.tasks.forgetting import general_loss, general_tokens
from engine.tasks.learned_tokens import LearnedTokens
from engine.tasks.repeats import NEVER, Repeats
from engine.training.memory_model import DecoderMemory, DecoderSizes
from engine.training.saved_language_model import SavedTargets, check_saved_language_model
from engine.training.saved_model import SavedModelCheck

NO_HEAD = Head(modules=[], origin="kept", notices=[])  # a language model brings its own, which stays frozen
CHECKED = 8  # conversations that the saved model is compared on
MEASURED = 512  # tokens by which int8 is smoothed
Tokens = TypeVar("Tokens", bound=LearnedTokens)


class LanguageModelTask(ABC, Generic[Tokens]):
    """See engine.tasks.Task. Rows that can't be learned are left out before training, so rows are indexes of those that are kept."""

    SUMS: int  # numbers that `sums` returns

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
        self.cache_dir = cache_dir
        self.base = base
        self.plan = replace(plan, fused_encoder=False, int8=plan.int8 and not config.lora.use_dora)
        self.rows = rows_of(data_file, config.data, config.task, seed)
        self.data_hash = self.rows.digest()
        self.base_precision = config.model.quantization or str(self.plan.dtype)

        # Tokens: too long conversations and those that the template refuses are left out, in each split.
        name = config.model.name
        self.notices: list[Notice] = []
        self.tokenizer = load_tokenizer(base, name)
        self.max_length = self._lowered_max_length()
        self.template = ChatTemplate(self.tokenizer, name, config.model.chat_template)
        self.skipped = dict(self.rows.skipped_by_reason)
        self.train_tokens = self.tokenise(self.rows.train)
        self.eval_tokens = self.tokenise(self.rows.eval)
        self.test_tokens = self.tokenise(self.rows.test) if self.rows.test else None
        self._refuse_too_few()
        self.end_id = self._find_end_id()
        self.lengths = self.train_tokens.lengths
        self.test_share = len(self.test_tokens.rows if self.test_tokens else ()) / len(self.eval_tokens.rows)
        self.facts = self._describe_data()
        self._add_notices()

        # The model, with its adapter.
        base_model = load_language_model(base, name, self.plan)
        skeleton = sharing_skeleton(base_model, config, self.plan)
        self.model = add_adapter(base_model, config.lora, NO_HEAD, name, seed, "causal")
        self.model.peft_config["default"].revision = config.model.revision
        self.model.to(plan.device)
        self.forward = CausalForward(
            self.model, self.plan.int8, PackedConversations.first(self.train_tokens.conversations, MEASURED)
        )
        self.initial_pairs = initial_pairs(self.model)
        self.untrained = UntrainedModel(self.model)
        self.decoder_writer = skeleton and DecoderWriter(skeleton, self.model, self.tokenizer, self.end_id)
        trim_heap()
        self.memory = DecoderMemory(DecoderSizes.from_base_model(base), self.plan, adapts_feed_forward(self.model))
        self.answers: Answers | None = None  # of the last evaluation

    @abstractmethod
    def tokenise(self, split: Split) -> Tokens:
        """Return the tokens of a split; rows that are left out are counted in `self.skipped`."""

    @abstractmethod
    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """See engine.tasks.Task."""

    @abstractmethod
    def sums(self, tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
        """Return what `scores` needs of some rows, to be added up over all; the summed loss comes first: (SUMS,) float64."""

    @abstractmethod
    def scores(self, sums: list[float]) -> dict[str, float]:
        """Return the metrics of all rows by their sums."""

    @abstractmethod
    def base_scores(self) -> dict[str, float]:
        """Return the metrics of the base model on the evaluation rows. Called while the model is the base model."""

    @abstractmethod
    def scores_path(self) -> Path | None:
        """Return the file that keeps what takes long in the base model's scores; None without a cache folder."""

    @abstractmethod
    def answered(self, split: Split, tokens: Tokens) -> list[Conversation]:
        """Return the conversations of a split whose last answers the model is to write."""

    @abstractmethod
    def checked_conversations(self) -> tuple[list[str], ConversationTokens]:
        """Return the evaluation conversations that the saved model is compared on, as JSON and as tokens."""

    def matches_data(self, data_hash: str) -> bool:
        """See engine.tasks.Task."""
        return data_hash == self.data_hash

    def hash_base_model(self) -> str:
        """See engine.tasks.Task."""
        return hash_base_weights(self.base, self.config.model.name)

    def backward(self, rows: np.ndarray, weight: float) -> torch.Tensor:
        """Add the gradients of the rows' loss divided by `weight` to the parameters; return that loss: ()."""
        loss = self.loss(rows) / weight
        loss.backward()
        return loss.detach()

    def estimate_step_bytes(self, rows: int, length: int) -> float:
        """Return the estimated bytes of the activations of so many tokens, and of a chunk of logits."""
        return self.memory.training(rows, length)

    def recompute_activations(self) -> bool:
        """See engine.tasks.Task."""
        if self.memory.recomputes:
            return False
        self.memory = replace(self.memory, recomputes=True)
        self.forward.recompute_layers()
        return True

    def padded_length(self, rows: np.ndarray) -> int:
        """Return the mean length of the rows: nothing is padded, and time goes by the tokens."""
        return int(self.lengths[rows].mean())

    def evaluation_batches(self) -> list[np.ndarray]:
        """See engine.tasks.Task."""
        return batches_by_length(self.eval_tokens.lengths, self._evaluation_batch_size(self.eval_tokens))

    def evaluate_batch(self, rows: np.ndarray) -> np.ndarray:
        """Return what the scores need of evaluation rows: (SUMS,) float64."""
        with evaluation_mode(self.model):
            return self.sums(self.eval_tokens, rows).cpu().numpy()

    def evaluate(self, is_last: bool = True) -> dict[str, Any]:
        """Return the metrics of the evaluation rows, and how good answers to their prompts are: before the last time, to a few."""
        scores = self._score(self.eval_tokens, gettext_noop("evaluation"))
        needs_all = is_last or self.config.training.metric_for_best_model in METRICS_OF_ANSWERS
        most = MOST_ANSWERS if needs_all else EARLY_ANSWERS
        self.answers = self._write_answers(self.rows.eval, self.eval_tokens, most)
        return scores | self.answers.scores()

    def summary(self) -> dict[str, Any]:
        """Return the base model's scores and answers beside the tuned ones and, if there are test rows, the metrics on them."""
        summary: dict[str, Any] = {"labels": []}
        if self.test_tokens is not None and self.rows.test is not None and len(self.test_tokens.rows):
            answers = self._write_answers(self.rows.test, self.test_tokens)
            summary["test"] = self._score(self.test_tokens, gettext_noop("test")) | answers.scores()
        write_evaluation_answers = partial(self._write_answers, self.rows.eval, self.eval_tokens)
        tuned = self.answers or write_evaluation_answers()
        general = self._general_loss()
        with self.untrained.restored():
            base_general = self._base_general_loss()
            base_scores = self.base_scores()
            base = Answers.load_or_write(self._answers_path(), write_evaluation_answers)
        summary["baseline"] = {f"base_{name}": value for name, value in (base_scores | base.scores()).items()}
        summary["answers"] = tuned.beside(base)
        if general is not None and base_general is not None:
            summary["forgetting"] = {"texts": VERSION, "base_loss": base_general, "loss": general}
        return summary

    def write_some_answers(self) -> Repeats:
        """See engine.tasks.Task."""
        evaluation = min(MOST_ANSWERS, len(self.eval_tokens.rows))
        test = min(MOST_ANSWERS, len(self.test_tokens.rows) if self.test_tokens else 0)
        written = len(self._write_answers(self.rows.eval, self.eval_tokens, EARLY_ANSWERS).written)
        return Repeats((evaluation - written + test) / written, evaluation / written) if written else NEVER

    def check_forgetting(self) -> Repeats:
        """See engine.tasks.Task."""
        return NEVER if self._general_loss() is None else Repeats(1.0, 1.0)

    def base_model_files(self) -> dict[str, Path | None]:
        """See engine.tasks.Task."""
        general = self._general_tokens()
        files = {"scores": self.scores_path(), "answers": self._answers_path()}
        return files if general is None else files | {"general": self.figures_path("general", general)}

    def _answers_path(self) -> Path | None:
        """Return the file that keeps the base model's answers, by all that they depend on, for other runs on the same data."""
        longest = self.eval_tokens.longest_answer
        read_as = f"{self.data_hash} {self.template.origin} {self.max_length}"
        key = f"{self.hash_base_model()} {self.base_precision} {read_as} {longest}"
        return answers_path(self.cache_dir, key)

    def _general_tokens(self) -> ConversationTokens | None:
        """Return ordinary sentences, where system.forgetting_check asks for them."""
        return general_tokens(self.template, self.max_length) if self.config.system.forgetting_check else None

    def shown_answers(self) -> list[dict[str, str]]:
        """See engine.tasks.Task."""
        return self.answers.shown() if self.answers else []

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
        """Load base model and adapter as plain PEFT does, and compare the log-probabilities of a few conversations' targets."""
        texts, tokens = self.checked_conversations()
        shortest_first = np.argsort(tokens.lengths, kind="stable")
        checked = shortest_first[np.linspace(0, len(shortest_first) - 1, CHECKED).round().astype(int)]
        conversations = list(dict.fromkeys(checked.tolist()))
        packed = [PackedConversations.pack(tokens, np.array([index])) for index in conversations]
        with evaluation_mode(self.model):
            logs = [self.forward.log_probabilities(each).cpu() for each in packed]
        self.decoder_writer = None  # shares the weights
        if self.plan.quantization is None:
            self.model.to("meta")  # loading the weights again must not need more memory than training did
            self.untrained.release()
        release_memory(self.plan.device)
        checked_texts = list(dict.fromkeys(texts[index] for index in conversations))
        evaluated = SavedTargets(checked_texts, self.max_length, packed, logs)
        return check_saved_language_model(folder, self.base, self.plan, evaluated)

    def _lowered_max_length(self) -> int:
        """Return data.max_length, or what the model can take if that is less; then with a notice."""
        wanted = self.config.data.max_length
        longest = longest_text(load_config(self.base, self.config.model.name))
        if longest is None or wanted <= longest:
            return wanted
        message = Sentence(
            gettext_noop(
                "Conversations may have {longest:,} tokens instead of data.max_length {wanted:,}: the base model takes no more."
            ),
            longest=longest,
            wanted=wanted,
        )
        self.notices.append(Notice("warning", "max_length_lowered", message))
        return longest

    def _refuse_too_few(self) -> None:
        """Raise TextsTooLongError or TooFewRowsError for what is left out of the data."""
        over_long = self.skipped.get("over_long", 0)
        if over_long and self.config.data.truncation == "refuse":
            raise TextsTooLongError(
                Sentence(
                    gettext_noop(
                        "{over_long} conversations are longer than {max_length} tokens, and data.truncation is refuse. Raise "
                        "data.max_length, or set data.truncation to truncate to leave them out."
                    ),
                    over_long=over_long,
                    max_length=self.max_length,
                ),
                field="data.max_length",
                rows=over_long,
            )
        train = len(self.train_tokens.rows)
        held_out = len(self.eval_tokens.rows)
        if not train and not held_out and self.template.refusal:
            raise ChatTemplateError(
                Sentence(
                    gettext_noop(
                        "The chat template of {name} refuses all conversations: {reason}. Correct it in the base model's files, "
                        "or choose another base model."
                    ),
                    name=self.config.model.name,
                    reason=self.template.refusal.rstrip("."),
                ),
                field="model.name",
            )
        if train < 2 or not held_out:
            raise TooFewRowsError(
                Sentence(
                    gettext_noop(
                        "{train} conversations are left for training and {held_out} for evaluation; at least 2 and 1 are needed. "
                        "Rows left out: {skipped}. Raise data.max_length, or correct the data."
                    ),
                    train=train,
                    held_out=held_out,
                    skipped=explain_skipped(self.skipped),
                ),
                field="data.dataset_name",
            )

    def _find_end_id(self) -> int:
        """Return the id of the token that ends answers: the model stops there. Raises ChatTemplateError if there are several."""
        ends = sorted(self.train_tokens.end_tokens | self.eval_tokens.end_tokens)
        if len(ends) > 1:
            raise ChatTemplateError(
                Sentence(
                    gettext_noop(
                        "Answers end in different ways ({ends}): the data have conversations and plain texts. Train on one of "
                        "both."
                    ),
                    ends=", ".join(ends),
                ),
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
            "train_rows": self.train_tokens.row_count,
            "eval_rows": self.eval_tokens.row_count,
            "windows": len(self.lengths),
            "truncated_rows": 0,
            "skipped_rows": sum(self.skipped.values()),
            "skipped_by_reason": self.skipped,
            "max_length": self.max_length,
            "end_of_turn": self.tokenizer.convert_ids_to_tokens(self.end_id),
            "target_tokens": self.train_tokens.target_tokens,
            "chat_template": self.template.origin,
        }

    def _add_notices(self) -> None:
        """Tell what a person would not expect of data and base model."""
        skipped = {reason: count for reason, count in self.skipped.items() if reason != "unknown_split"}
        if skipped:
            message = Sentence(
                gettext_noop("Conversations were left out: {reasons}."), reasons=explain_skipped(skipped)
            )
            self.notices.append(Notice("warning", "skipped_conversations", message))
        if self.template.origin != "own":
            message = notice(self.template.origin, self.config.model.name)
            self.notices.append(Notice("info", "plain_template", message))

    def _score(self, tokens: Tokens, name: str) -> dict[str, float]:
        """Return the metrics of all rows, computed by all processes together. name: evaluation or test."""
        world = self.plan.world
        own = world.share_of(np.arange(len(tokens.rows)))

        def own_sums(batch_size: int) -> torch.Tensor:
            sums = torch.zeros(self.SUMS, dtype=torch.float64)
            for batch in batches_by_length(tokens.lengths[own], batch_size):
                sums += self.sums(tokens, own[batch]).cpu()
            return sums

        with evaluation_mode(self.model):
            size = self._evaluation_batch_size(tokens)
            sums = retry_with_half(own_sums, size, self.plan.device, smaller=lambda _: None)
            all_sums: list[float] = world.all_reduce(sums.to(self.plan.device)).cpu().tolist()
        if not np.isfinite(all_sums[0]):
            message = Sentence(
                gettext_noop(
                    "The model's output is not finite for some {name} rows. Lower training.learning_rate and start again."
                ),
                name=Sentence(name),
            )
            raise EvaluationNotFiniteError(message, field="training.learning_rate")
        return self.scores(all_sums)

    def _write_answers(self, split: Split, tokens: Tokens, most: int = MOST_ANSWERS) -> Answers:
        """Let the model answer the prompts of at most so many held-out conversations."""
        conversations = self.answered(split, tokens)
        with evaluation_mode(self.model), self.forward.generating():
            longest = max(1, tokens.longest_answer)
            writer: AnswerWriter = self.decoder_writer or TransformersWriter(self.forward.model, self.end_id)
            return write_answers(writer, self.template, conversations, longest, most)

    def _general_loss(self) -> float | None:
        """Return the loss on ordinary sentences, where they are wanted."""
        tokens = self._general_tokens()
        if tokens is None:
            return None
        with evaluation_mode(self.model):
            return general_loss(self.forward, tokens)

    def _base_general_loss(self) -> float | None:
        """Return the same of the base model, from an earlier run if there was one. Called while the model is the base model."""
        tokens = self._general_tokens()
        if tokens is None:
            return None
        return self.kept_figures("general", tokens, lambda: {"loss": general_loss(self.forward, tokens)})["loss"]

    def kept_figures(self, name: str, tokens: ConversationTokens, compute: Callable[[], Figures]) -> Figures:
        """Return figures of the base model on some tokens, from an earlier run if there was one; it must be the model now."""
        path = self.figures_path(name, tokens)
        with evaluation_mode(self.model):
            return load_or_compute(path, compute)

    def figures_path(self, name: str, tokens: ConversationTokens) -> Path | None:
        """Return the file that keeps figures of the base model on some tokens; None without a cache folder."""
        model = f"{self.hash_base_model()} {self.base_precision} {self.plan.device.type}"
        return figures_path(self.cache_dir, name, model, tokens)

    def _evaluation_batch_size(self, tokens: Tokens) -> int:
        """Return the configured batch size, or on a CPU the largest of its halves that fits into free memory."""
        size = self.config.training.per_device_eval_batch_size
        if self.plan.device.type != "cpu":
            return size
        longest = int(tokens.lengths.max(initial=1))
        return largest_fitting(size, lambda rows: self.memory.evaluation(rows, longest))
