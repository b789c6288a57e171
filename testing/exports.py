"""Exports as rows with a file of a few bytes; nothing is computed."""

from accounts.models import User
from experiments.models import ModelExport, ModelVersion
from work.models import Status
from work.paths import exports_dir

RESULT = {"texts": 60, "equal_answers": 1.0, "largest_change": 2e-7, "compared_on": "tweets@1"}
CONTENT = b"files"


def store_export(version: ModelVersion | None, author: User, format: str = "safetensors") -> ModelExport:
    """Return a finished export of a version, such as the newest one of a model."""
    assert version is not None
    export = ModelExport.objects.create(
        version=version, author=author, format=format, status=Status.SUCCESS, result=RESULT, size=len(CONTENT)
    )
    exports_dir().mkdir(parents=True, exist_ok=True)
    export.path.write_bytes(CONTENT)
    return export
