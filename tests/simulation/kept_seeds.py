"""Seeds that once found a defect, each with what it was; they are told again with every test.

A change of the stories changes what a seed tells. So each defect has a test of its own, too, and its seed is
looked for anew: with the mend taken out, the first seed that fails takes the place of the old one.
"""

from __future__ import annotations

KEPT_SEEDS: dict[int, str] = {}
