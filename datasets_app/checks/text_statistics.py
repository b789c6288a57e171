"""What the texts of a version are like: their tokens with a base model, and the words that are typical of each label."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings

from datasets_app.conversations import load, text_of
from datasets_app.models import DataTask, Version
from datasets_app.progress import ReportProgress, ignore_progress
from engine import resolve_base_model
from engine.config_sections import SAMPLE_MODEL
from engine.models.plain_templates import USUAL, PlainTemplate
from engine.models.supported_types import heads_of
from engine.models.weight_files import read_config

if TYPE_CHECKING:
    import polars as pl

AT_ONCE = 50_000  # rows whose tokens are counted within about a second
MANY_TOKENS = 10**9  # more than any conversation has
_SAMPLE = 50_000  # rows that words are counted in
_SLICE = 10_000  # rows whose words are in memory at a time
_MOST_LABELS = 12
_MOST_WORDS = 12  # of a label
_FEWEST_ROWS = 3  # of a label that have the word
_LEAST_LIFT = 1.2  # how many times more frequent a word must be in the label than in all rows
_WORD = r"^\w*\p{L}\w+$|^\w+\p{L}\w*$"  # two characters or more, a letter among them
_BINS = 20


def words_by_label(frame: "pl.DataFrame") -> dict[str, list[list[Any]]]:
    """Return {label: [[word, rows], …]}: the words that the texts of a common label have more often than all texts.

    Ranked by the word's term in the Kullback-Leibler divergence of the label from the whole: p log(p / q), where p and q are
    the shares of rows with the word.
    """
    import polars as pl  # half a second, which pages need not wait for

    from engine.data.near_duplicates import extract_words, normalised_text

    sample = frame.gather_every(max(1, -(-frame.height // _SAMPLE))).select(normalised_text(), "label")
    label_sizes = sample["label"].value_counts(sort=True, name="label_rows")
    counted = []
    for part in sample.iter_slices(_SLICE):  # a row for each word of all texts would take 150 MB
        words = extract_words(part["text"]).filter(pl.col("word").str.contains(_WORD)).unique()
        words_with_label = part.select("label").with_row_index("at").join(words, on="at")
        counted.append(words_with_label.group_by("label", "word").len("rows"))
    counts = pl.concat(counted).group_by("label", "word").sum().join(label_sizes, on="label")
    p = pl.col("rows") / pl.col("label_rows")
    q = pl.col("rows").sum().over("word") / sample.height
    typical = counts.with_columns((p * (p / q).log()).alias("divergence")).filter(
        (pl.col("rows") >= _FEWEST_ROWS) & (p > _LEAST_LIFT * q)
    )
    ranked = typical.sort(["divergence", "word"], descending=[True, False]).group_by("label", maintain_order=True)
    top = ranked.head(_MOST_WORDS).group_by("label").agg("word", "rows")
    top_words = {
        label: [list(pair) for pair in zip(words, rows, strict=True)] for label, words, rows in top.iter_rows()
    }
    return {label: top_words[label] for label in label_sizes["label"].head(_MOST_LABELS) if label in top_words}


def reads_templates(version: Version) -> bool:
    """Return whether the tokens of a version depend on the chat template."""
    return version.task_type == "causal_lm" and version.kind != Version.Kind.TEXT


def tokens_key(version: Version, model: str, chat_template: PlainTemplate) -> str:
    """Return the key of counts in `Version.tokens`: the base model, and its plain chat template unless that is the usual one."""
    return f"{model}#{chat_template}" if reads_templates(version) and chat_template != USUAL else model


def token_lengths(version: Version, model: str, chat_template: PlainTemplate = USUAL) -> dict[int, int] | None:
    """Return {tokens of a text: rows} with the base model's tokenizer, special tokens included; None if not counted yet.

    chat_template: that a base model without one of its own gets.
    """
    lengths = version.tokens.get(tokens_key(version, model, chat_template))
    if not lengths:
        return None
    return {int(length): rows for length, rows in lengths.items()}  # JSON has no numbers as keys


def share_over(lengths: dict[int, int], limit: int) -> tuple[int, float]:
    """Return how many rows have more tokens than the limit, and their share of all rows."""
    over = sum(rows for length, rows in lengths.items() if length > limit)
    total = sum(lengths.values())
    return over, over / max(1, total)


def windows_per_text(version: Version, model: str, limit: int) -> float:
    """Return how many windows of `limit` tokens a plain text is cut into on average; about, if another model counted the tokens."""
    lengths = token_lengths(version, model) or token_lengths(version, SAMPLE_MODEL) or {1: 1}
    windows = sum(rows * max(1, -(-(length - 1) // (limit - 1))) for length, rows in lengths.items())
    return windows / sum(lengths.values())


def count_tokens(
    version: Version, model: str, chat_template: PlainTemplate = USUAL, report: ReportProgress = ignore_progress
) -> dict[int, int]:
    """Count {tokens of a text: rows} with the base model's own tokenizer. Raises BaseModelUnavailableError, ChatTemplateError."""
    import numpy as np
    import polars as pl  # half a second, which pages need not wait for

    from datasets_app.versions.canonical import SLICE
    from engine.data.token_counts import TokenCounter

    folder = resolve_base_model(model, settings.BASE_MODELS_DIR)
    texts = pl.read_parquet(version.path, columns=["text"])["text"]
    if version.task_type == "causal_lm" and "causal" in heads_of(read_config(folder, model)):
        return count_chat_tokens(texts.to_list(), folder, model, chat_template)
    counter = TokenCounter(folder, model)
    if version.is_chat:
        texts = pl.Series("text", [text_of(load(text)) for text in texts], dtype=pl.String)
    slices = []
    for start in range(0, texts.len(), SLICE):
        report("checking", start, texts.len())
        slices.append(counter(texts[start : start + SLICE]))
    lengths, rows = np.unique(np.concatenate(slices), return_counts=True)
    return dict(zip(lengths.tolist(), rows.tolist(), strict=True))


