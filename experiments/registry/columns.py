"""The columns of the list of models."""

from django.utils.translation import gettext_lazy as _

from lists.columns import Column, sort_fields

COLUMNS = (
    Column("name", _("Model"), "name"),
    Column("labels", _("Labels")),
    Column("language", _("Language"), "language"),
    Column("base_model", _("Base model"), "base_model"),
    Column("score", _("Score"), "score", digits=3, descending_first=True),
    Column("dataset", _("Dataset")),
    Column("owner", _("Owner"), "owner__username"),
    Column("updated", _("Newest version"), "updated_at", descending_first=True),
)
SORTABLE = sort_fields(COLUMNS) | {"accuracy": "accuracy", "macro_f1": "macro_f1"}
NEWEST_FIRST = "-updated"
