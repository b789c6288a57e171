"""What a version's texts are like: their tokens with a base model, and the words that mark each label."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings

from datasets_app.models import DataTask, Version
from engine import resolve_base_model

if TYPE_CHECKING:
    import polars as pl

    from datasets_app.jobs import Told

AT_ONCE = 50_000  # rows whose tokens are counted within about a second
_SAMPLE = 50_000  # rows that words are counted in
_MOST_LABELS, _MOST_WORDS, _FEWEST = 12, 12, 3
_TELLING = 1.2  # times the share of rows at large
_WORD = r"^\w*\p{L}\w+$|^\w+\p{L}\w*$"  # two characters or more, a letter among them
_BINS = 32


def words(frame: "pl.DataFrame") -> dict[str, list[list[Any]]]:
    """For each of the commonest labels the words that its texts have more often than texts at large: [word, rows].

    Ranked by the word's part of the divergence between label and whole: p log(p / q), p and q shares of rows.
    """
    import polars as pl  # half a second that pages must not wait for

    from engine.data.near_duplicates import same_text, words_of

    sample = frame.gather_every(max(1, -(-frame.height // _SAMPLE))).select(same_text(), "label")
    told = words_of(sample["text"]).filter(pl.col("word").str.contains(_WORD)).unique()
    said = sample.select("label").with_row_index("at").join(told, on="at")
    rows = sample["label"].value_counts(sort=True, name="of_label")
    found = said.group_by("label", "word").len("rows").join(rows, on="label")
    p, q = pl.col("rows") / pl.col("of_label"), pl.col("rows").sum().over("word") / sample.height
    ranked = found.with_columns((p * (p / q).log()).alias("marks")).filter(
        (pl.col("rows") >= _FEWEST) & (p > _TELLING * q)
    )
    best = ranked.sort(["marks", "word"], descending=[True, False]).group_by("label", maintain_order=True)
    top = best.head(_MOST_WORDS).group_by("label").agg("word", "rows")
    marks = {label: [list(pair) for pair in zip(some, n, strict=True)] for label, some, n in top.iter_rows()}
    return {label: marks[label] for label in rows["label"].head(_MOST_LABELS) if label in marks}


def tokens(version: Version, model: str) -> dict[int, int] | None:
    """{tokens of a text: rows} by that base model's tokenizer, special tokens included; None: not counted yet."""
    known = version.tokens.get(model)
    return {int(length): rows for length, rows in known.items()} if known else None


def share_over(lengths: dict[int, int], limit: int) -> tuple[int, float]:
    """Rows that have more tokens than the limit, and their share of all."""
    over = sum(rows for length, rows in lengths.items() if length > limit)
    return over, over / max(1, sum(lengths.values()))


def count_tokens(version: Version, model: str, told: Callable[..., None] = lambda *done: None) -> dict[int, int]:
    """Count with the base model's own tokenizer. Raises BaseModelUnavailable where the model cannot be had."""
    import numpy as np
    import polars as pl

    from datasets_app.versions.canonical import SLICE
    from engine.data.token_counts import TokenCounter

    counter = TokenCounter(resolve_base_model(model, settings.BASE_MODELS_DIR), model)
    texts = pl.read_parquet(version.path, columns=["text"])["text"]
    parts = []
    for start in range(0, texts.len(), SLICE):
        told("checking", start, texts.len())
        parts.append(counter(texts[start : start + SLICE]))
    lengths, rows = np.unique(np.concatenate(parts), return_counts=True)
    return dict(zip(lengths.tolist(), rows.tolist(), strict=True))


def carry_out(task: DataTask, told: "Told") -> Callable[[], dict[str, Any]]:
    """The work of a task that counts tokens."""
    assert task.version
    model = task.arguments["base_model"]
    return partial(_keep, task.version, model, count_tokens(task.version, model, told))


def _keep(version: Version, model: str, lengths: dict[int, int]) -> dict[str, Any]:
    keep_tokens(version, model, lengths)
    return {"name": version.dataset.name, "version": version.number, "base_model": model}


def keep_tokens(version: Version, model: str, lengths: dict[int, int]) -> None:
    """Write them beside those of other models."""
    locked = Version.objects.select_for_update().get(pk=version.pk)
    locked.tokens[model] = {str(length): rows for length, rows in lengths.items()}
    locked.save(update_fields=["tokens"])


def histogram(lengths: dict[int, int], limit: int) -> list[dict[str, int]]:
    """Rows by tokens, in bins that begin anew behind the limit; the last one holds the longest percent."""
    total, so_far, usual = sum(lengths.values()), 0, 1
    for length in sorted(lengths):
        so_far += lengths[length]
        usual = length
        if so_far >= total * 0.99:
            break
    width = max(1, -(-max(usual, 1) // _BINS))
    width = next(w for w in range(width, limit + width) if limit % w == 0 or w >= limit)
    last = max(usual, limit) // width
    bins = [{"from": i * width + 1, "to": (i + 1) * width, "rows": 0} for i in range(last + 1)]
    for length, rows in lengths.items():
        bins[min((max(length, 1) - 1) // width, last)]["rows"] += rows
    bins[-1]["to"] = max(bins[-1]["to"], max(lengths))
    return bins
