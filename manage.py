#!/usr/bin/env python
"""Run a command of Lorasite; `python manage.py help` lists them."""

import os
import sys


def main() -> None:
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
