"""From a file or a data set of the model hub to rows of text and label.

Files that people send are untrusted: `sandbox.read` is the door, and reads them in a process with limits. The steps after it
are `columns.choose_columns` (which columns hold text, label and split) and `rows.select_rows` (the rows to store). `hub` fetches data
sets of the hub, `uploads` keeps a file between being sent and being stored.

`readers` chooses by format: `delimited` (with `dialects` and `records`), `json_documents` (with `exports` of annotation tools),
`line_formats`, `workbooks`, `parquet`. Each makes a `table.Table` of strings and notes what it read otherwise than it stands there.

Importing this package imports no polars: it takes half a second, which pages need not wait for.
"""
