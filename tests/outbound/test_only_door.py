"""No module opens a connection but the door, and those that must, each with its reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import carapace_cron

ROOT = Path(carapace_cron.__file__).parent
OPENERS = re.compile(
    r"ClientSession\(|TCPConnector\(|aiohttp\.request\(|urllib\.request|urlopen\(|http\.client"
    r"|\bimport (?:requests|httpx|urllib3|pycurl|ftplib|smtplib|telnetlib)\b"
    r"|\bimport (?:aiosmtplib|aioboto3|boto3|botocore|aiobotocore|apprise|websockets)\b"
    r"|\bfrom (?:requests|httpx|urllib3|aioboto3|boto3|aiobotocore|botocore|apprise|smtplib|websockets)\b"
    r"|create_connection\(|\.connect(?:_ex)?\(\(|open_connection\(|sock_connect\(|create_datagram_endpoint\("
)
ALLOWED = {
    "outbound/client.py": "the door itself",
    "cli/http.py": "the command line on the user's own machine, where the user may open any connection",
    "channels/email.py": "the operator's own mail server, which speaks no HTTP",
    "channels/apprise.py": "the operator's own services, spoken by a library that knows no door of ours",
}
S3 = re.compile(r"objects/s3[a-z_]*\.py")  # the operator's own store, spoken by aioboto3


def _is_allowed(name: str) -> bool:
    return S3.fullmatch(name) is not None or name in ALLOWED


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_it_opens_no_connection_of_its_own(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = OPENERS.findall(path.read_text())
    assert _is_allowed(name) or not found, f"{name} opens connections ({found}); use carapace_cron.outbound"


@pytest.mark.parametrize("name", ALLOWED)
def test_each_exception_is_still_needed(name: str) -> None:
    assert OPENERS.findall((ROOT / name).read_text()), f"{name} opens nothing: take it off the list"
