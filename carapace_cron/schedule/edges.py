"""A set of whole numbers, seconds for us, as the ascending *edges* at which it begins and ends in turn.

``(low, begin, end, begin, end, …, high)``: in the set from each begin to before its end. Between two edges
nothing changes, so a look at one number, by bisection, tells of all its neighbours.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import TypeAlias

Edges: TypeAlias = "array[int]"  # 8 bytes a number: 366 dates make 734 of them, in each of many calendars


def edges_of(stretches: Iterable[tuple[int, int]], low: int, high: int) -> Edges:
    """The edges of stretches ``[begin, end)`` between `low` and `high`, in any order; they may overlap.

    >>> edges_of([(5, 7), (1, 2), (6, 9), (9, 10)], 0, 100).tolist()
    [0, 1, 2, 5, 10, 100]
    """
    edges = array("q", [low])
    for begin, end in sorted(stretches):
        if len(edges) > 1 and begin <= edges[-1]:
            edges[-1] = max(edges[-1], end)
        else:
            edges.extend((begin, end))
    edges.append(high)
    return edges


def around(edges: Edges, at: int) -> tuple[bool, int, int]:
    """Whether `at` is in the set, and the stretch ``[begin, end)`` around it of which the same is true.

    >>> edges = edges_of([(5, 7)], 0, 100)
    >>> around(edges, 4), around(edges, 5), around(edges, 7)
    ((False, 0, 5), (True, 5, 7), (False, 7, 100))
    """
    place = bisect_right(edges, at)
    return place % 2 == 0, edges[place - 1], edges[place]
