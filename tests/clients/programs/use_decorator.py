"""healthchecks-decorator 0.5.0 from PyPI: its address by argument and by environment."""

import contextlib
import os
import sys

from healthchecks_decorator import healthcheck

(ADDRESS,) = sys.argv[1:]


@healthcheck(url=ADDRESS, send_start=True, send_diagnostics=True)
def copy():
    return {"copied": 3}


assert copy() == {"copied": 3}
os.environ["HEALTHCHECK_URL"] = ADDRESS


@healthcheck
def fail():
    raise ValueError("no space left")


with contextlib.suppress(ValueError):
    fail()
