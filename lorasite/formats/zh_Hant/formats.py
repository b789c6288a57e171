"""Dates as in English, and numbers as they are written in Taiwan: Django's own module groups no digits."""

from lorasite.formats.en.formats import (  # noqa: F401  (Django reads them here)
    DATE_FORMAT,
    DATETIME_FORMAT,
    SHORT_DATE_FORMAT,
    SHORT_DATETIME_FORMAT,
    TIME_FORMAT,
)

THOUSAND_SEPARATOR = ","
NUMBER_GROUPING = 3
