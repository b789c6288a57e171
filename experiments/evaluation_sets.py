"""On which rows a run was evaluated: scores of different rows cannot be compared."""

from collections.abc import Hashable, Iterable

from .models import Experiment, ModelVersion

# The settings of the section `data` that decide which rows are held out, and what is read of them.
SETTINGS = (
    "dataset_config",
    "text_column",
    "text_pair_column",
    "label_column",
    "split_column",
    "eval_fraction",
    "eval_samples",
)


def evaluation_set(experiment: Experiment | ModelVersion) -> Hashable:
    """Return what identifies the rows that a run, or a version made from one, was evaluated on, among runs of this installation."""
    data = experiment.config.get("data", {})
    seed = (
        experiment.config.get("training", {}).get("seed") if data.get("eval_samples") else None
    )  # it draws the sample
    settings = tuple(data.get(name) for name in SETTINGS)
    return (experiment.task_type, experiment.dataset_hash or experiment.dataset_name, seed, *settings)


def share_evaluation_rows(experiments: Iterable[Experiment | ModelVersion]) -> bool:
    """Return whether all of these runs were evaluated on the same rows."""
    return len({evaluation_set(experiment) for experiment in experiments}) <= 1
