"""The audit trail as callers see it: who changed what, from what, to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from carapace_cron.errors import InvalidValue
from carapace_cron.ledger.events import ACTIONS, Event, Events
from carapace_cron.model.actor import Actor
from carapace_cron.model.record import instant_text
from carapace_cron.schedule.errors import shown
from carapace_cron.services.access import name_for, require_one_of
from carapace_cron.services.paging import check_page

MAX_PAGE = 500
OF_MONITORS = "monitor."  # what the scope monitors:read shows; jobs:read shows all else


class EventDesk:
    """Events of what is the caller's; an admin's view is the whole of their tenant."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def page(
        self,
        actor: Actor,
        *,
        job_id: str | None,
        action: str | list[str] | None,
        limit: int,
        cursor: int | None,
    ) -> dict[str, Any]:
        """Newest first: ``{items, nextCursor}``; nextCursor null on the last page."""
        visible = _visible(actor)
        check_page(limit, cursor, most=MAX_PAGE)
        wanted = _actions(action)
        found = await self._events.page(
            tenant=actor.tenant,
            user_id=None if actor.is_admin else actor.user,
            job_id=job_id,
            actions=[one for one in wanted if one in visible],
            before=cursor,
            limit=limit + 1,
        )
        following = found[limit - 1].sequence if len(found) > limit else None
        return {"items": [_view(actor, event) for event in found[:limit]], "nextCursor": following}


def _visible(actor: Actor) -> Sequence[str]:
    """The actions that the caller's scopes show. Raises `Forbidden` when they show none."""
    require_one_of(actor, "jobs:read", "monitors:read")
    scope_of = {one: "monitors:read" if one.startswith(OF_MONITORS) else "jobs:read" for one in ACTIONS}
    return [one for one, scope in scope_of.items() if actor.may(scope)]


def _actions(given: str | list[str] | None) -> Sequence[str]:
    if given is None:
        return ACTIONS
    actions = [given] if isinstance(given, str) else given
    if not 1 <= len(actions) <= len(ACTIONS):
        expected = f"expected an action or a list of 1–{len(ACTIONS)} actions"
        raise InvalidValue(f"bad action: {expected}, found {len(actions)}", field="action")
    for one in actions:
        if one not in ACTIONS:
            expected = f"expected one of {', '.join(ACTIONS)}"
            raise InvalidValue(f'bad action "{shown(one)}": {expected}', field="action")
    return actions


def _view(actor: Actor, event: Event) -> dict[str, Any]:
    """An event on the wire: every name is there, null where there is nothing to say."""
    if event.action.startswith(OF_MONITORS):
        event = _named_for(actor, event)
    return {
        "id": event.sequence,
        "at": instant_text(event.at),
        "actor": event.actor,
        "action": event.action,
        "subject": event.subject,
        "userId": event.user_id,
        "jobId": event.job_id,
        "before": event.before,
        "after": event.after,
    }


def _named_for(actor: Actor, event: Event) -> Event:
    """An event of a monitor; the monitors in it are called as the caller may call them."""
    return replace(
        event,
        subject=name_for(actor, event.subject),
        before=_parents_named(actor, event.before),
        after=_parents_named(actor, event.after),
    )


def _parents_named(actor: Actor, fields: dict[str, Any] | None) -> dict[str, Any] | None:
    if fields is None or "dependsOn" not in fields:
        return fields
    return fields | {"dependsOn": [name_for(actor, one) for one in fields["dependsOn"]]}
