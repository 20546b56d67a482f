"""Errors that a user can put right."""

from __future__ import annotations


class GolfError(Exception):
    """Something a person can put right, in one line; code 1: it is wrong, 2: used wrongly."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code
