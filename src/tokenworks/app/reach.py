"""The two ways in which a call of the office can fail, for those who tell people about it.

Apart from the client, so that a command line can name them without importing one.
"""


class OfficeUnreachable(Exception):
    """Nobody answers at the office's address, or something that is no office; the text is one sentence."""


class OfficeRefused(Exception):
    """The office said no: its HTTP status, stable code and sentence, and the field meant, if one is."""

    def __init__(self, status: int, code: str, message: str, field: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
