"""Texts of one line, as names are, and how many of something there are."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

# Control characters, other line ends, and what turns the direction of a line around for its reader.
_NOT_IN_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def one_line_only(text: str) -> str:
    if _NOT_IN_A_LINE.search(text):
        raise ValueError("expected one line without control characters")
    return text


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "job"), counted(0, "object"), counted(1000, "job")
    ('1 job', '0 objects', '1000 jobs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_LINE = StringConstraints(strip_whitespace=True, min_length=1, max_length=200)
Line = Annotated[str, _LINE, AfterValidator(one_line_only)]
