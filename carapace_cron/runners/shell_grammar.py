"""The grammar of `shell` commands: plain words, no shell behind them, so nothing that only a shell knows.

Checked before anything else looks at the text, and again just before a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from carapace_cron.errors import InvalidValue
from carapace_cron.runners.words import Word, split_words

_NOT_BARE = frozenset(";&|<>$`\\*?[]{}()!#~^")
_NOT_QUOTED = frozenset("$`\\!")
_DIRECTIVES = frozenset("aAbBcCdDeFgGhHIjklmMnNpPrRsSTtuUVwWxXyYzZ%")
_ISO_FORMATS = {
    "-I": "%Y-%m-%d",
    "-Idate": "%Y-%m-%d",
    "-Ihours": "%Y-%m-%dT%H+00:00",
    "-Iminutes": "%Y-%m-%dT%H:%M+00:00",
    "-Iseconds": "%Y-%m-%dT%H:%M:%S+00:00",
}
_DEFAULT_FORMAT = "%a %b %e %H:%M:%S UTC %Y"
_EMAIL_FORMAT = "%a, %d %b %Y %H:%M:%S +0000"


@dataclass(frozen=True, slots=True)
class ShellCommand:
    """A command as it was understood: a bare name and its arguments, taken literally."""

    name: str
    arguments: tuple[str, ...]


def parse_shell_command(command: str) -> ShellCommand:
    """Raises `InvalidValue`, field ``command``, for everything that a shell would treat specially.

    >>> parse_shell_command("echo hello 'big world'")
    ShellCommand(name='echo', arguments=('hello', 'big world'))
    >>> parse_shell_command("echo hi; id")
    Traceback (most recent call last):
    carapace_cron.errors.InvalidValue: bad shell command: ";" is not allowed outside quotes; no shell runs \
this, so it would mean itself or nothing
    """
    words = split_words(command)
    if not words or words[0].has_quotes:
        raise bad_command("expected the name of a command first, without quotes")
    for word in words:
        _check_word(word)
    return ShellCommand(words[0].text, tuple(word.text for word in words[1:]))


def bad_command(reason: str) -> InvalidValue:
    return InvalidValue(f"bad shell command: {reason}", field="command")


def _check_word(word: Word) -> None:
    for place, text, refused in (("outside", word.bare, _NOT_BARE), ("inside", word.quoted, _NOT_QUOTED)):
        for character in text:
            if character in refused:
                why = "no shell runs this, so it would mean itself or nothing"
                raise bad_command(f'"{character}" is not allowed {place} quotes; {why}')


def check_echo(arguments: tuple[str, ...]) -> None:
    if arguments and re.fullmatch(r"-[neE]+", arguments[0]):
        raise bad_command(f'echo takes text, no options; got "{arguments[0]}"')


def check_nothing(arguments: tuple[str, ...]) -> None:
    if arguments:
        raise bad_command(f'expected no arguments; got "{arguments[0][:60]}"')


def date_format(arguments: tuple[str, ...]) -> str:
    """The format that the arguments of `date` ask for. Raises `InvalidValue`, field ``command``."""
    formats = [_format_of(argument) for argument in arguments if argument not in ("-u", "--utc")]
    if len(formats) > 1:
        raise bad_command("date takes one format")
    return formats[0] if formats else _DEFAULT_FORMAT


def _format_of(argument: str) -> str:
    if argument.startswith("+"):
        _check_directives(argument)
        return argument[1:]
    if argument == "-R":
        return _EMAIL_FORMAT
    if argument in _ISO_FORMATS:
        return _ISO_FORMATS[argument]
    expected = "-u, --utc, -R, -I, -Idate, -Ihours, -Iminutes, -Iseconds or one +FORMAT"
    raise bad_command(f'date does not take "{argument[:60]}": expected {expected}')


def _check_directives(argument: str) -> None:
    for match in re.finditer(r"%(.?)", argument):
        if match[1] not in _DIRECTIVES or not match[1]:
            raise bad_command(f'"{match[0]}" in the format of date: expected % and one letter, such as %F')


def format_date(form: str, now: datetime) -> str:
    """`now`, an instant in UTC, in the words of date(1) in the C locale.

    >>> from datetime import UTC
    >>> format_date("%a %F %T %z %s.%N %-", datetime(2026, 1, 5, 9, 30, tzinfo=UTC))
    'Mon 2026-01-05 09:30:00 +0000 1767605400.000000000 %-'
    """
    return re.sub(r"%([A-Za-z%])", lambda match: _directive(match[1], now), form)


def _directive(letter: str, now: datetime) -> str:
    # strftime(3) takes %s for local time and knows no %N; %n and %t are its line break and tab.
    own: dict[str, Callable[[], str]] = {
        "s": lambda: str(int(now.timestamp())),
        "N": lambda: f"{now.microsecond * 1000:09d}",
        "c": lambda: now.strftime("%a %b %e %H:%M:%S %Y"),
        "x": lambda: now.strftime("%m/%d/%y"),
        "X": lambda: now.strftime("%H:%M:%S"),
    }
    return own[letter]() if letter in own else now.strftime(f"%{letter}")
