"""Commands for the gateway's AI agents: ``agent: generate-report --daily``."""

from __future__ import annotations

import asyncio
import re
from typing import Literal, cast

from carapace_cron.errors import InvalidValue, NotFound, Refused, Unavailable, WorkStopped
from carapace_cron.model.job import HttpRequest
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import ERROR_LIMIT, Outcome, bounded
from carapace_cron.model.untrusted import clean
from carapace_cron.ports.host import AgentCall, AgentReply, Host
from carapace_cron.ports.runner import Work
from carapace_cron.runners.upstream import upstream_envelope
from carapace_cron.runners.words import split_words

PREFIX = "agent:"
MAX_ARGUMENTS = 64

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_STATUSES = ("success", "degraded", "failure")


class AgentCommandRunner:
    """Hands the command to the host, which has the agents, and takes the agent's word on how it went."""

    kind = "agent_command"
    example = "agent: generate-report --daily"

    def __init__(self, host: Host) -> None:
        self._host = host

    def claims(self, command: str) -> bool:
        return command.startswith(PREFIX)

    def check(self, command: str, http: HttpRequest | None) -> None:
        agent, _ = parse_agent_command(command)
        if agent not in self._host.agents():
            raise InvalidValue(self._unknown(agent), field="command")

    async def run(self, work: Work) -> Outcome:
        try:
            agent, arguments = parse_agent_command(work.command)
        except Refused as error:
            return Outcome("failure", error=str(error), permanent=True)
        try:
            reply = await self._host.run_agent(_call(work, agent, arguments))
        except NotFound:
            return Outcome("failure", error=self._unknown(agent), permanent=True)
        except Unavailable as error:
            return Outcome("failure", error=f'the agent "{agent}" cannot be reached: {error}')
        except asyncio.CancelledError as stop:  # the host lets it out once the agent has stopped
            raise WorkStopped({"agent": "stopped"}) from stop
        return _outcome(agent, reply)

    def _unknown(self, agent: str) -> str:
        known = ", ".join(sorted(self._host.agents())) or "none is registered"
        return f'unknown agent "{agent}": expected one of this gateway\'s agents ({bounded(known, 300)})'


def parse_agent_command(command: str) -> tuple[str, tuple[str, ...]]:
    """The agent's name and its arguments. Raises `InvalidValue`, field ``command``.

    >>> parse_agent_command("agent: generate-report --title 'Week 7' $HOME")
    ('generate-report', ('--title', 'Week 7', '$HOME'))
    """
    words = split_words(command.removeprefix(PREFIX))
    if not words:
        raise _bad(f"expected a name after {PREFIX}, such as {AgentCommandRunner.example}")
    name, arguments = words[0], tuple(word.text for word in words[1:])
    if name.has_quotes or _NAME.fullmatch(name.text) is None:
        raise _bad(f'agent name "{name.text[:100]}": expected small letters, digits, . _ and -')
    if len(arguments) > MAX_ARGUMENTS:
        raise _bad(f"it has {len(arguments)} arguments, expected at most {MAX_ARGUMENTS}")
    return name.text, arguments


def _bad(reason: str) -> InvalidValue:
    return InvalidValue(f"bad agent command: {reason}", field="command")


def _call(work: Work, agent: str, arguments: tuple[str, ...]) -> AgentCall:
    return AgentCall(
        agent=agent,
        arguments=arguments,
        tenant=work.tenant,
        user_id=work.user_id,
        idempotency_key=work.run_id,
        metadata={
            "jobId": work.job_id,
            "runId": work.run_id,
            "attempt": work.attempt,
            "scheduledFor": instant_text(work.scheduled_for),
            **upstream_envelope(work),
        },
    )


def _outcome(agent: str, reply: AgentReply) -> Outcome:
    """What the agent said, as data: cleaned and bounded. A status that is none of ours is a failure."""
    output = bounded(clean(reply.output))
    if reply.status not in _STATUSES:
        said = bounded(clean(reply.status), 100)
        fault = f'the agent "{agent}" ended with status "{said}"; expected {", ".join(_STATUSES)}'
        return Outcome("failure", output=output, error=fault)
    status = cast(Literal["success", "degraded", "failure"], reply.status)
    error = None if reply.error is None else bounded(clean(reply.error), ERROR_LIMIT)
    if status == "failure" and not error:
        error = f'the agent "{agent}" said that it failed, without a reason'
    return Outcome(status, output=output, error=None if status == "success" else error)
