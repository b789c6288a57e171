"""Names that experiments and models may not have, beside the rule of `engine.names`, and what an alias may be called.

A name is taken in any case and width: a reader and some disks do not tell them apart.
"""

import re

RESERVED_EXPERIMENTS = ("mine", "compare", "delete")  # addresses of pages and of the API
RESERVED_MODELS = ("register", "recommend")

ALIAS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
