"""What a run needs from outside the platform: base models and data sets of the model hub."""

from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.permissions import base_model_allowed
from datasets_app.reading import hub
from engine.config import SAMPLE_MODEL, DataSection, ModelSection
from web.errors import Invalid
from work.paths import hub_cache_dir

HUB_TIMEOUT_S = 3.0


def check_base_model(model: ModelSection) -> None:
    """Invalid when the base model is neither here nor on a hub that answers; downloads nothing."""
    if model.name == SAMPLE_MODEL or _in_base_models_dir(model.name):
        return
    if not base_model_allowed(model.name):
        raise Invalid(
            _(
                "{name} is not on the list of base models that runs may use. Choose another, or ask an administrator."
            ).format(name=model.name),
            field="model.name",
            reason="base_model_not_allowed",
        )
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(try_to_load_from_cache(model.name, "config.json", revision=model.revision), str):
        return
    try:
        HfApi().model_info(model.name, revision=model.revision, timeout=HUB_TIMEOUT_S)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise _unavailable(_("The model hub has no {name}, or it is private. Check the name."), model) from None
    except Exception as error:  # each HTTP library below the hub client has its own way to say "unreachable"
        raise _unavailable(
            _(
                "The base model {name} is not on this machine and the model hub can't be reached. Choose "
                "sentence-transformers/all-MiniLM-L6-v2, which is here, or put the model under BASE_MODELS_DIR."
            ),
            model,
        ) from error


def _in_base_models_dir(name: str) -> bool:
    root: Path | None = settings.BASE_MODELS_DIR
    return root is not None and (Path(root) / name / "config.json").is_file()


def _unavailable(sentence: str, model: ModelSection) -> Invalid:
    return Invalid(sentence.format(name=model.name), field="model.name", reason="base_model_unavailable")


def hub_data_file(data: DataSection) -> Path:
    """A data set of the hub as one Parquet file with a split column; downloaded once."""
    name = f"{data.dataset_name}-{data.dataset_config or 'default'}".replace("/", "--")
    path = hub_cache_dir() / f"{name}.parquet"
    if not path.exists():
        hub.refuse_folder(data.dataset_name)
        hub.fetch(data.dataset_name, data.dataset_config, None, path, label_column=data.label_column)
    return path
