"""Check that a saved model answers raw texts as it did in its last evaluation: when it is served, and in plain PEFT.

Training knows token ids in padded batches, serving knows texts. Whatever differs between them (tokenizer, truncation,
padding, precision, files) shows here, before the run counts as finished.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.data.entity_windows import Windows
from engine.data.labelled_rows import Split
from engine.data.tokens import Tokens
from engine.devices import DevicePlan
from engine.errors import CheckpointDamagedError, EngineError, SavedModelDiffersError
from engine.events import Notice
from engine.memory_limits import free_bytes
from engine.models.forward import plain_forward
from engine.models.loading import (
    attach_adapter,
    cast_head_inputs,
    load_classifier,
    load_classifier_to_serve,
)
from engine.models.text_encoding import load_tokenizer, set_padding_id
from engine.out_of_memory import MARGIN, is_out_of_memory
from engine.sentences import Sentence, gettext_noop
from engine.serve.encoded import encode
from engine.serve.errors import ModelUnreadableError, PredictionFailedError
from engine.serve.model_cache import MIB
from engine.serve.model_files import fp32_bytes, read_info
from engine.serve.predictor import Predictor
from engine.serve.tokenizer import ServedTokenizer
from engine.storage import verify_folder

ROWS = 8
IN_PEFT = gettext_noop("in plain PEFT")


class Tolerance(NamedTuple):
    """How far a saved model's outputs may be from the expected ones: at most in any row, and in the median of the rows."""

    most: float
    median: float


# Of a row's largest logit, or of 1 if that is larger.
FP32_TOLERANCE = Tolerance(2e-3, 2e-3)
# Between an evaluation in bf16 or int8 and serving in fp32. Rounding has a long tail, which no good run may be refused for: over 180
# texts of three runs the median was 0.003, one in ten was 0.03 off, and the worst 0.16. A wrong model is far off for most texts.
BF16_TOLERANCE = Tolerance(0.5, 0.05)


@dataclass(frozen=True, slots=True)
class EvaluatedTexts:
    """Texts as the data have them, each with its token ids in training and its logits in the last evaluation.

    text_pairs: the second text of each, if there is one. types: of the tokens, or None for each text; see engine.data.tokens.
    logits: (texts, outputs), in fp32.
    windows: for token classification, those of the texts. `ids` and `types` are then those of windows, and `logits` those of
        the tokens that count: (counted tokens, outputs).
    """

    texts: list[str]
    text_pairs: list[str] | None
    ids: list[list[int]]
    types: list[list[int] | None]
    logits: Tensor
    windows: Windows | None = None

    def shortest_and_longest(self) -> list[int]:
        """Return the indexes of the texts with the fewest and with the most tokens."""
        lengths = np.array([len(ids) for ids in self.ids])
        if self.windows is not None:
            lengths = np.diff(self.windows.text_starts)
        return [int(lengths.argmin()), int(lengths.argmax())]

    def logit_rows(self, texts: list[int]) -> np.ndarray:
        """Return the rows of `logits` that belong to some of the texts, text by text."""
        if self.windows is None:
            return np.array(texts)
        starts = self.windows.text_starts
        return np.concatenate([np.arange(starts[i], starts[i + 1]) for i in texts])

    def first_ids(self) -> list[list[int]]:
        """Return the token ids of each text, or of its first window."""
        if self.windows is None:
            return self.ids
        return [self.ids[first] for first in np.unique(self.windows.rows, return_index=True)[1]]

    def served(self, predictor: Predictor, folder: Path, rows: list[int]) -> Tensor:
        """Return the served model's logits of some of the texts, computed together: (rows, outputs)."""
        pairs = None if self.text_pairs is None else [self.text_pairs[i] for i in rows]
        return predictor.logits(folder, [self.texts[i] for i in rows], pairs)


@dataclass(frozen=True, slots=True)
class SavedModelCheck:
    """What was compared. difference: the largest one of two logits. served: False where serving did not fit into memory."""

    rows: int
    difference: float
    served: bool
    notices: list[Notice] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """Return the entry of metrics.json."""
        return {"rows": self.rows, "difference": self.difference, "served": self.served}


def select_texts(split: Split, tokens: Tokens, logits: np.ndarray) -> EvaluatedTexts:
    """Return the shortest and the longest text of an evaluation and a few more. logits: (texts, outputs).

    Raises SavedModelDiffersError if there is no text with finite logits.
    """
    rows = spread_by_length(np.flatnonzero(np.isfinite(logits).all(axis=1)), tokens.lengths, split.texts)
    places = [slice(tokens.offsets[row], tokens.offsets[row + 1]) for row in rows]
    types = tokens.types
    return EvaluatedTexts(
        texts=[split.texts[row] for row in rows],
        text_pairs=None if split.text_pairs is None else [split.text_pairs[row] for row in rows],
        ids=[tokens.ids[place].tolist() for place in places],
        types=[None if types is None else types[place].tolist() for place in places],
        logits=torch.from_numpy(logits[rows]).float(),
    )


