"""The columns of the list of datasets."""

from django.utils.translation import gettext_lazy as _

from lists.columns import Column, sort_fields

# What starts with newest_ is annotated by `selectors.search`.
COLUMNS = (
    Column("name", _("Name"), "name"),
    Column("version", _("Version"), "newest_number", digits=0, descending_first=True),
    Column("rows", _("Rows"), "newest_rows", digits=0, descending_first=True),
    Column("labels", _("Labels")),
    Column("findings", _("Findings")),
    Column("owner", _("Owner"), "owner__username"),
    Column("updated", _("Newest version"), "newest_created_at", descending_first=True),
)
SORTABLE = sort_fields(COLUMNS)
BY_NAME = "name"
