"""Which labels are probably wrong: what a row's label says against what a quick model predicts that never saw the row.

The model is a linear probe on two views of the text, the base model's embedding and its bag of tokens and token pairs,
in five folds by the text's hash, mixed with the vote of the nearest texts. Rows are ranked by the probability of the
label that they have (self-confidence: Northcutt et al., arXiv 1911.00068). Measured in docs/data.md.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import override

from audit.services import record
from datasets_app import wording
from datasets_app.models import DataTask, Finding, Suspect, Version
from engine import resolve_base_model
from engine.config import SAMPLE_MODEL
from engine.data.linear_probe import FOLDS, held_out_probabilities
from engine.data.near_duplicates import text_hash
from web.errors import Invalid
from work.paths import token_cache_dir

if TYPE_CHECKING:
    from datasets_app.jobs import Told

MOST_ROWS = 200_000
WORST, MOST_SUSPECTS = 0.1, 5000
EXAMPLES = 5


def search(task: DataTask, told: "Told") -> Callable[[], dict[str, Any]]:
    """The work of a task that looks for wrong labels."""
    assert task.version
    frame = pl.read_parquet(task.version.path)
    if frame.height > MOST_ROWS:
        message = _("Wrong labels are looked for in at most %(most)s rows; this version has %(rows)s.")
        raise Invalid(message % {"most": f"{MOST_ROWS:,}", "rows": f"{frame.height:,}"})
    model = task.arguments.get("base_model", SAMPLE_MODEL)
    found = rank(frame, model, told)
    return partial(_record, task, found, model)


def rank(frame: pl.DataFrame, model: str, told: Callable[..., None]) -> pl.DataFrame:
    """Rows from the likeliest wrong to the safest: row, text, label, predicted, given_probability, predicted_probability."""
    from engine.data.embeddings import embed

    unique = frame.unique(["text", "label"], keep="first", maintain_order=True)
    texts, labels = unique["text"].to_list(), sorted(unique["label"].unique())
    base = resolve_base_model(model, settings.BASE_MODELS_DIR)
    told("embedding", 0, len(texts))
    tokens, vectors = embed(
        texts,
        base=base,
        name=model,
        cache_dir=token_cache_dir(),
        on_done=lambda done: told("embedding", done, len(texts)),
    )
    given = np.array([labels.index(label) for label in unique["label"]])
    folds = np.array([text_hash(text) % FOLDS for text in texts])
    told("comparing", 0, FOLDS)
    probabilities = held_out_probabilities(
        tokens, vectors, given, folds, on_done=lambda done: told("comparing", done, FOLDS)
    )
    best, rows = probabilities.argmax(1), np.arange(len(given))
    return (
        unique.select("row", "text", "label")
        .with_columns(
            pl.Series("predicted", [labels[i] for i in best]),
            pl.Series("given_probability", probabilities[rows, given]),
            pl.Series("predicted_probability", probabilities[rows, best]),
        )
        .sort("given_probability", "row")
    )


def doubtful(ranked: pl.DataFrame) -> pl.DataFrame:
    """Confident learning's off-diagonal: predicted otherwise, and as surely as rows of that label usually are."""
    usual = ranked.group_by("label").agg(pl.col("given_probability").mean().alias("usual"))
    sure = ranked.join(usual, left_on="predicted", right_on="label", how="left", maintain_order="left")
    return sure.filter((pl.col("predicted") != pl.col("label")) & (pl.col("predicted_probability") >= pl.col("usual")))


def _record(task: DataTask, ranked: pl.DataFrame, model: str) -> dict[str, Any]:
    """Suspects and finding; what people have decided on rows of this version before stays decided."""
    version = task.version
    assert version
    worst = ranked.filter(pl.col("predicted") != pl.col("label")).head(min(MOST_SUSPECTS, -(-ranked.height // 10)))
    known = {s.row: s for s in version.suspects.filter(decision__isnull=False)}
    version.suspects.all().delete()
    Suspect.objects.bulk_create(_suspect(version, rank, line, known) for rank, line in enumerate(worst.to_dicts(), 1))
    count = doubtful(ranked).height
    if count:
        with override("en"):
            message = wording.sentence("label_noise", count)
        shown = [
            {key: line[key] for key in ("row", "label", "predicted")} | {"text": line["text"][:200]}
            for line in worst.head(EXAMPLES).to_dicts()
        ]
        fields = {"severity": "warning", "count": count, "message": message, "examples": shown}
        Finding.objects.update_or_create(version=version, code="label_noise", defaults=fields)
    else:
        version.findings.filter(code="label_noise").delete()
    record("dataset.noise", user=task.owner, obj=version, doubtful=count, base_model=model)
    return {"name": version.dataset.name, "version": version.number, "doubtful": count, "suspects": worst.height}


def _suspect(version: Version, rank: int, line: dict[str, Any], known: dict[int, Suspect]) -> Suspect:
    before = known.get(line["row"])
    return Suspect(
        version=version,
        rank=rank,
        row=line["row"],
        text=line["text"][:1000],
        label=line["label"][:300],
        predicted=line["predicted"][:300],
        given_probability=line["given_probability"],
        predicted_probability=line["predicted_probability"],
        decision=before.decision if before else None,
        decided_by=before.decided_by if before else None,
    )
