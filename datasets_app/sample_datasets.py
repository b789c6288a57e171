"""Store the sample datasets that a new installation starts with."""

from typing import TYPE_CHECKING

from django.contrib.auth.models import Group

from accounts.models import Role, User
from accounts.permissions import grant_access
from datasets_app.models import Dataset
from datasets_app.versions.creation import describe_source, insert, prepare

if TYPE_CHECKING:
    from datasets_app.reading.stored_rows import Rows
    from datasets_app.reading.table import Table

ORDERS = "orders"  # a small language model learns it within minutes
_DESCRIPTIONS_AND_NOTES = {
    "tweets-en": (
        "English tweets, graded by people as negative, neutral or positive.",
        "Every row is kept as published, dirt included. How sure the graders were (column confidence) is not used.",
    ),
    "reviews-zh": (
        "Chinese reviews of books, hotels and goods, positive or negative.",
        "Every review is kept as published.",
    ),
    ORDERS: (
        "Orders in free text, each with the order as JSON: what a small assistant can learn.",
        "Made by a script. The phrases of the test rows occur in no other row.",
    ),
}


def load_samples(*, owner: User) -> None:
    """Store each sample dataset that is not there yet, and share it with every member and viewer."""
    from samples import SAMPLES  # polars takes half a second to import

    for name in (*SAMPLES, ORDERS):
        if Dataset.objects.filter(name=name).exists():
            continue
        table, rows = read_orders() if name == ORDERS else read_texts(name)
        description, note = _DESCRIPTIONS_AND_NOTES.get(name, ("", ""))
        source = describe_source(table, rows, f"sample {name}")
        version = insert(prepare(owner, name, rows, source=source, note=note, description=description))
        for role in (Role.MEMBER, Role.VIEWER):
            grant_access(version.dataset, to=Group.objects.get_or_create(name=role)[0])


def read_texts(name: str) -> "tuple[Table, Rows]":
    """Return a sample dataset of texts with labels."""
    from datasets_app.reading.columns import ColumnChoice
    from datasets_app.reading.rows import select_rows
    from datasets_app.reading.table import ROW, Table
    from samples import SAMPLES

    table = Table(SAMPLES[name]().with_row_index(ROW, offset=1).fill_null(""), "sample")
    return table, select_rows(table, ColumnChoice(("text",), ("label",)))


def read_orders() -> "tuple[Table, Rows]":
    """Return the sample dataset of conversations."""
    from datasets_app.reading.columns import ColumnChoice
    from datasets_app.reading.rows import select_rows
    from datasets_app.reading.table import ROW, Table
    from engine.data.label_columns import as_json
    from samples import orders

    frame = orders()
    table = Table(frame.with_columns(as_json(frame["messages"])).with_row_index(ROW, offset=1), "sample")
    splits = {name: name for name in frame["split"].unique()}
    choice = ColumnChoice(split="split", split_values=splits, kind="conversations", roles={"messages": ("messages",)})
    return table, select_rows(table, choice)
