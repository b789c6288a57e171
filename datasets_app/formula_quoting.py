"""The apostrophe that our CSV has before cells that a spreadsheet would run as formulas, and how it is taken away again."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

BOM = b"\xef\xbb\xbf"  # without it Excel takes UTF-8 for the encoding of the machine
# Only the first name of our header is in quotation marks. Programs write all names alike, so no other file begins like this,
# and a file that a spreadsheet has saved again does not either.
OWN_BEGINNING = BOM + b'"text"'
# Spreadsheets run a cell that begins like this. A cell that looks quoted already gets another apostrophe, so that taking
# one away always restores the text.
_FORMULA = r"^'*[=+\-@\t\r]"
QUOTED = r"^'+[=+\-@\t\r]"


def quote_formulas(column: str) -> "pl.Expr":
    """Put an apostrophe before a cell that a spreadsheet would run as a formula."""
    import polars as pl  # half a second, which pages without rows need not wait for

    cell = pl.col(column)
    return pl.when(cell.str.contains(_FORMULA)).then(pl.lit("'") + cell).otherwise(cell).alias(column)


def unquote_formulas(column: str) -> "pl.Expr":
    """Undo `quote_formulas`."""
    import polars as pl  # as above

    cell = pl.col(column)
    return pl.when(cell.str.contains(QUOTED)).then(cell.str.slice(1)).otherwise(cell).alias(column)
