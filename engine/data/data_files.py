"""Find the data file of a run on the command line, which knows files and sample datasets only."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.errors import DataUnreadableError
from engine.sentences import Sentence, gettext_noop
from engine.storage import write_file

CHAT_SAMPLES = ("orders", "order-preferences")  # the sample datasets of conversations and of preferences


def check_data_name(name: str) -> None:
    """Raise DataUnreadableError unless `name` is a data file or a sample dataset."""
    from samples import SAMPLES  # deferred: a run on other data needs no samples

    if not Path(name).is_file() and name not in SAMPLES and name not in CHAT_SAMPLES:
        raise DataUnreadableError(
            Sentence(
                gettext_noop(
                    "There is no data file and no sample dataset named {name}. Samples: {samples}. Give a file with --data."
                ),
                name=name,
                samples=", ".join([*SAMPLES, *CHAT_SAMPLES]),
            ),
            field="data.dataset_name",
        )


def find_data_file(name: str, cache: Path) -> Path:
    """Return the path of a data file or of a sample dataset; only the platform knows stored datasets and hub ids.

    A sample is written to the cache as Parquet, without exact duplicates and without rows whose annotators disagreed.
    Raises DataUnreadableError if there is neither.
    """
    # Deferred: a file needs neither the samples nor polars.
    import polars as pl

    from samples import SAMPLES, order_preferences, orders

    if Path(name).is_file():
        return Path(name)
    check_data_name(name)
    if name in CHAT_SAMPLES:
        rows = orders() if name == "orders" else order_preferences()
    else:
        rows = SAMPLES[name]()
        if "confidence" in rows.columns:
            rows = rows.filter(pl.col("confidence") >= 0.6)
        rows = rows.unique("text", keep="first", maintain_order=True).select("text", "label")
    # The content is part of the name, so that a newer sample package does not find an older file.
    content_hash = hashlib.sha256(rows.write_ndjson().encode()).hexdigest()[:16]
    path = cache / "samples" / f"{name}-{content_hash}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, rows.write_parquet)
    return path
