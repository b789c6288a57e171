"""The tests of work/ use training runs, the kind of task that all of its machinery serves."""

from training.tests.conftest import dataset, start_worker, submit

__all__ = ["dataset", "start_worker", "submit"]
