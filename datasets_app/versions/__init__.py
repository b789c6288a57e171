"""Immutable versions of a dataset: from rows, from an upload, from an earlier version; and what differs between two.

`creation.create_version` makes a version from a file and `changes.make_version` one from an earlier version. `upload_storage` decides
whether an upload is stored at once or by a task, `deletion` removes datasets, `canonical` hashes and writes the rows, `diff`
compares two versions.

Importing this package imports no polars: it takes half a second, which pages need not wait for.
"""
