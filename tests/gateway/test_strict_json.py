"""A corpus of texts that some JSON reader takes and this one does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from carapace_cron.gateway.strict_json import MAX_DEPTH, InvalidJson, dump_json, parse_json

REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "only blanks": b"  \n\t",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "Latin-1": '"é"'.encode("latin-1"),
    "overlong slash": b'"\xc0\xaf"',
    "overlong NUL": b'"\xc0\x80"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "cut character": b'"\xe2\x82',
    "beyond Unicode": b'"\xf5\x80\x80\x80"',
    "lone byte 0xff": b"\xff",
    "escaped high surrogate": rb'"\ud800"',
    "escaped low surrogate": rb'"\udc00"',
    "surrogates the wrong way": rb'"\udc00\ud800"',
    "surrogate in a name": rb'{"\ud800": 1}',
    "surrogate deep inside": rb'[[{"a": ["\udfff"]}]]',
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "minus Infinity": b'{"a": -Infinity}',
    "float overflow": b"1e400",
    "negative float overflow": b"-1e309",
    "long float overflow": b"9" * 400 + b".0",
    "integer beyond 64 bits": b"9223372036854775808",
    "negative beyond 64 bits": b"-9223372036854775809",
    "integer of 5,000 digits": b"1" * 5_000,
    "plus sign": b"+1",
    "leading zero": b"01",
    "bare point": b".5",
    "trailing point": b"1.",
    "hexadecimal": b"0x10",
    "underscore": b"1_000",
    "two values": b"{} {}",
    "trailing comma in a list": b"[1,]",
    "trailing comma in an object": b'{"a": 1,}',
    "missing comma": b"[1 2]",
    "missing colon": b'{"a" 1}',
    "name without quotes": b"{a: 1}",
    "single quotes": b"{'a': 1}",
    "comment": b"[1] // one",
    "block comment": b"/* */ []",
    "open text": b'"abc',
    "open list": b"[1",
    "open object": b'{"a": 1',
    "closed too often": b"[1]]",
    "line feed in a text": b'"a\nb"',
    "NUL in a text": b'"a\x00b"',
    "tab in a text": b'"a\tb"',
    "bad escape": rb'"\x41"',
    "cut escape": rb'"\u12"',
    "Python words": b"[True, None]",
    "undefined": b"undefined",
    "no-break space": '\u00a0{}'.encode(),
    "name twice": b'{"a": 1, "a": 1}',
    "name twice, once escaped": rb'{"a": 1, "\u0061": 2}',
    "name twice, deep inside": b'[{"x": {"b": 1, "c": 2, "b": 3}}]',
    "empty name twice": b'{"": 1, "": 2}',
    "33 lists": b"[" * 33 + b"]" * 33,
    "33 objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "100,000 brackets": b"[" * 100_000,
    "100,000 lists": b"[" * 100_000 + b"]" * 100_000,
    "50,000 open objects": b'{"a":' * 50_000,
}

ACCEPTED: dict[bytes, Any] = {
    b"null": None,
    b" true ": True,
    b"-0": 0,
    b"1.5e3": 1500.0,
    b"9223372036854775807": 2**63 - 1,
    b"-9223372036854775808": -(2**63),
    b"1e-400": 0.0,
    b'""': "",
    '"é ✓ \U0001f600"'.encode(): "é ✓ \U0001f600",
    rb'"\ud83d\ude00"': "\U0001f600",
    rb'"\u0000"': "\0",
    b'{"a": {"a": 1}}': {"a": {"a": 1}},
    b'[{"a": 1}, {"a": 2}]': [{"a": 1}, {"a": 2}],
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(name: str) -> None:
    with pytest.raises(InvalidJson) as refusal:
        parse_json(REFUSED[name])
    sentence = str(refusal.value)
    assert 0 < len(sentence) < 200
    sentence.encode()  # can itself be sent


@pytest.mark.parametrize("text", ACCEPTED)
def test_it_accepts(text: bytes) -> None:
    assert parse_json(text) == ACCEPTED[text]


def test_it_accepts_32_levels() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert dump_json(parse_json(text)) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"x"])
def test_it_writes_json_or_raises(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        dump_json(value)


def test_what_it_writes_any_reader_reads() -> None:
    value = {"a": [1, 2.5, None, True, "é\u2028\n"]}
    assert json.loads(dump_json(value)) == value
