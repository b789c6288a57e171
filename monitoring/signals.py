"""Store what worker processes announce by the signals of work.signals."""

import logging

from django.db import DatabaseError, connection
from django.dispatch import receiver

from work.signals import worker_alive, worker_left

from . import services

log = logging.getLogger(__name__)


@receiver(worker_alive)
def store_heartbeat(kind: str, **kwargs: object) -> None:
    try:
        services.record_heartbeat(kind)
    except DatabaseError as error:
        log.warning("The heartbeat of this worker could not be stored: %s", error)
        connection.close()  # the next heartbeat connects again


@receiver(worker_left)
def forget_worker(**kwargs: object) -> None:
    try:
        services.remove_worker()
    except DatabaseError as error:
        log.warning("The row of this worker could not be deleted: %s", error)
