"""Errors that a user can fix."""


class GolfError(Exception):
    """A user-facing error in one line. Code 1: invalid input; 2: wrong usage."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code
