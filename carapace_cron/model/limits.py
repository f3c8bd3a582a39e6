"""What may work at once, apart from the slots of one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """`by_label`: runs of a channel or with a tag, ``{"channel:ops": 2, "tag:db": 1}``; a label that is not
    named has no limit. `per_tenant`: runs of one tenant; None = no limit."""

    by_label: Mapping[str, int] = field(default_factory=dict)
    per_tenant: int | None = None


NO_LIMITS = Limits()
