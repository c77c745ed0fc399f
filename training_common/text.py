"""Text of somebody else's program, made fit for a log, an annotation or a sentence of ours."""

from __future__ import annotations

import re

# The escape sequences of a terminal: colours, cursor moves, titles. A title that nothing ends must not take the rest of
# the text with it.
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")
# Control characters but tab and line feed, separators that some viewers break a line at, controls of the writing
# direction, halves of a Unicode pair.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: str) -> str:
    """Without terminal escapes; a space for each character that would rewrite a log or that no portal takes."""
    return _UNPRINTABLE.sub(" ", _ESCAPES.sub("", text))


def one_line(text: str) -> str:
    """`plain`, with single spaces for all white space."""
    return " ".join(plain(text).split())
