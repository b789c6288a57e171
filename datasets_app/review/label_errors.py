"""Find rows whose label is probably wrong: compare each label with the prediction of a quick model that never saw the row.

The model is a linear probe on two views of the text, the base model's embedding and its bag of tokens and token pairs,
in five folds by the text's hash, mixed with the vote of the nearest texts. Rows are ranked by the probability of the
label that they have (self-confidence: Northcutt et al., arXiv 1911.00068). Measured in docs/data.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import override

from audit.services import record
from datasets_app import descriptions
from datasets_app.models import DataTask, Finding, Suspect, Version
from datasets_app.progress import ReportProgress
from engine import resolve_base_model
from engine.config_sections import SAMPLE_MODEL
from engine.data.near_duplicates import hash_text
from web.errors import InvalidError
from work.paths import token_cache_dir

MOST_ROWS = 200_000
MOST_SUSPECTS = 5000
EXAMPLES = 5


def search_wrong_labels(task: DataTask, report: ReportProgress) -> Callable[[], dict[str, Any]]:
    """Rank the rows of a task's version; return the function that stores the suspects."""
    assert task.version
    frame = pl.read_parquet(task.version.path)
    if frame.height > MOST_ROWS:
        message = _("Wrong labels can be searched for in at most %(most)s rows; this version has %(rows)s.")
        raise InvalidError(message % {"most": f"{MOST_ROWS:,}", "rows": f"{frame.height:,}"})
    model = task.arguments.get("base_model", SAMPLE_MODEL)
    return partial(store_suspects, task, rank(frame, model, report), model)


def rank(frame: pl.DataFrame, model: str, report: ReportProgress) -> pl.DataFrame:
    """Return the rows, the most probably wrong first.

    Columns: row, text, label, predicted, given_probability, predicted_probability.
    """
    # Imported here because they import torch and scipy, which the other tasks on data do without.
    from engine.data.embeddings import embed
    from engine.data.linear_probe import FOLDS, held_out_probabilities

    unique = frame.unique(["text", "label"], keep="first", maintain_order=True)
    texts = unique["text"].to_list()
    labels = sorted(unique["label"].unique())
    report("embedding", 0, len(texts))
    tokens, vectors = embed(
        texts,
        base=resolve_base_model(model, settings.BASE_MODELS_DIR),
        name=model,
        cache_dir=token_cache_dir(),
        on_done=lambda done: report("embedding", done, len(texts)),
    )
    given = np.array([labels.index(label) for label in unique["label"]])
    folds = np.array([hash_text(text) % FOLDS for text in texts])
    report("comparing", 0, FOLDS)
    probabilities = held_out_probabilities(
        tokens, vectors, given, folds, on_done=lambda done: report("comparing", done, FOLDS)
    )
    predicted = probabilities.argmax(1)
    rows = np.arange(len(given))
    return (
        unique.select("row", "text", "label")
        .with_columns(
            pl.Series("predicted", [labels[i] for i in predicted]),
            pl.Series("given_probability", probabilities[rows, given]),
            pl.Series("predicted_probability", probabilities[rows, predicted]),
        )
        .sort("given_probability", "row")
    )


def confident_errors(ranked: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that another label is predicted for, as confidently as for the average row of that label.

    These are the off-diagonal counts of confident learning (Northcutt et al.).
    """
    thresholds = ranked.group_by("label").agg(pl.col("given_probability").mean().alias("threshold"))
    rows = ranked.join(thresholds, left_on="predicted", right_on="label", how="left", maintain_order="left")
    is_error = (pl.col("predicted") != pl.col("label")) & (pl.col("predicted_probability") >= pl.col("threshold"))
    return rows.filter(is_error)


def store_suspects(task: DataTask, ranked: pl.DataFrame, model: str) -> dict[str, Any]:
    """Replace the suspects and the finding of the version; what people have decided before stays decided.

    Suspects are the worst tenth of the rows, at most, that another label is predicted for.
    """
    version = task.version
    assert version
    tenth = -(-ranked.height // 10)
    rows = ranked.filter(pl.col("predicted") != pl.col("label")).head(min(MOST_SUSPECTS, tenth)).to_dicts()
    decided = {suspect.row: suspect for suspect in version.suspects.filter(decision__isnull=False)}
    suspects = []
    for number, row in enumerate(rows, 1):
        earlier = decided.get(row["row"])
        suspect = Suspect(
            version=version,
            rank=number,
            row=row["row"],
            text=row["text"][:1000],
            label=row["label"][:300],
            predicted=row["predicted"][:300],
            given_probability=row["given_probability"],
            predicted_probability=row["predicted_probability"],
            decision=earlier.decision if earlier else None,
            decided_by=earlier.decided_by if earlier else None,
        )
        suspects.append(suspect)
    version.suspects.all().delete()
    Suspect.objects.bulk_create(suspects)
    count = confident_errors(ranked).height
    replace_finding(version, count, rows[:EXAMPLES])
    record("dataset.noise", user=task.owner, obj=version, doubtful=count, base_model=model)
    return {"name": version.dataset.name, "version": version.number, "doubtful": count, "suspects": len(rows)}


def replace_finding(version: Version, count: int, suspects: list[dict[str, Any]]) -> None:
    """Set the finding about wrong labels in the report of the version, or remove it if there are none."""
    if not count:
        version.findings.filter(code="label_noise").delete()
        return
    with override("en"):  # the API's sentence is English; pages translate by the code
        message = descriptions.describe_finding("label_noise", count)
    examples = [
        {"row": row["row"], "label": row["label"], "predicted": row["predicted"], "text": row["text"][:200]}
        for row in suspects
    ]
    fields = {"severity": "warning", "count": count, "message": message, "examples": examples}
    Finding.objects.update_or_create(version=version, code="label_noise", defaults=fields)
