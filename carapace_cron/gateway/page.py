"""The page at ``/``: what this is, where to send requests, which plugins there are. No script, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib.metadata import version

from carapace_cron.gateway.plugins import PluginRecord

_DISTRIBUTION = "carapace-cron"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.6 system-ui, sans-serif; max-width: 44rem; margin: 4rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin-top: 2.2rem; }
code { font: .92em ui-monospace, monospace; background: rgba(128, 128, 128, .15); padding: .1em .35em;
  border-radius: .3em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid rgba(128, 128, 128, .3); }
.quiet { opacity: .7; }
.loaded { color: #2a8a4a; } .failed { color: #c8442f; } .disabled { opacity: .6; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: its own style, by hash, and nothing else."""


def program_version() -> str:
    return version(_DISTRIBUTION)


def home_page(records: Iterable[PluginRecord], not_ready: str | None) -> str:
    """The whole page. Shows names and states only, as anyone who reaches the gateway may read it."""
    state = "It is up and ready." if not_ready is None else f"It is not ready: {escape(not_ready)}."
    rows = "".join(map(_row, records)) or '<tr><td colspan="3" class="quiet">none</td></tr>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>carapace gateway</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>carapace gateway</h1>
<p class="quiet">version {escape(program_version())}</p>
<p>A gateway for AI agents. {state}</p>
<h2>Talk to it</h2>
<p>JSON-RPC 2.0: <code>POST /rpc</code>, or a WebSocket at <code>/rpc</code>, with
<code>Authorization: Bearer &lt;token&gt;</code>. Its state: <a href="/healthz"><code>/healthz</code></a>.</p>
<h2>Plugins</h2>
<table>
<thead><tr><th>Name</th><th>Version</th><th>State</th></tr></thead>
<tbody>{rows}</tbody>
</table>
<h2>Read on</h2>
<p>The methods, routes and limits are in <code>docs/reference/gateway.md</code>; how to add to it in
<code>docs/howto/write-a-plugin.md</code>.</p>
</body>
</html>
"""


def _row(record: PluginRecord) -> str:
    return (
        f"<tr><td>{escape(record.name)}</td><td>{escape(record.version)}</td>"
        f'<td class="{record.status}">{record.status}</td></tr>'
    )
