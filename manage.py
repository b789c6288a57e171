#!/usr/bin/env python
"""Run a command of Lorasite; `python manage.py help` lists them."""

import gc
import os
import sys


def main() -> None:
    # Imports leave half a million objects. To visit them after every 700 new ones takes a tenth of a start, of a data worker a fifth.
    gc.set_threshold(20_000, 20, 10)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")
    try:
        # Imported here to explain what to do if it is missing.
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed here. Run `make setup`, then use .venv/bin/python.")
    try:
        execute_from_command_line(sys.argv)
    except Exception as error:
        # Imported here because it needs Django, too.
        from lorasite.storage_errors import explain

        explanation = "" if "--traceback" in sys.argv else explain(error)
        if not explanation:
            raise
        sys.exit(explanation)


if __name__ == "__main__":
    main()
