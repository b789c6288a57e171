#!/usr/bin/env python
"""Every command of Lorasite; `python manage.py help` lists them."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed here. Run `make setup`, then use .venv/bin/python.")
    try:
        execute_from_command_line(sys.argv)
    except Exception as error:
        from lorasite.storage_errors import explain

        if "--traceback" in sys.argv or not (explanation := explain(error)):
            raise
        sys.exit(explanation)


if __name__ == "__main__":
    main()
