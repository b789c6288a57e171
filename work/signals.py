"""What becomes of a worker process, for whoever watches over workers."""

from django.dispatch import Signal

worker_alive = Signal()  # kind: the queue that it serves; sent every few seconds by the worker's main process
worker_left = Signal()  # it has ended because it was asked to
