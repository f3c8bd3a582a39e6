"""Seeds that once found a defect, each with what it was; they are told again with every test.

A change of the stories changes what a seed tells. So each defect has a test of its own, too, and its seed is
looked for anew: with the mend taken out, the first seed that fails takes the place of the old one.
"""

from __future__ import annotations

KEPT_SEEDS: dict[int, str] = {
    3: "what was due by an old definition was recorded though a newer one was in force",
    19: "a job with deleteAfterRun was deleted after a mere backfill",
    28: "what was due under a definition was not settled before the next one was in force, and was lost",
    46: "a gateway was taken for gone as its leases looked old by a wall clock that had been moved",
    148: "a run that waited for its turn outlived its deadline in the queue",
    183: "what was missed before the run that used up maxRuns got no record",
    350: "a job that began within a leap of the clock lost an instant that others of its schedule had, too",
}
