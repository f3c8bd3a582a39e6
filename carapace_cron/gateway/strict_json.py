"""JSON as RFC 8259 means it, where Python's reader is more generous than is safe.

Refused: text that is not UTF-8, a byte order mark, NaN and Infinity (written or by overflow), a name twice
in one object, more than 32 levels, surrogates without their partner, integers beyond 64 bits (they could
not be stored).
"""

from __future__ import annotations

import json
import math
from typing import Any

from carapace_cron.errors import InvalidValue

MAX_DEPTH = 32
_MAX_INTEGER = 2**63 - 1  # what the databases hold
_MAX_INTEGER_DIGITS = 19
_SHOWN = 40  # characters of a bad name or number that an answer repeats


class InvalidJson(InvalidValue):
    """The text is not JSON, or not JSON that is accepted here. The message says where and why."""


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text. Raises `InvalidJson`.

    >>> parse_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    carapace_cron.gateway.strict_json.InvalidJson: name "a" appears twice in one object
    """
    try:
        value = json.loads(
            _decoded(text),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise _too_deep() from error
    except json.JSONDecodeError as error:
        raise InvalidJson(f"not JSON: {error}") from error
    _check_depth_and_text(value)
    return value


def dump_json(value: Any) -> str:
    """Compact JSON that any UTF-8 can carry: half a surrogate pair becomes U+FFFD.

    Raises `ValueError` or `TypeError` for what JSON cannot say (NaN, a set, a cycle).

    >>> dump_json({"output": "\\ud800 é"})
    '{"output":"\ufffd é"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _decoded(text: bytes | str) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not UTF-8: byte {error.start} starts no character") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, part in pairs:
        if name in value:
            raise InvalidJson(f'name "{_printable(name)}" appears twice in one object')
        value[name] = part
    return value


def _refuse_constant(name: str) -> Any:
    raise InvalidJson(f"{name} is not a JSON number")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise InvalidJson(f"number {digits[:_SHOWN]} is too large")
    return value


def _integer(digits: str) -> int:
    # Digits are counted first: reading 100,000 of them would take quadratic time.
    if len(digits.lstrip("-")) <= _MAX_INTEGER_DIGITS:
        value = int(digits)
        if -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER:
            return value
    raise InvalidJson(f"number {digits[:_SHOWN]} is too large: expected at most 64 bits")


def _check_depth_and_text(value: Any) -> None:
    # A stack of our own: the check must not fail on what it is there to find.
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            _check_text(item)
        elif isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise _too_deep()
            pending.extend((part, depth + 1) for part in _parts(item))


def _parts(item: dict[str, Any] | list[Any]) -> list[Any]:
    return [*item, *item.values()] if isinstance(item, dict) else item


def _check_text(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidJson("a text holds half of a surrogate pair, which no UTF-8 can store")


def _too_deep() -> InvalidJson:
    return InvalidJson(f"nested too deep: expected at most {MAX_DEPTH} levels")


def _printable(name: str) -> str:
    return name[:_SHOWN].encode("ascii", "backslashreplace").decode()
