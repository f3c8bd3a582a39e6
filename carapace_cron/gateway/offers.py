"""What plugins offer under a name, first come, first kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Offers(Mapping[str, T], Generic[T]):
    """Names of one kind of thing (methods, agents, …), each with the plugin that brought it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._things: dict[str, tuple[str, T]] = {}  # name → owner, thing

    def add(self, owner: str, name: str, thing: T) -> str | None:
        """Keep it; or, when the name is taken, leave it and say so in a sentence."""
        taken_by = self._things.setdefault(name, (owner, thing))[0]
        if taken_by == owner:
            return None
        return f'{self._kind} "{name}" refused: {taken_by} has one of that name'

    def withdraw(self, owner: str) -> None:
        """Forget all that `owner` brought."""
        self._things = {name: pair for name, pair in self._things.items() if pair[0] != owner}

    def of(self, owner: str) -> tuple[str, ...]:
        """The names that `owner` brought, sorted."""
        return tuple(sorted(name for name, pair in self._things.items() if pair[0] == owner))

    def __getitem__(self, name: str) -> T:
        return self._things[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)
