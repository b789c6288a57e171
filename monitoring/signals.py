"""A worker's life, as training announces it, becomes a row."""

import logging
from typing import Any

from django.db import DatabaseError, connection
from django.dispatch import receiver

from work.signals import worker_alive, worker_left

from . import services

log = logging.getLogger(__name__)


@receiver(worker_alive)
def alive(kind: str, **_about: Any) -> None:
    try:
        services.beat(kind)
    except DatabaseError as error:
        log.warning("This worker could not say that it lives: %s", error)
        connection.close()


@receiver(worker_left)
def left(**_about: Any) -> None:
    try:
        services.leave()
    except DatabaseError as error:
        log.warning("This worker could not sign off: %s", error)
