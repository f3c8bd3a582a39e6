"""Whether the definition of a job will do: its schedule, its window, its command, its channel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from carapace_cron.clock import Clock
from carapace_cron.errors import AddressNotAllowed, Conflict, InvalidValue
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.job import HttpRequest, Job, JobDraft, JobPolicy
from carapace_cron.model.monitor import JobMonitor
from carapace_cron.model.record import instant_text
from carapace_cron.ports.channel import ChannelRules
from carapace_cron.schedule import Schedule
from carapace_cron.services.schedules import Schedules, just_before, naming


class CommandRules(Protocol):
    """Raises `Refused` for a command that no runner would run."""

    def check(self, command: str, http: HttpRequest | None) -> None: ...


class JobRules:
    """All methods raise `Refused`, naming the first field that will not do."""

    def __init__(
        self,
        runs: Runs,
        clock: Clock,
        *,
        schedules: Schedules,
        commands: CommandRules,
        channels: ChannelRules,
    ) -> None:
        self._runs = runs
        self._clock = clock
        self._schedules = schedules
        self._commands = commands
        self._channels = channels

    def check(
        self, tenant: str, draft: JobDraft | Job, *, said: Mapping[str, Any], job: Job | None = None
    ) -> Schedule:
        """The schedule of a draft that may become a job, or the next definition of `job`.

        `said`: what the caller wrote, for the name that they have for the schedule.
        """
        with naming("schedule" if said.get("cronExpression") is None else "cronExpression"):
            schedule = self._checked_schedule(draft, job)
        if job is None or draft.enabled:
            self.check_window(draft, schedule)
        _check_deadline(draft)
        try:
            self._commands.check(draft.command, draft.http)
        except AddressNotAllowed as error:
            expected = "expected a public host, or one that the operator allows (URL_ALLOW)"
            raise AddressNotAllowed(f"{error}: {expected}", field=error.field) from error
        self._channels.check(draft.channel_id, tenant)
        if draft.monitor is not None:
            self._check_told(draft.monitor, tenant)
        return schedule

    def _check_told(self, monitor: JobMonitor, tenant: str) -> None:
        told = [*monitor.channels, *(channel for one in monitor.reminders for channel in one.channels)]
        for channel_id in told:
            try:
                self._channels.check(channel_id, tenant)
            except InvalidValue as error:
                raise InvalidValue(str(error), field="monitor") from error

    def check_window(self, policy: JobPolicy, schedule: Schedule) -> None:
        """Raises `InvalidValue` unless an instant lies between startAt and endAt."""
        first = schedule.next_after(self.first_after(policy))
        if first is None and policy.start_at is not None:
            message = f"bad startAt {instant_text(policy.start_at)}: no instant of the schedule lies after it"
            raise InvalidValue(message, field="startAt")
        if policy.end_at is not None and first is not None and first > policy.end_at:
            message = f"bad endAt {instant_text(policy.end_at)}: no instant of the schedule lies before it"
            raise InvalidValue(message, field="endAt")

    async def check_runs_left(self, job_id: str, policy: JobPolicy) -> None:
        """Raises `Conflict` when a job under this policy would be over as soon as it is enabled."""
        if policy.max_runs is None:
            return
        progress = (await self._runs.progress_of([job_id])).get(job_id)
        if progress is not None and progress.runs_created >= policy.max_runs:
            message = f"the job has had {progress.runs_created} runs and maxRuns is {policy.max_runs}"
            raise Conflict(f"{message}: raise maxRuns by an update", field="maxRuns")

    def first_after(self, policy: JobPolicy) -> datetime:
        """The instant after which the first run of a job falls."""
        opens = (policy.start_at, policy.paused_until if isinstance(policy, Job) else None)
        return max([self._clock.now(), *(just_before(at) for at in opens if at is not None)])

    def _checked_schedule(self, draft: JobDraft | Job, job: Job | None) -> Schedule:
        now = self._clock.now()
        anchor = now if job is None else job.created_at
        if job is not None and not draft.enabled:  # what has come to its end can still be renamed
            return self._schedules.read(draft, anchor)
        return self._schedules.check(draft, anchor, now)


def _check_deadline(policy: JobPolicy) -> None:
    """Raises `InvalidValue` when runs could be over before their jitter lets them begin."""
    deadline, jitter = policy.deadline_seconds, policy.jitter_seconds
    if deadline is not None and deadline <= jitter:
        message = f"bad deadlineSeconds {deadline:g}: expected more than jitterSeconds, which is {jitter:g}"
        raise InvalidValue(message, field="deadlineSeconds")
