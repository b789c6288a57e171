"""Compare the answers of exported files with those of the model that is served, text by text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.errors import ExportDiffersError, ExportRefusedError
from engine.export import ignore_progress
from engine.models.text_encoding import load_tokenizer
from engine.sentences import Sentence, gettext_noop
from engine.serve.answers import Answer, EntitiesPrediction, LabelsPrediction, Prediction
from engine.serve.batch import RowOutput
from engine.serve.model_files import ModelInfo
from engine.serve.predictor import LoadedModel, require_finite

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from engine.export import Format, ReportProgress

BATCH = 16  # rows
LARGEST_CHANGE = 1e-3  # of a probability, in fp32
SMALLEST_SHARE = 0.999  # of texts with the same labels, in fp32
RANDOM_TEXTS = 200
TEXT_OF_TWO = 2  # one text, or the two of a pair


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """How exported files answered some texts beside the served model.

    equal_answers: share of texts with the same label, labels or entities, 0 to 1; None for scores.
    largest_change: of a probability, or of a score in standard deviations of the training scores.
    """

    format: Format
    texts: int
    equal_answers: float | None
    largest_change: float

    @property
    def sentence(self) -> str:
        """Return the figures as a sentence."""
        if self.equal_answers is None:
            return Sentence(
                gettext_noop(
                    "Scores of {texts:,} texts changed by at most {largest_change:.2g} standard deviations of the training "
                    "scores."
                ),
                texts=self.texts,
                largest_change=self.largest_change,
            )
        return Sentence(
            gettext_noop(
                "{equal_answers:.2%} of {texts:,} texts have the same labels, and no probability changed by more than "
                "{largest_change:.2g}."
            ),
            equal_answers=self.equal_answers,
            texts=self.texts,
            largest_change=self.largest_change,
        )


@dataclass(frozen=True, slots=True)
class ComparedTexts:
    """Texts that both models answer; text_pairs: the second text of each if the model takes pairs."""

    texts: list[str]
    text_pairs: list[str] | None


def choose_texts(
    folder: Path, info: ModelInfo, texts: Sequence[str] | None, text_pairs: Sequence[str] | None
) -> ComparedTexts:
    """Return the given texts, or random ones. Raises ExportRefusedError if the given ones do not fit the model."""
    if texts is None:
        chosen = random_texts(load_tokenizer(folder, "the model"), info.max_length, TEXT_OF_TWO * RANDOM_TEXTS)
        return ComparedTexts(chosen[:RANDOM_TEXTS], chosen[RANDOM_TEXTS:] if info.text_pairs else None)
    if not texts:
        raise ExportRefusedError(
            Sentence(gettext_noop("There is no text to compare answers on. Give at least one, or none at all."))
        )
    if info.text_pairs != (text_pairs is not None) or (text_pairs is not None and len(text_pairs) != len(texts)):
        wanted = Sentence(gettext_noop("pairs of texts")) if info.text_pairs else Sentence(gettext_noop("single texts"))
        raise ExportRefusedError(
            Sentence(
                gettext_noop("The model was trained on {wanted}. Give such texts to compare answers on."), wanted=wanted
            )
        )
    return ComparedTexts(list(texts), None if text_pairs is None else list(text_pairs))


def random_texts(tokenizer: PreTrainedTokenizerBase, max_length: int, count: int) -> list[str]:
    """Return texts of random tokens, many of them short and some longer than the model reads; always the same."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    ids = np.array([number for number in range(len(tokenizer)) if number not in special])
    random = np.random.default_rng(0)
    lengths = np.exp(random.uniform(0, math.log(1.5 * max_length), count)).astype(int)
    return [str(tokenizer.decode(random.choice(ids, length).tolist())) for length in lengths]


def compare(
    served: LoadedModel,
    exported: LoadedModel,
    compared: ComparedTexts,
    format: Format,
    report_progress: ReportProgress = ignore_progress,
) -> ExportCheck:
    """Return how much the exported model's answers differ. Raises PredictionFailedError if one has no finite output."""
    expected, expected_numbers = _answer(
        served, compared, lambda done, total: report_progress("comparing", done, 2 * total)
    )
    actual, actual_numbers = _answer(
        exported, compared, lambda done, total: report_progress("comparing", total + done, 2 * total)
    )
    changes = np.abs(actual_numbers - expected_numbers)
    equal = [_choice(one) == _choice(other) for one, other in zip(actual, expected, strict=True)]
    share = None if served.info.task == "regression" else float(np.mean(equal))
    return ExportCheck(format, len(compared.texts), share, float(changes.max(initial=0.0)))


def require_equal(check: ExportCheck) -> None:
    """Raise ExportDiffersError if fp32 files answer otherwise than the model.

    A single text may have another label: its probability may lie on a threshold, or two of them may be equal.
    """
    different = 0 if check.equal_answers is None else round((1 - check.equal_answers) * check.texts)
    too_many = different > max(1, (1 - SMALLEST_SHARE) * check.texts)
    if check.largest_change <= LARGEST_CHANGE and not too_many:
        return
    raise ExportDiffersError(
        Sentence(
            gettext_noop(
                "The exported files do not answer as the model does, so they were removed. {figures} Allowed are "
                "{share:.1%} and {change:g}. Export to another format, or use the adapter with PEFT."
            ),
            figures=check.sentence,
            share=SMALLEST_SHARE,
            change=LARGEST_CHANGE,
        ),
        equal_answers=check.equal_answers,
        largest_change=check.largest_change,
    )


@torch.inference_mode()
def _answer(
    model: LoadedModel, compared: ComparedTexts, report_rows: Callable[[int, int], None]
) -> tuple[list[Answer], np.ndarray]:
    """Return the answers, and the numbers behind them: probabilities, or scores in standard deviations.

    report_rows: called with how many of all rows are computed.
    """
    encoded = model.encode(compared.texts, compared.text_pairs)
    rows = encoded.rows(model.adapter)
    by_length = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    computed: dict[int, RowOutput] = {}
    for start in range(0, len(rows), BATCH):
        report_rows(start, len(rows))
        batch = by_length[start : start + BATCH]
        computed |= zip(batch, model.model.outputs([rows[row] for row in batch]), strict=True)
    outputs = [computed[row] for row in range(len(rows))]
    require_finite(outputs)
    answers = encoded.answers(outputs, model.info)
    if model.info.task == "token_classification":
        return answers, encoded.logits(outputs).softmax(-1).numpy()
    if model.info.task == "regression":
        return answers, encoded.logits(outputs).numpy()  # scores are standardised for training
    classified = [answer for answer in answers if isinstance(answer, Prediction | LabelsPrediction)]
    return answers, np.array([answer.probabilities for answer in classified])


def _choice(answer: Answer) -> Any:
    """Return what an answer says, without its numbers."""
    if isinstance(answer, Prediction):
        return answer.label
    if isinstance(answer, LabelsPrediction):
        return answer.chosen
    if isinstance(answer, EntitiesPrediction):
        return [(entity.start, entity.end, entity.label) for entity in answer.entities]
    return None
