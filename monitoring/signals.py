"""Store what worker processes announce by the signals of work.signals."""

import logging

from django.db import DatabaseError, connection
from django.dispatch import Signal, receiver

from work.signals import worker_alive, worker_left

from . import services

log = logging.getLogger(__name__)


@receiver([worker_alive, worker_left])
def update_worker(signal: Signal, kind: str = "", **kwargs: object) -> None:
    """Renew the row of this worker while it lives, and delete it when it ends; `kind` is the queue that it serves.

    A database that is away is logged and nothing more: it must not end the worker.
    """
    try:
        if signal is worker_alive:
            services.record_heartbeat(kind)
        else:
            services.remove_worker()
    except DatabaseError as error:
        log.warning("The row of this worker could not be written: %s", error)
        connection.close()  # the next heartbeat connects again
