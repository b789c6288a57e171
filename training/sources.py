"""What a run needs from outside the platform: base models and data sets of the model hub."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.errors import Invalid
from accounts.permissions import base_model_allowed

from .engine.config import SAMPLE_MODEL, DataSection, ModelSection

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
    path = Path(settings.DATA_DIR) / "cache" / "hub" / f"{name}.parquet"
    if not path.exists():
        _download(data, path)
    return path


def _download(data: DataSection, path: Path) -> None:
    import polars as pl
    from datasets import load_dataset

    if Path(data.dataset_name).exists():  # the library would take a folder of this machine for the data set
        raise Invalid(_("{name} is no data set of the hub.").format(name=data.dataset_name), field="data.dataset_name")
    try:
        splits: dict[str, Any] = load_dataset(data.dataset_name, data.dataset_config)
    except Exception as error:  # the library has no common error; its sentence says which of many causes it was
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Invalid(
            _("The data set {name} could not be read from the hub: {reason}").format(
                name=data.dataset_name, reason=reason
            ),
            field="data.dataset_name",
        ) from error
    frames = [_labelled(split, data.label_column).with_columns(split=pl.lit(name)) for name, split in splits.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    pl.concat(frames, how="diagonal_relaxed").write_parquet(draft)
    draft.rename(path)


def _labelled(split: Any, column: str) -> Any:
    """The hub stores labels as numbers with names beside them; rows of -1 have no label."""
    import polars as pl

    frame, names = split.to_polars(), getattr(split.features.get(column), "names", None)
    if names is None:
        return frame
    named = dict(enumerate(names))
    return frame.with_columns(pl.col(column).replace_strict(named, default=None, return_dtype=pl.String))
