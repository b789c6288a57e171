"""What a run needs from the model hub: base models and datasets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.permissions import base_model_allowed
from datasets_app.reading import hub
from engine.config_sections import DataSection, ModelSection
from engine.errors import EngineError
from engine.models.base_models import can_download, find_cached, is_incomplete
from engine.models.local_models import installed_samples
from engine.models.recommended import find_recommended
from engine.models.supported_types import check_type
from engine.models.weight_files import check_folder, read_config
from engine.task_types import TaskType, head_of
from web.errors import InvalidError
from web.sentences import translate
from work.paths import hub_cache_dir

from .chat_templates import require_effect

HUB_TIMEOUT_S = 3.0


def check_base_model(model: ModelSection, task: TaskType) -> None:
    """Raise Invalid if the base model is not allowed, damaged, can't learn the task type, or is found nowhere. Downloads nothing.

    Also raise it if the chosen chat template would have no effect.
    """
    require_effect(model)
    root: Path | None = settings.BASE_MODELS_DIR
    if model.name in installed_samples() and (sample := find_recommended(model.name)):
        with invalid_base_model():
            check_type({"model_type": sample.model_type}, model.name, head_of(task), is_complete=False)
        return
    if root and (Path(root) / model.name / "config.json").is_file():
        check_files(Path(root) / model.name, model.name, task)
        return
    if not base_model_allowed(model.name):
        raise InvalidError(
            _(
                "{name} is not on the list of base models that runs may use. Choose another one, or ask an administrator."
            ).format(name=model.name),
            field="model.name",
            reason="base_model_not_allowed",
        )
    cached = find_cached(model.name, model.revision)
    if cached and not (is_incomplete(cached, model.name) and can_download()):
        check_files(cached, model.name, task)
    else:
        check_on_hub(model, task)


def check_on_hub(model: ModelSection, task: TaskType) -> None:
    """Raise Invalid if the hub can't be reached or lacks the model, or if what it tells of the model rules it out."""
    # Imported here because it takes long, and most runs use a model that is on this machine.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(model.name, revision=model.revision, timeout=HUB_TIMEOUT_S)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise unavailable(_("The model hub has no {name}, or it is private. Check the name."), model) from None
    except Exception as error:  # each HTTP library below the hub client has its own error for "unreachable"
        raise unavailable(
            _(
                "The base model {name} is not on this machine and the model hub cannot be reached. Choose "
                "sentence-transformers/all-MiniLM-L6-v2, which is installed, or put the model into BASE_MODELS_DIR."
            ),
            model,
        ) from error
    check_weights_on_hub([file.rfilename for file in info.siblings or []], model)
    if info.config and "model_type" in info.config:  # the hub does not know the type of every model
        with invalid_base_model():
            check_type(info.config, model.name, head_of(task), is_complete=False)


def check_weights_on_hub(files: list[str], model: ModelSection) -> None:
    """Raise Invalid if the hub has weights of the model, but none as safetensors: the worker would refuse them."""
    if not files or any(file.endswith(".safetensors") for file in files):
        return
    recommended = find_recommended(model.name)
    if recommended and recommended.revision not in ("", model.revision):
        message = _(
            "The hub has the weights of {name} as a pickle, which is refused because it can run code. Set model.revision to "
            "{revision}, which has the same as safetensors."
        ).format(name=model.name, revision=recommended.revision)
    else:
        message = _(
            "The hub has the weights of {name} as a pickle only, which is refused because it can run code. Convert it to "
            "safetensors (docs/models.md) and put the folder under BASE_MODELS_DIR, or choose another base model."
        ).format(name=model.name)
    raise InvalidError(message, field="model.name", reason="base_model_unsafe")


def check_files(folder: Path, name: str, task: TaskType) -> None:
    """Raise Invalid if a base model on this machine is damaged or can't learn the task type. Reads no weights."""
    with invalid_base_model():
        check_folder(folder, name)
        check_type(read_config(folder, name), name, head_of(task))


@contextmanager
def invalid_base_model() -> Iterator[None]:
    """Turn what the engine raises about a base model into Invalid."""
    try:
        yield
    except EngineError as error:
        raise InvalidError(translate(error.message), field="model.name", reason=error.code) from error


def unavailable(sentence: str, model: ModelSection) -> InvalidError:
    return InvalidError(sentence.format(name=model.name), field="model.name", reason="base_model_unavailable")


def hub_data_file(data: DataSection) -> Path:
    """Return a dataset of the hub as one Parquet file with a split column; download it the first time."""
    name = f"{data.dataset_name}-{data.dataset_config or 'default'}".replace("/", "--")
    path = hub_cache_dir() / f"{name}.parquet"
    if not path.exists():
        hub.refuse_folder(data.dataset_name)
        hub.fetch(data.dataset_name, data.dataset_config, None, path, label_column=data.label_column)
    return path
