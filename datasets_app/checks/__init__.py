"""What is wrong with the rows of a version, and what its texts are like.

`findings.run_checks` is the door: it runs all checks and returns a `Report`. `languages` and `text_statistics` measure; `report` turns
what is stored of a version into what its page shows.

Importing this package imports no polars: it takes half a second, which pages need not wait for.
"""

UNKNOWN_LANGUAGE = "Unknown"  # the language of rows of which no other one can be told
