"""All points of a run's curves as CSV: what a chart thins out, and what people draw elsewhere."""

import csv
from typing import TextIO

from experiments.task_types import METRIC_TITLES, TASK_TYPES

from .models import Task

FIELDS_BY_COLUMN = {
    "step": "step",
    "epoch": "epoch",
    "seconds": "runtime_s",
    "tokens": "tokens",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
    "cpu_percent": "cpu_percent",
    "memory_mb": "memory_mb",
    "gpu_memory_mb": "gpu_memory_mb",
}


def write_points(task: Task, file: TextIO) -> None:
    """Write a line per point; columns of evaluations are named as in metrics.json: eval_loss, eval_accuracy, …"""
    facts = TASK_TYPES[task.experiment.task_type]
    metrics = [name for name in METRIC_TITLES if name in {*facts.metrics, *facts.curves}]
    writer = csv.writer(file)
    writer.writerow([*FIELDS_BY_COLUMN, *(f"eval_{name}" for name in metrics)])
    # Values and not objects: a long run has 100,000 points.
    points = task.points.values_list(*FIELDS_BY_COLUMN.values(), "eval_loss", "accuracy", "macro_f1", "scores")
    for *measured, eval_loss, accuracy, macro_f1, scores in points.iterator():
        evaluation = {"loss": eval_loss, "accuracy": accuracy, "macro_f1": macro_f1} | scores
        writer.writerow([*measured, *(evaluation.get(name) for name in metrics)])
