"""Running an agent: one that a plugin brought, or one behind a URL that the operator configured."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shlex
from http import HTTPStatus
from typing import Any

from carapace_cron.errors import CarapaceError, Unavailable, WorkStopped
from carapace_cron.gateway.hookspecs import Agent
from carapace_cron.gateway.http_client import HttpAnswer, HttpClient
from carapace_cron.gateway.settings import AgentByUrl
from carapace_cron.gateway.strict_json import InvalidJson, dump_json, parse_json
from carapace_cron.ports.host import AgentCall, AgentReply

log = logging.getLogger(__name__)

_STATUSES = ("success", "degraded", "failure")
_MAY_HELP_LATER = frozenset({408, 425, 429})  # besides 5xx


async def call_agent(agent: Agent, call: AgentCall) -> AgentReply:
    """The agent's reply; a text is a success, an unexpected exception a failure with an id for the log.

    Raises `CarapaceError` as the agent does, such as `Unavailable`.
    """
    try:
        reply = await agent(call)
    except CarapaceError:
        raise
    except Exception:
        error_id = secrets.token_hex(6)
        log.exception(
            "agent %s failed (error id %s)", call.agent, error_id,
            extra={"action": "agent_failed", "error_id": error_id},
        )
        return _failure(f"agent {call.agent} failed unexpectedly; the gateway's log has it as {error_id}")
    if isinstance(reply, str):
        return AgentReply(reply)
    if isinstance(reply, AgentReply):
        return reply
    return _failure(f"agent {call.agent} answered a {type(reply).__name__}: expected a text or an AgentReply")


def agent_by_url(settings: AgentByUrl, client: HttpClient) -> Agent:
    """An agent that hands each call to `settings.url`.

    Sent: ``{"agent", "arguments", "command", "tenant", "userId", "idempotencyKey", "metadata"}``.
    Understood: ``{"output", "status", "error"}`` (status: success | degraded | failure), or any other text.
    """

    async def agent(call: AgentCall) -> AgentReply:
        try:
            answer = await client.request(
                "POST",
                settings.url,
                headers=_headers(settings, call),
                body=dump_json(_wire(call)).encode(),
                timeout_seconds=settings.timeout_seconds,
                trusted_origin=True,
            )
        except Unavailable as error:  # its sentence names the address, which is the operator's to know
            log.warning("agent %s gave no answer: %s", call.agent, error, extra={"action": "agent_away"})
            raise Unavailable(f"agent {call.agent} gave no answer") from error
        except asyncio.CancelledError as stop:  # the client lets it out once the connection is closed
            raise WorkStopped({"connection": "closed"}) from stop
        return _reply(call.agent, answer)

    return agent


def _headers(settings: AgentByUrl, call: AgentCall) -> dict[str, str]:
    own = {name: value.get_secret_value() for name, value in settings.headers.items()}
    return {"Content-Type": "application/json", "Idempotency-Key": call.idempotency_key, **own}


def _wire(call: AgentCall) -> dict[str, Any]:
    return {
        "agent": call.agent,
        "arguments": list(call.arguments),
        "command": shlex.join([call.agent, *call.arguments]),
        "tenant": call.tenant,
        "userId": call.user_id,
        "idempotencyKey": call.idempotency_key,
        "metadata": dict(call.metadata),
    }


def _reply(name: str, answer: HttpAnswer) -> AgentReply:
    text = answer.body.decode("utf-8", "replace")
    if not 200 <= answer.status < 300:
        sentence = f"agent {name} answered {_status_text(answer.status)}; expected 2xx"
        if answer.status >= 500 or answer.status in _MAY_HELP_LATER:
            raise Unavailable(sentence)
        return AgentReply(text, "failure", sentence)
    if answer.truncated:  # half a JSON text says nothing about its status
        return AgentReply(text)
    return _reply_of_text(name, text)


def _reply_of_text(name: str, text: str) -> AgentReply:
    try:
        value = parse_json(text)
    except InvalidJson:
        return AgentReply(text)
    if not isinstance(value, dict) or not value.keys() & {"output", "status", "error"}:
        return AgentReply(text)
    status = value.get("status", "failure" if value.get("error") else "success")
    if status not in _STATUSES:
        return _failure(f"agent {name} answered status {status!r:.40}: expected {', '.join(_STATUSES)}")
    error = value.get("error")
    return AgentReply(_text_of(value.get("output", "")), status, None if error is None else _text_of(error))


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _failure(sentence: str) -> AgentReply:
    return AgentReply("", "failure", sentence)
