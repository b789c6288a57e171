"""The modules of the project import each other in one direction."""

import ast
from pathlib import Path

import pytest
from django.conf import settings

from bench import code_metrics


@pytest.mark.slow
def test_no_modules_import_each_other():
    root = Path(settings.BASE_DIR)
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in code_metrics.source_files(root)}
    assert code_metrics.import_cycles(root, trees) == []
