"""What a job, an agent or a remote server wrote is data: made harmless to read before it goes anywhere.

No filter stops a prompt injection; what this removes are the characters that make a text look different
from what it says: control and escape sequences, bidirectional overrides, invisible letters.
"""

from __future__ import annotations

import re

from carapace_cron.model.notice import AnyNotice, MonitorNotice
from carapace_cron.model.run import ERROR_LIMIT, bounded

CHANNEL_OUTPUT_LIMIT = 16_384  # characters of a run's output that a channel gets, head and tail
NAME_LIMIT = 200  # characters of a title

_ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC (titles, links), DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # two-character escapes, and an ESC that nothing follows
)
_LINE_ENDS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # C0 and C1 controls but \n, \t and the line ends above
    "\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f"  # soft hyphen, marks and fillers of no width
    "\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # bidi embeddings, overrides and isolates; annotations
    "\ud800-\udfff"  # lone surrogates, which no encoding carries
    "\U000e0000-\U000e007f"  # tags: whole sentences that only a language model sees
    "]"
)


def clean(text: str) -> str:
    r"""`text` without control, escape, bidirectional and invisible characters; \n and \t stay.

    Joiners (U+200C, U+200D) stay too: emoji and several scripts are spelled with them. Every kind of
    line end becomes \n.

    >>> clean("\x1b[31mred\x1b[0m\r\nnext\x00 \u202egpj.exe\t.")
    'red\nnext gpj.exe\t.'
    """
    return _INVISIBLE.sub("", _LINE_ENDS.sub("\n", _ESCAPE_SEQUENCES.sub("", text)))


def one_line(text: str, limit: int = NAME_LIMIT) -> str:
    r"""`text` cleaned, on one line, cut at `limit` characters: fit for a title or a mail's subject.

    >>> one_line("Report\r\nBcc: mallory@example.com")
    'Report Bcc: mallory@example.com'
    """
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def presentable(notice: AnyNotice) -> AnyNotice:
    """The notice as channels get it: name on one line, output and error cleaned and bounded."""
    if isinstance(notice, MonitorNotice):
        return notice.evolve(
            monitor_name=one_line(notice.monitor_name),
            reason=bounded(clean(notice.reason), ERROR_LIMIT),
            output=bounded(clean(notice.output), CHANNEL_OUTPUT_LIMIT),
        )
    return notice.evolve(
        job_name=one_line(notice.job_name),
        output=bounded(clean(notice.output), CHANNEL_OUTPUT_LIMIT),
        error=None if notice.error is None else bounded(clean(notice.error), ERROR_LIMIT),
    )
