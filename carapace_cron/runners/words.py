"""The words of a command, by rules of our own: blanks divide, quotes hold together, nothing is expanded.

Not `shlex`: it takes line breaks for blanks, so that two lines become one command, and un-quotes the name
of the program (``ec""ho``), so that what was checked is not what a log shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from carapace_cron.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Word:
    """`text` is what it says; `bare` and `quoted` are its characters outside and inside quotes."""

    text: str
    bare: str
    quoted: str
    has_quotes: bool


def split_words(command: str) -> list[Word]:
    """The words of `command`; quotes are ``'…'`` and ``"…"``, with nothing special inside either.

    Raises `InvalidValue`, field ``command``, for characters that cannot be seen, line breaks among them,
    and for a quote that is not closed.

    >>> [word.text for word in split_words("generate-report --title 'Week 7' --to=\\"the team\\"")]
    ['generate-report', '--title', 'Week 7', '--to=the team']
    """
    _check_visible(command)
    words, position = [], 0
    while position < len(command):
        if command[position] == " ":
            position += 1
            continue
        word, position = _word_at(command, position)
        words.append(word)
    return words


def _check_visible(command: str) -> None:
    for position, character in enumerate(command):
        if not character.isprintable():
            fault = f"character {position + 1} is U+{ord(character):04X}; expected one line of visible text"
            raise InvalidValue(f"bad command: {fault}", field="command")


def _word_at(command: str, position: int) -> tuple[Word, int]:
    """The word that begins at `position`, and where it ends."""
    text, bare, quoted = "", "", ""
    has_quotes = False
    while position < len(command) and command[position] != " ":
        character = command[position]
        if character not in "'\"":
            text, bare, position = text + character, bare + character, position + 1
            continue
        end = command.find(character, position + 1)
        if end < 0:
            fault = f"the quote {character} at character {position + 1} is not closed"
            raise InvalidValue(f"bad command: {fault}", field="command")
        inside = command[position + 1 : end]
        text, quoted, has_quotes, position = text + inside, quoted + inside, True, end + 1
    return Word(text, bare, quoted, has_quotes), position