def spread_by_length(rows: np.ndarray, lengths: np.ndarray, texts: Sequence[str]) -> list[int]:
    """Return the shortest and the longest of some texts and a few more, as their rows.

    rows: of texts with finite logits; lengths: tokens of all texts. Raises SavedModelDiffersError if there is none.
    """
    if not len(rows):
        raise saved_model_differs(
            Sentence(gettext_noop("the evaluation gave no finite output for any text")), "training.learning_rate"
        )
    # Of texts with as many tokens, the one with the most characters was truncated.
    by_length = sorted(rows.tolist(), key=lambda row: (lengths[row], len(texts[row])))
    return list(dict.fromkeys([by_length[0], by_length[-1], *rows.tolist()]))[:ROWS]


def check_saved_model(folder: Path, base: Path, plan: DevicePlan, evaluated: EvaluatedTexts) -> SavedModelCheck:
    """Load the final model in `folder` over the base model in `base`, and compare it with its evaluation.

    Raises CheckpointDamagedError if a file is not as it was written, else SavedModelDiffersError.
    """
    verify_saved_files(folder)
    _compare_tokens(folder, evaluated)
    # bf16 rounds the evaluation, not what is served.
    tolerance = BF16_TOLERANCE if plan.dtype == torch.bfloat16 else FP32_TOLERANCE
    # It is served in fp32, for which memory may not suffice: training may have used less per weight. With quantisation, the
    # evaluation computed with rounded weights, which serving does not have.
    free = torch.cuda.mem_get_info(plan.device)[0] if plan.device.type == "cuda" else free_bytes()
    served = plan.quantization is None and MARGIN * (fp32_bytes(base) + fp32_bytes(folder)) <= free
    if not served:
        plain = _plain_logits(folder, base, plan, evaluated, served)
        difference = _compare(IN_PEFT, plain, evaluated.logits, tolerance, plan)
        return SavedModelCheck(len(evaluated.texts), difference, served, [])
    expected = _served_logits(folder, base, plan, evaluated)
    difference = _compare(gettext_noop("when it is served"), expected, evaluated.logits, tolerance, plan)
    plain = _plain_logits(folder, base, plan, evaluated, served)
    differs = _relative_differences(plain, expected) > FP32_TOLERANCE.most
    differing = [bool(differs[evaluated.logit_rows([i])].any()) for i in range(len(evaluated.texts))]
    if all(differing):  # a single text may be odd, which is no reason to refuse a model that is served well
        _compare(IN_PEFT, plain, expected, FP32_TOLERANCE, plan)
    notices = _program_notices(folder, evaluated, differing)
    return SavedModelCheck(len(evaluated.texts), difference, served, notices)


def verify_saved_files(folder: Path) -> None:
    """Raise CheckpointDamagedError if a file of the final model is not as it was written."""
    try:
        verify_folder(folder)
    except CheckpointDamagedError as error:
        message = Sentence(
            gettext_noop(
                "The saved model was not registered: {error} The checkpoints are kept; resume the run to save it again."
            ),
            error=error.message,
        )
        raise CheckpointDamagedError(message, **error.facts) from error


def _compare_tokens(folder: Path, evaluated: EvaluatedTexts) -> None:
    """Raise SavedModelDiffersError if the tokenizer that is served gives other token ids than training had."""
    info = read_info(folder)
    tokenizer = ServedTokenizer(folder)
    rows = encode(tokenizer, info, evaluated.texts, evaluated.text_pairs).rows(adapter=None)
    if len(rows) != len(evaluated.ids):
        difference = f"{len(rows)} windows instead of {len(evaluated.ids)}"
        raise saved_model_differs(
            Sentence(
                gettext_noop("its tokenizer reads a text otherwise than the training did ({difference})"),
                difference=difference,
            ),
            "model.name",
        )
    for row, expected, types in zip(rows, evaluated.ids, evaluated.types, strict=True):
        ids = row.ids
        if ids == expected and row.types == types:
            continue
        if len(ids) != len(expected):
            difference = f"{len(ids)} tokens instead of {len(expected)}"
        else:
            different = (i for i, pair in enumerate(zip(ids, expected, strict=True)) if pair[0] != pair[1])
            position = next(different, None)
            difference = "other token types"
            if position is not None:
                difference = f"another token at position {position + 1} of {len(ids)}"
        raise saved_model_differs(
            Sentence(
                gettext_noop("its tokenizer reads a text otherwise than the training did ({difference})"),
                difference=difference,
            ),
            "model.name",
        )


