"""The function that RQ calls for an export: write the files, compare them with the served model, pack them."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from django.conf import settings

from accounts.quotas import require_storage_quota
from engine.config import RunConfig
from engine.errors import EngineError
from engine.export import Format, export_model
from engine.storage import STALE_S, remove_folder, sweep_drafts, write_file
from engine.task_types import is_language_model
from work import paths
from work.models import Status, WrongStateError
from work.running import StageProgress, StopSignal, TaskRunner, end_attempt

from ..models import ModelExport, ModelVersion

MOST_TEXTS = 1000  # held-out rows that answers are compared on


def run(task_id: str) -> None:
    """Carry out one export. RQ calls this by its dotted name."""
    ExportRunner().run(task_id)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. result: ModelExport.result; size: bytes of the .zip file."""

    result: dict[str, Any]
    size: int


class ExportRunner(TaskRunner[ModelExport, Exported]):
    """Export a model version to a .zip file."""

    model = ModelExport

    def perform(self, task: ModelExport, stop: StopSignal) -> Exported:
        from engine.export.language_comparison import LanguageModelCheck  # heavy: imports torch

        progress = StageProgress(task, stop, ModelExport.Stage)
        version = task.version
        paths.exports_dir().mkdir(parents=True, exist_ok=True)
        sweep_drafts(paths.exports_dir(), older_than_s=STALE_S)
        remove_folder(task.folder)
        rows = compared_texts(version)
        check = export_model(
            version.folder,
            task.folder,
            cast(Format, task.format),
            base_models_dir=settings.BASE_MODELS_DIR,
            texts=rows.texts,
            text_pairs=rows.text_pairs,
            training_texts=rows.training_texts,
            report_progress=progress,
        )
        progress("packing")
        pack(task)
        remove_folder(task.folder)
        result = {
            "texts": check.texts,
            "equal_answers": check.equal_answers,
            "largest_change": check.largest_change,
            "mean_change": check.mean_change if isinstance(check, LanguageModelCheck) else None,
            "prompts": check.prompts if isinstance(check, LanguageModelCheck) else None,
            "compared_on": version.dataset_name if rows.texts or rows.training_texts else "",
        }
        return Exported(result, task.path.stat().st_size)

    def finish(self, task: ModelExport, outcome: Exported) -> None:
        try:
            end_attempt(
                task,
                Status.SUCCESS,
                stage=ModelExport.Stage.DONE,
                result=outcome.result,
                size=outcome.size,
                deaths=0,
            )
        except WrongStateError:
            if not ModelExport.objects.filter(pk=task.pk).exists():  # its model was deleted meanwhile
                task.remove_files()
            raise


@dataclass(frozen=True, slots=True)
class ComparedTexts:
    """What answers are compared on: held-out texts of a run, None if they are gone, and for language models training rows, too.

    text_pairs: the second text of each, for pairs. Texts of a language model are conversations or preferences as JSON.
    """

    texts: list[str] | None = None
    text_pairs: list[str] | None = None
    training_texts: list[str] = field(default_factory=list)


def compared_texts(version: ModelVersion) -> ComparedTexts:
    """Return the texts to compare a version's exports on."""
    data = version.dataset_version
    if data is None:
        return ComparedTexts()
    try:
        config = RunConfig.parse(version.config)
        config = config.model_copy(update={"data": config.data.model_copy(update=data.run_columns)})
        return read_compared(data.path, config)
    except EngineError:
        return ComparedTexts()


def read_compared(path: Path, config: RunConfig) -> ComparedTexts:
    """Return the texts of a data file; of many labelled ones a sample from the whole of them. Raises EngineError."""
    if is_language_model(config.task):
        from engine.export.held_out import read_compared_rows  # heavy: imports polars

        chats = read_compared_rows(path, config)
        return ComparedTexts(chats.held_out, training_texts=chats.training)
    from engine.data.rows import load_rows  # heavy: imports polars

    rows = load_rows(path, config.data, config.training.seed, config.task).eval
    chosen = slice(None, None, -(-len(rows) // MOST_TEXTS))
    return ComparedTexts(rows.texts[chosen], None if rows.text_pairs is None else rows.text_pairs[chosen])


def pack(task: ModelExport) -> None:
    """Write the .zip file, uncompressed, because weights hardly shrink. Raises QuotaReachedError if it is too large."""
    files = [path for path in sorted(task.folder.iterdir()) if path.is_file()]
    require_storage_quota(task.author, sum(path.stat().st_size for path in files))
    name = f"{task.version.model.name}-{task.version.number}-{task.format}"

    def fill(draft: Any) -> None:
        with zipfile.ZipFile(draft, "w") as target:
            for path in files:
                target.write(path, f"{name}/{path.name}")

    write_file(task.path, fill)
