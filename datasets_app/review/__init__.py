"""Wrong labels: find rows whose label is probably wrong, record what people decide, and show what the correction gained.

`label_errors.search_wrong_labels` is the door: the work of the task that ranks the rows of a version. `decisions` stores the answers of
people, `improvement` compares the runs before and after the correction.

Importing this package imports no polars: it takes half a second, which pages need not wait for.
"""
