"""The kind `slack`: a notice becomes a message of blocks, by an incoming webhook of Slack's.

Slack reads three signs in a text as its own: ``<!channel>`` calls everybody, ``<https://…|text>`` is a link
that shows what it likes. They are escaped, and outputs go into a block in which nothing is read at all.
Source: docs.slack.dev, "Formatting message text" and "Sending messages using incoming webhooks", 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field, SecretStr, field_validator

from carapace_cron.channels.posting import HttpDoor, Poster, http_url, judge, word_in
from carapace_cron.channels.settings import KindSettings, read_settings
from carapace_cron.clock import Clock
from carapace_cron.hookspecs import ChannelFactory
from carapace_cron.model.notice import AnyNotice
from carapace_cron.model.run import bounded
from carapace_cron.model.untrusted import one_line
from carapace_cron.ports.channel import Channel

_WHAT = "Slack"
HEADER_LIMIT = 150  # characters, as Slack counts them
SECTION_LIMIT = 3_000
OUTPUT_LIMIT = 6_000  # of a whole message, Slack takes 40,000; nobody reads them
LONGEST_ESCAPE = len("&amp;")


class SlackSettings(KindSettings):
    """``[channels.<id>] kind = "slack"``."""

    url: SecretStr  # of the incoming webhook, which is bound to one channel of Slack's
    timeout_seconds: float = Field(10, ge=1, le=25)

    _is_http = field_validator("url")(http_url)


class SlackChannel:
    """One incoming webhook."""

    kind = "slack"

    def __init__(self, settings: SlackSettings, http: HttpDoor, clock: Clock) -> None:
        self._poster = Poster(_WHAT, settings.url, settings.timeout_seconds, http)
        self._clock = clock

    async def send(self, notice: AnyNotice) -> None:
        body = json.dumps(message(notice), ensure_ascii=False, separators=(",", ":")).encode()
        answer = await self._poster.post(body, {})
        judge(_WHAT, answer, self._clock.now(), said=word_in(answer))

    async def close(self) -> None:
        """Nothing is held open: the client is the house's."""


def open_slack(http: HttpDoor, clock: Clock) -> ChannelFactory:
    """The factory of the kind `slack`, for `register_channel_kinds`."""

    def factory(channel_id: str, given: Mapping[str, Any]) -> Channel:
        return SlackChannel(read_settings(SlackSettings, channel_id, given), http, clock)

    return factory


def message(notice: AnyNotice) -> dict[str, Any]:
    """The payload: title, what happened, the output as it is. `text` is what a phone shows."""
    sign = "\N{WHITE HEAVY CHECK MARK}" if notice.success else "\N{CROSS MARK}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(one_line(f"{sign} {notice.title}", HEADER_LIMIT), HEADER_LIMIT)},
        {"type": "section", "text": _plain(notice.summary, SECTION_LIMIT)},
    ]
    if notice.output:
        blocks.append(_verbatim(bounded(notice.output, OUTPUT_LIMIT)))
    return {
        "text": escaped(f"{sign} {notice.title}"),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def escaped(text: str) -> str:
    """
    >>> escaped("<!channel> R&D")
    '&lt;!channel&gt; R&amp;D'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str, limit: int) -> dict[str, Any]:
    fitting = escaped(bounded(text, limit))
    if len(fitting) > limit:  # almost nothing but signs that are escaped
        fitting = escaped(bounded(text, limit // LONGEST_ESCAPE))
    return {"type": "plain_text", "text": fitting, "emoji": False}


def _verbatim(text: str) -> dict[str, Any]:
    """A block of code. Its element of type ``text`` is shown letter for letter."""
    code = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [code]}
