"""A running gateway, as the command line asks it: JSON-RPC with the caller's own token."""

from __future__ import annotations

import json
import os
from typing import Any, cast

from carapace_cron.cli.http import Answer, Unreachable, post
from carapace_cron.cli.url import check_url, origin
from carapace_cron.errors import CarapaceError, ConfigurationError, InvalidValue

URL_VARIABLE = "CARAPACE_CRON_URL"
TOKEN_VARIABLE = "CARAPACE_CRON_TOKEN"  # noqa: S105  # the name of a variable
DEFAULT_URL = "http://127.0.0.1:8787"

_TIMEOUT_SECONDS = 60.0  # the gateway itself answers within 45


class GatewayAnswer(CarapaceError):
    """The gateway did not do what was asked; the message says why, in its own words where it had any."""

    code = "gateway"


class RemoteGateway:
    """Asks one gateway, as the holder of one token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    @classmethod
    def from_environment(cls) -> RemoteGateway:
        """By ``CARAPACE_CRON_URL`` and ``CARAPACE_CRON_TOKEN``. Raises `ConfigurationError`."""
        try:
            url = check_url(os.environ.get(URL_VARIABLE) or DEFAULT_URL, URL_VARIABLE)
        except InvalidValue as error:
            raise ConfigurationError(str(error)) from error
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            first = "the gateway prints one at its first start"
            raise ConfigurationError(f"there is no token: set {TOKEN_VARIABLE} to an admin's ({first})")
        if not token.isascii() or not token.isprintable():
            raise ConfigurationError(f"bad {TOKEN_VARIABLE}: expected a token, printable ASCII in one line")
        return cls(url, token)

    def call(self, method: str, **params: Any) -> Any:
        """The data of one call. Raises `GatewayAnswer`, also when there is no gateway."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        said = self._said(self._posted(json.dumps(request).encode()))
        if "error" in said:
            raise GatewayAnswer(_fault(said["error"]))
        result = said.get("result")
        if not isinstance(result, dict) or "success" not in result:
            return result  # the methods of the gateway itself have no envelope
        if not result["success"]:
            raise GatewayAnswer(one_line(result.get("error")))
        return result.get("data")

    def _posted(self, body: bytes) -> Answer:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        try:
            return post(f"{self._url}/rpc", body, headers=headers, timeout_seconds=_TIMEOUT_SECONDS)
        except Unreachable as error:
            mend = f"start it, or set {URL_VARIABLE}"
            raise GatewayAnswer(f"no gateway at {origin(self._url)}: {error}; {mend}") from error

    def _said(self, answer: Answer) -> dict[str, Any]:
        if answer.status == 401:
            raise GatewayAnswer(f"{origin(self._url)} does not know the token in {TOKEN_VARIABLE}")
        try:
            said = json.loads(answer.body)
        except ValueError:
            said = None
        if not isinstance(said, dict) or "jsonrpc" not in said:
            what = f"{origin(self._url)} answered {answer.status} and no JSON-RPC"
            raise GatewayAnswer(f"{what}: expected a gateway; set {URL_VARIABLE}")
        return cast(dict[str, Any], said)


def _fault(error: Any) -> str:
    """A JSON-RPC error object in words."""
    if not isinstance(error, dict):
        return one_line(error)
    message, data = error.get("message"), error.get("data")
    if data is None:
        return one_line(message)
    return one_line(f"{message}: {data if isinstance(data, str) else json.dumps(data)}")


def one_line(text: Any) -> str:
    """Foreign text as one line that a terminal only shows.

    >>> one_line("no\\x1b[2Jsuch\\njob")
    'no [2Jsuch job'
    """
    return "".join(one if one.isprintable() else " " for one in str(text))
