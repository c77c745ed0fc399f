"""What making a signature may raise."""

from __future__ import annotations


class StorageError(Exception):
    """No signature can be made; the text is a sentence without secrets.

    retryable: whether it may pass by itself; where it may not, an operator must fix rights or settings.
    """

    def __init__(self, sentence: str, *, retryable: bool) -> None:
        super().__init__(sentence)
        self.retryable = retryable
