"""Signals about worker processes, for monitoring."""

from django.dispatch import Signal

worker_alive = Signal()  # kind: the queue that it serves; sent every few seconds by the worker's main process
worker_left = Signal()  # sent when a worker ends because it received SIGTERM
