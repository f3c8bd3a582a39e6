"""What is taken out of texts that others wrote, and what stays."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from carapace_cron.model.untrusted import clean, one_line, presentable

CASES = [
    ("plain text, 42 €, 日本語", "plain text, 42 €, 日本語"),
    ("tab\tand\nline", "tab\tand\nline"),
    ("dos\r\nmac\runix\n", "dos\nmac\nunix\n"),
    ("paragraph\u2029line\u2028next\x85form\x0c", "paragraph\nline\nnext\nform\n"),
    ("\x1b[1;31mred\x1b[0m", "red"),
    ("\x1b]0;title\x07after", "after"),
    ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1bPq#0\x1b\\sixel", "sixel"),
    ("\x1b(Bcharset\x1b", "charset"),
    ("\x9b31mC1", "31mC1"),
    ("nul\x00 bell\x07 backspace\x08", "nul bell backspace"),
    ("invoice_\u202egpj.exe", "invoice_gpj.exe"),
    ("\u2066isolate\u2069 \u200fmark\u061c", "isolate mark"),
    ("zero\u200bwidth\ufeff", "zerowidth"),
    ("soft\xadhyphen", "softhyphen"),
    ("tags\U000e0041\U000e0042", "tags"),
    ("lone\ud800surrogate", "lonesurrogate"),
    ("family 👨\u200d👩\u200d👧, Persian می\u200cخواهم", "family 👨\u200d👩\u200d👧, Persian می\u200cخواهم"),
]


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_clean_keeps_what_can_be_seen_and_nothing_else(given: str, expected: str) -> None:
    assert clean(given) == expected


def test_clean_leaves_no_control_and_no_bidirectional_character_of_unicode() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = clean(everything)
    assert {c for c in left if unicodedata.category(c) == "Cc"} == {"\n", "\t"}
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert [c for c in left if unicodedata.bidirectional(c) in directions] == []
    left.encode()


def test_clean_is_quick_on_hostile_input() -> None:
    hostile = "\x1b]" * 200_000 + "\x1b[" + "0" * 200_000
    assert len(clean(hostile)) < len(hostile)


def test_a_title_is_one_bounded_line() -> None:
    assert one_line(" a\n\n b\tc ") == "a b c"
    assert one_line("x" * 300) == "x" * 199 + "…"


def test_presenting_twice_changes_nothing_more(make_notice: Callable[..., Any]) -> None:
    notice = make_notice(output="\x1b[1m" + "y" * 50_000, error="e" * 9_000, job_name="n\n" * 300)
    once = presentable(notice)
    assert presentable(once) == once
    assert len(once.output) <= 16_384
    assert len(once.error or "") <= 2_000
