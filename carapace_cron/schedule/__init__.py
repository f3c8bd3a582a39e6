"""Time: parse a schedule once, then ask it when next.

Pure: reads no clock and keeps nothing. The door is `parse`; `schedule.py` says what a schedule answers, and
`daylight.py` what happens when clocks change.
"""

from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.parse import parse
from carapace_cron.schedule.schedule import Schedule

__all__ = ["Schedule", "ScheduleError", "parse"]
