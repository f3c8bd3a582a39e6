"""Jobs of every kind at schedules of one and two seconds, and the settings of a gateway that may run them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from support.checker import Due, JobMade, each_elapsed, each_second, once_after
from support.gateway_process import GatewayProcess
from support.outside import Outside

ADMIN_TOKEN = "an-admin-token-of-tests"
SIGNING_SECRET = "a-secret-that-signs-webhooks"

# Quick, and often enough that no row of kills uses them up.
RETRY = {"maxAttempts": 8, "initialSeconds": 0.3, "factor": 1}
ONCE = {"maxAttempts": 1}


@dataclass(frozen=True)
class Kind:
    """One kind of job: what is sent to create it, and what the test knows of it by itself."""

    schedule: str
    due: Due
    command: str
    channel: str = "hook"
    path: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def draft(self, name: str) -> dict[str, Any]:
        own = {"schedule": self.schedule, "command": self.command, "channelId": self.channel}
        return {"name": name, **own, "retry": RETRY, **self.settings}


def every_kind(world: Outside, tally: Path) -> dict[str, Kind]:
    """name → kind. `tally`: the file in which the operator's program counts its starts."""
    url = world.url
    post = {"method": "POST", "body": json.dumps({"count": 1}), "expectStatus": [201]}
    return {
        "get": Kind(
            "* * * * * *", each_second(1), f"{url}/quick", path="/quick",
            settings={"catchUp": "all", "overlap": "queue"},
        ),
        "post": Kind(
            "*/2 * * * * *", each_second(2), f"{url}/created", path="/created", settings={"http": post}
        ),
        "agent": Kind("every 2s", each_elapsed(2), "agent: reporter --daily", "pager", "/agent"),
        "echo": Kind("* * * * * *", each_second(1), "echo hello", "gateway"),
        "program": Kind("@every 2s", each_elapsed(2), f"tally {tally}", settings={"catchUp": "none"}),
        "flaky": Kind(
            "*/2 * * * * *", each_second(2), f"{url}/flaky", "pager", "/flaky", settings={"overlap": "allow"}
        ),
        "slow": Kind("* * * * * *", each_second(1), f"{url}/slow?seconds=1.4", path="/slow"),
        "cancelled": Kind(
            "*/2 * * * * *", each_second(2), f"{url}/cancelled?seconds=2.6", path="/cancelled",
            settings={"overlap": "cancelPrevious"},
        ),
        "broken": Kind(
            "*/2 * * * * *", each_second(2), f"{url}/broken", path="/broken",
            settings={"notify": "failure", "retry": ONCE, "catchUp": "all"},
        ),
        "silent": Kind("every 1s", each_elapsed(1), "whoami", settings={"notify": "never"}),
        "stuck": Kind(
            "*/2 * * * * *", each_second(2), f"{url}/hang", path="/hang",
            settings={"timeoutSeconds": 0.5, "retry": ONCE, "overlap": "allow"},
        ),
        "soon": Kind(
            "in 3s", once_after(3), f"{url}/quick", path="/quick", settings={"deleteAfterRun": True}
        ),
    }


async def create(gateway: GatewayProcess, kinds: Mapping[str, Kind]) -> dict[str, JobMade]:
    """name → the job that was made."""
    return {name: await create_one(gateway, name, kind) for name, kind in kinds.items()}


async def create_one(gateway: GatewayProcess, name: str, kind: Kind) -> JobMade:
    draft = kind.draft(name)
    made = await gateway.call("carapace.cron.create", data=draft)
    return JobMade(
        id=made["id"],
        created=datetime.fromisoformat(made["createdAt"]),
        due=kind.due,
        channel=kind.channel,
        path=kind.path,
        notify=draft.get("notify", "always"),
        overlap=draft.get("overlap", "skip"),
        catch_up=draft.get("catchUp", "latest"),
        max_attempts=draft["retry"]["maxAttempts"],
    )


def settings_for(folder: Path, world: Outside) -> dict[str, str]:
    """``CARAPACE_CRON_…`` for a gateway in `folder`; its channels, agent and program are in a file there."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = {
        "tally": _program(folder, "tally", 'echo started >> "$1"\necho counted\n'),
        "stubborn": _program(folder, "stubborn", 'trap "" TERM\necho $$ >> "$1"\nsleep 600\n'),
    }
    (folder / "carapace.toml").write_text(_CONFIG.format(url=world.url, port=world.port, **programs))
    return {
        "DATA_DIR": str(folder / "data"),
        "MIN_INTERVAL_SECONDS": "1",
        "MAX_CONCURRENT_RUNS": "40",
        "URL_ALLOW": f"127.0.0.1:{world.port}",
        "SHUTDOWN_GRACE_SECONDS": "1",
        "SECRET_HOOK": SIGNING_SECRET,
    }


def _program(folder: Path, name: str, script: str) -> Path:
    path = folder / f"{name}.sh"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path


_CONFIG = """\
[channels.hook]
kind = "webhook"
url = "{url}/webhook"
secret = "${{secret:HOOK}}"

[channels.fickle]
kind = "webhook"
url = "{url}/fickle"

[channels.plain]
kind = "webhook"
url = "{url}/plain"

[channels.pager]
kind = "apprise"
url = "json://127.0.0.1:{port}/apprise"

[agents.reporter]
url = "{url}/agent"

[[programs]]
name = "tally"
path = "{tally}"
arguments = ["/[A-Za-z0-9/_.-]+"]

[[programs]]
name = "stubborn"
path = "{stubborn}"
arguments = ["/[A-Za-z0-9/_.-]+"]
"""
