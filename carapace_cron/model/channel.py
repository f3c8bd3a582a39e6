"""A channel as the operator configures it: ``[channels.<id>]`` in the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from carapace_cron.model.record import Record


class ChannelSettings(Record):
    """What every kind has, and what only its kind understands.

    The kind's own settings may hold secrets (a URL with a token in it), so `repr` leaves them out.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )

    kind: str
    tenant: str | None = None  # whose jobs may name it; None: every tenant's

    @property
    def of_kind(self) -> Mapping[str, Any]:
        """The settings that the kind's factory gets, by the names that the operator wrote."""
        return self.model_extra or {}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        yield "kind", self.kind
        yield "tenant", self.tenant
