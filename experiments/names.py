"""What experiments and models may be called. Both name folders and addresses, and both answer predictions by name.

A name is taken in any case, because some disks do not tell cases apart. The characters of an experiment's name are checked
by `engine.config`, because the command line of the engine writes the same folders.
"""

import re

RESERVED_EXPERIMENTS = ("mine", "compare", "delete")  # addresses of pages and of the API
RESERVED_MODELS = ("register", "recommend")

MODEL_NAME = re.compile(r"[A-Za-z0-9](\.?[A-Za-z0-9_-]){0,79}")
ALIAS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
