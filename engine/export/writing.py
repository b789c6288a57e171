"""Write a final model to a new folder in another format, whole or not at all."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import ExportRefusedError
from engine.export.comparison import (
    LARGEST_CHANGE,
    SMALLEST_SHARE,
    ExportCheck,
    choose_texts,
    compare,
    require_equal,
)
from engine.export.exported_model import load_exported
from engine.export.formats import require_format
from engine.export.language_models import write_language_model
from engine.export.packages import INSTALL, ONNX_PACKAGES, missing_packages
from engine.export.readme import describe_export, write_readme
from engine.models.base_models import resolve
from engine.models.loaded_weights import brief
from engine.sentences import Sentence, gettext_noop
from engine.serve.errors import ModelUnreadableError
from engine.serve.merged_model import merge_adapter
from engine.serve.model_cache import MIB
from engine.serve.model_files import SETTINGS, WEIGHTS, ModelInfo, read_info
from engine.serve.predictor import LoadedModel, Predictor
from engine.storage import MANIFEST, sweep_drafts_of, write_folder, write_json
from engine.task_types import TaskType, is_language_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from engine.export import Format, ReportProgress

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
PROBLEM_TYPES: dict[TaskType, ProblemType] = {
    "sequence_classification": "single_label_classification",
    "multi_label_classification": "multi_label_classification",
    "regression": "regression",
}
FP32_LIMITS = {"equal_answers": SMALLEST_SHARE, "largest_change": LARGEST_CHANGE}
NOT_COPIED = {WEIGHTS, SETTINGS, MANIFEST, "README.md"}


def write_export(
    final_model: Path,
    target: Path,
    format: Format,
    base_models_dir: Path | None,
    texts: Sequence[str] | None,
    text_pairs: Sequence[str] | None,
    training_texts: Sequence[str],
    report_progress: ReportProgress,
) -> ExportCheck:
    """See engine.export.export_model."""
    require_packages(format)
    require_free(target)
    sweep_drafts_of(target)
    try:
        info = read_info(final_model)
    except (OSError, ValueError, KeyError) as error:
        reason = brief(error, final_model, "the model")
        raise ModelUnreadableError(f"its lorasite.json can't be read ({reason})") from error
    require_format(info.task, format)
    if is_language_model(info.task):
        return write_language_model(
            final_model, target, format, base_models_dir, info, texts, training_texts, report_progress
        )
    report_progress("writing")
    predictor = Predictor(base_models_dir, memory_mb=sys.maxsize // MIB)
    with predictor.loaded(final_model) as served:
        compared = choose_texts(final_model, served.info, texts, text_pairs)
        checks: list[ExportCheck] = []

        def fill(draft: Path) -> None:
            model = merge(final_model, base_models_dir, served)
            write_files(model, final_model, draft, format, served.info)
            check = compare(served, load_exported(draft, format), compared, format, report_progress)
            if format != "onnx-int8":
                require_equal(check)
            packages = ["torch", "transformers", *(ONNX_PACKAGES if format != "safetensors" else ())]
            limits = None if format == "onnx-int8" else FP32_LIMITS
            write_json(draft / "export.json", describe_export(final_model, served.info, check, packages, limits))
            write_readme(draft, served, check)
            checks.append(check)

        write_folder(target, fill)
    return checks[0]


def require_packages(format: Format) -> None:
    """Raise ExportRefusedError if a package that writes this format is not installed."""
    missing = missing_packages(format)
    if missing:
        raise ExportRefusedError(
            Sentence(
                gettext_noop(
                    "Exporting to {format} needs packages that are not installed: {packages}. Install them with `{command}`, or "
                    "export to safetensors."
                ),
                format=format,
                packages=", ".join(missing),
                command=INSTALL,
            )
        )


def require_free(target: Path) -> None:
    """Raise ExportRefusedError unless the target can become a new folder."""
    if target.exists() or target.is_symlink():
        raise ExportRefusedError(
            Sentence(
                gettext_noop("{target} exists already and was left as it is. Choose another folder, or remove it."),
                target=str(target),
            )
        )
    if not target.parent.is_dir():
        raise ExportRefusedError(
            Sentence(
                gettext_noop("The folder {folder} does not exist. Make it, or choose another target."),
                folder=str(target.parent),
            )
        )


def merge(final_model: Path, base_models_dir: Path | None, served: LoadedModel) -> PreTrainedModel:
    """Return the merged model, with a config.json that names its labels and its task."""
    info = served.info
    base = resolve(info.base_model, base_models_dir, info.revision)
    model = merge_adapter(final_model, base, info, served.tokenizer.padding_id)
    names = output_names(final_model, info)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    model.config.problem_type = PROBLEM_TYPES.get(info.task)
    return model


def output_names(final_model: Path, info: ModelInfo) -> list[str]:
    """Return the names of the model's outputs: labels, or tags of tokens."""
    facts = json.loads((final_model / "lorasite.json").read_text(encoding="utf-8"))
    return [str(name) for name in (facts.get("id2label") or dict(enumerate(info.labels))).values()]


def write_files(model: PreTrainedModel, final_model: Path, folder: Path, format: Format, info: ModelInfo) -> None:
    """Write the weights, and copy the tokenizer and lorasite.json, which has what was fitted on held-out rows."""
    for path in final_model.iterdir():
        if path.is_file() and path.name not in NOT_COPIED and not path.name.startswith("."):
            shutil.copyfile(path, folder / path.name)
    if format == "safetensors":
        model.save_pretrained(folder)
        return
    from engine.export.onnx_files import quantize_onnx, write_onnx  # deferred: may not be installed

    model.config.save_pretrained(folder)
    write_onnx(model, folder, info.text_pairs and info.token_types)
    if format == "onnx-int8":
        quantize_onnx(folder)
