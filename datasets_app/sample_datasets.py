"""Store the sample datasets that a new installation starts with."""

from django.contrib.auth.models import Group

from accounts.models import Role, User
from accounts.permissions import grant_access
from datasets_app.models import Dataset
from datasets_app.versions.creation import describe_source, insert, prepare

_DESCRIPTIONS_AND_NOTES = {
    "tweets-en": (
        "English tweets, graded by people as negative, neutral or positive.",
        "Every row is kept as published, dirt included. How sure the graders were (column confidence) is not used.",
    ),
    "reviews-zh": (
        "Chinese reviews of books, hotels and goods, positive or negative.",
        "Every review is kept as published.",
    ),
}


def load_samples(*, owner: User) -> None:
    """Store each sample dataset that is not there yet, and share it with every member and viewer."""
    from datasets_app.reading.columns import ColumnChoice  # polars takes half a second to import
    from datasets_app.reading.rows import select_rows
    from datasets_app.reading.table import ROW, Table
    from samples import SAMPLES

    for name, load_frame in SAMPLES.items():
        if Dataset.objects.filter(name=name).exists():
            continue
        table = Table(load_frame().with_row_index(ROW, offset=1).fill_null(""), "sample")
        rows = select_rows(table, ColumnChoice(("text",), ("label",)))
        description, note = _DESCRIPTIONS_AND_NOTES.get(name, ("", ""))
        source = describe_source(table, rows, f"sample {name}")
        version = insert(prepare(owner, name, rows, source=source, note=note, description=description))
        for role in (Role.MEMBER, Role.VIEWER):
            grant_access(version.dataset, to=Group.objects.get_or_create(name=role)[0])