def count_chat_tokens(texts: list[str], folder: Path, model: str, chat_template: PlainTemplate) -> dict[int, int]:
    """Count {tokens of a conversation: rows} as a run does: with the model's chat template, without those that it refuses.

    Raises ChatTemplateError.
    """
    import numpy as np  # these are heavy, which pages need not wait for

    from engine.data.conversation_tokens import tokenise_conversations
    from engine.models.chat_template import ChatTemplate
    from engine.models.text_encoding import load_tokenizer

    template = ChatTemplate(load_tokenizer(folder, model), model, chat_template)
    tokens = tokenise_conversations(texts, template, MANY_TOKENS, skipped={})
    lengths, rows = np.unique(tokens.lengths, return_counts=True)
    return dict(zip(lengths.tolist(), rows.tolist(), strict=True))


def count_tokens_for_task(task: DataTask, report: ReportProgress) -> Callable[[], dict[str, Any]]:
    """Count the tokens for a task; return the function that stores them."""
    assert task.version
    model, chat_template = task.arguments["base_model"], task.arguments.get("chat_template", USUAL)
    lengths = count_tokens(task.version, model, chat_template, report)
    return partial(save_token_lengths, task.version, model, lengths, chat_template)


def save_token_lengths(
    version: Version, model: str, lengths: dict[int, int], chat_template: PlainTemplate = USUAL
) -> dict[str, Any]:
    """Store the counts beside those of other models, and return the result of the task that counted them.

    Call it in a transaction: the row is locked, so that two tasks at once do not overwrite each other's counts.
    """
    locked = Version.objects.select_for_update().get(pk=version.pk)
    locked.tokens[tokens_key(version, model, chat_template)] = {str(length): rows for length, rows in lengths.items()}
    locked.save(update_fields=["tokens"])
    return {
        "name": version.dataset.name,
        "version": version.number,
        "base_model": model,
        "chat_template": chat_template,
    }


def histogram(lengths: dict[int, int], limit: int) -> list[dict[str, int]]:
    """Return bins {from, to, rows} of token counts. One bin ends at the limit; the last one holds the longest percent."""
    total = sum(lengths.values())
    rows_so_far = 0
    percentile_99 = 1
    for length in sorted(lengths):
        rows_so_far += lengths[length]
        percentile_99 = length
        if rows_so_far >= total * 0.99:
            break
    is_cut = max(lengths) > limit
    end = max(percentile_99, limit) if is_cut else percentile_99  # no empty bins up to a limit that nothing reaches
    width = max(1, -(-end // _BINS))
    width = next(w for w in range(width, limit + width) if limit % w == 0 or w >= limit)
    last = end // width if is_cut else (end - 1) // width
    bins = [{"from": i * width + 1, "to": (i + 1) * width, "rows": 0} for i in range(last + 1)]
    for length, rows in lengths.items():
        bins[min((max(length, 1) - 1) // width, last)]["rows"] += rows
    bins[-1]["to"] = max(bins[-1]["to"], max(lengths))
    return bins
