"""Notices of monitors on their way to channels: fields for machines, a sentence for people, data as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from carapace_cron.channels.envelope import envelope
from carapace_cron.channels.gateway import HostChannelAdapter
from carapace_cron.model.notice import NOTICES, MonitorNotice
from carapace_cron.model.untrusted import presentable

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "channels.md").read_text()


def test_the_payload_has_the_fields_of_the_page(monitor_notice: MonitorNotice) -> None:
    told = envelope(monitor_notice.evolve(last_ping_at=monitor_notice.at, duration_ms=12))
    section = PAGE.partition("Of a [monitor](monitors.md)")[2].partition("The host's own channels")[0]
    documented = {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
                  for name in re.findall(r"`(\w+)`", row)}  # fmt: skip
    assert set(told) == documented
    assert told["output"] == {"type": "ping_body", "untrusted": True, "text": ""}
    assert (told["event"], told["title"]) == ("monitor.down", "Backup: down")
    assert told["at"] == "2026-11-21T09:00:00Z"


def test_what_a_job_wrote_is_made_harmless_and_stays_data(monitor_notice: MonitorNotice) -> None:
    hostile = monitor_notice.evolve(
        monitor_name="Backup\r\nBcc: mallory@example.com", output="\x1b[31mred\x00\u202e", reason="ok\x07"
    )
    shown = presentable(hostile)
    assert isinstance(shown, MonitorNotice)
    assert shown.title == "Backup Bcc: mallory@example.com: down"
    assert shown.text == "ok\n\nOutput:\nred"
    assert len(presentable(monitor_notice.evolve(output="x" * 100_000)).output) <= 16_384


def test_a_notice_that_was_kept_is_the_one_that_is_read(monitor_notice: MonitorNotice) -> None:
    kept = monitor_notice.model_dump_json(by_alias=True, exclude_none=True)
    assert NOTICES.validate_json(kept) == monitor_notice


async def test_the_hosts_channel_gets_title_text_and_fields(monitor_notice: MonitorNotice, host: Any) -> None:
    await HostChannelAdapter(host, "gateway").send(monitor_notice)
    [message] = host.messages
    assert (message.title, message.text) == ("Backup: down", "No ping came in time.")
    assert message.data == envelope(monitor_notice) and message.idempotency_key == monitor_notice.id
    assert (message.tenant, message.user_id, message.scope) == ("acme", "alice", "monitors:read")


def test_all_of_one_incident_have_one_topic(monitor_notice: MonitorNotice) -> None:
    up = monitor_notice.evolve(id="other", event="monitor.up", success=True)
    assert up.topic == monitor_notice.topic == "incident-1"
    assert up.title == "Backup: up"