def _program_notices(folder: Path, evaluated: EvaluatedTexts, differing: list[bool]) -> list[Notice]:
    """Return a notice if the program for plain PEFT answers some texts otherwise than serving does.

    differing: for each text, whether the model of transformers gives other logits for the same tokens.
    """
    max_length = read_info(folder).max_length
    tokenizer = load_tokenizer(folder, "the saved model")
    encoded = tokenizer(evaluated.texts, evaluated.text_pairs, truncation=True, max_length=max_length, verbose=False)[
        "input_ids"
    ]
    same_tokens = [ids == expected for ids, expected in zip(encoded, evaluated.first_ids(), strict=True)]
    count = sum(not same or differs for same, differs in zip(same_tokens, differing, strict=True))
    if not count:
        return []
    message = Sentence(
        gettext_noop(
            "The program for plain PEFT answers {count} of {texts} texts otherwise than training and serving do: "
            "transformers treats special tokens or the length of a text in another way."
        ),
        count=count,
        texts=len(encoded),
    )
    return [Notice("warning", "program_differs", message)]


def _served_logits(folder: Path, base: Path, plan: DevicePlan, evaluated: EvaluatedTexts) -> Tensor:
    """Return the logits as EvaluatedTexts has them, of each text served alone.

    Raises SavedModelDiffersError if the shortest text gets another answer beside the longest one, which pads it.
    """
    predictor = Predictor(base=base, device=str(plan.device), memory_mb=sys.maxsize // MIB)
    try:
        alone = torch.cat([evaluated.served(predictor, folder, [i]) for i in range(len(evaluated.texts))])
        pair = evaluated.shortest_and_longest()
        together = evaluated.served(predictor, folder, pair)
    except (ModelUnreadableError, PredictionFailedError) as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise error.__cause__ from None
        raise saved_model_differs(
            Sentence(gettext_noop("it can't be served: {error}"), error=error.message), "model.name"
        ) from error
    _compare(
        gettext_noop("when a text is served beside a longer one"),
        together,
        alone[evaluated.logit_rows(pair)],
        FP32_TOLERANCE,
        plan,
    )
    return alone


@torch.inference_mode()
def _plain_logits(folder: Path, base: Path, plan: DevicePlan, evaluated: EvaluatedTexts, served: bool) -> Tensor:
    """Return the logits as EvaluatedTexts has them, by transformers and PEFT, in fp32 or, if not `served`, in the run's precision."""
    info = read_info(folder)
    if served:
        base_model, _missing = load_classifier_to_serve(base, info.outputs, info.head)
    else:
        outputs = [str(output) for output in range(info.outputs)]
        base_model, _new_modules = load_classifier(base, info.base_model, outputs, plan, info.head)
    padding_id = ServedTokenizer(folder).padding_id
    if padding_id is not None:
        set_padding_id(base_model, padding_id)  # a decoder looks for the last token that is no padding
    model = cast_head_inputs(attach_adapter(base_model, folder)).to(plan.device).eval()
    forward = plain_forward(model, info.max_length)
    rows = []
    for ids, types in zip(evaluated.ids, evaluated.types, strict=True):
        input_ids = torch.tensor([ids], device=plan.device)
        token_types = None if types is None else torch.tensor([types], device=plan.device)
        logits = forward(input_ids, torch.ones_like(input_ids), token_types).float().cpu()
        rows.append(logits.flatten(0, -2))
    all_rows = torch.cat(rows)
    return all_rows if evaluated.windows is None else all_rows[torch.from_numpy(evaluated.windows.counted)]


def _compare(where: str, actual: Tensor, expected: Tensor, tolerance: Tolerance, plan: DevicePlan) -> float:
    """Return the largest difference of two logits; raise SavedModelDiffersError if they exceed the tolerance."""
    largest = float((actual - expected).abs().max())
    if exceeds(_relative_differences(actual, expected), tolerance):
        field = "model.name" if plan.precision == "fp32" else "training.precision"
        raise saved_model_differs(
            Sentence(
                gettext_noop("{where}, its logits are up to {largest:.3g} off"), where=Sentence(where), largest=largest
            ),
            field,
            difference=largest,
        )
    return largest


def _relative_differences(actual: Tensor, expected: Tensor) -> Tensor:
    """Return the largest difference in each row of logits as a share of its largest logit, infinite if one is no number: (rows,)."""
    scale = expected.abs().amax(dim=1).clamp(min=1.0)
    return ((actual - expected).abs().amax(dim=1) / scale).nan_to_num(nan=torch.inf)


def exceeds(differences: Tensor, tolerance: Tolerance) -> bool:
    """Return whether any of some differences, or their median, is larger than the tolerance: (rows,)."""
    return bool(differences.max() > tolerance.most or differences.median() > tolerance.median)


def saved_model_differs(reason: str, field: str, **facts: Any) -> EngineError:
    """Return the error for a saved model that is not the evaluated one, though its files are as they were written."""
    is_precision = field == "training.precision"
    remedy = (
        gettext_noop("Set training.precision to fp32") if is_precision else gettext_noop("Choose another base model")
    )
    return SavedModelDiffersError(
        Sentence(
            gettext_noop(
                "The saved model does not answer as its evaluation did, so it was not registered: {reason}. The "
                "checkpoints are kept, but a resumed run would end in the same way. {remedy} and train again."
            ),
            reason=reason,
            remedy=Sentence(remedy),
        ),
        field=field,
        **facts,
    )
