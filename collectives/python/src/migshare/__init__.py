"""Collectives between the processes of one job step over host shared memory."""

from ._comm import Comm, Error, Request, Segment

__all__ = ["Comm", "Error", "Request", "Segment"]
