"""runchecked 0.1.1 from PyPI: it comes again, three times, unless the answer begins with "ok"."""

import sys

from runchecked import HealthCheckedContext

ADDRESS, COMMAND = sys.argv[1:]

with HealthCheckedContext(ADDRESS) as job:
    job.run([COMMAND])
