"""Schedules in words."""

from __future__ import annotations

from carapace_cron.schedule.cron import Cron


def cron_in_words(cron: Cron) -> str:
    return cron.text
