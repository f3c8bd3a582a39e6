"""One S3 client, and what can come back from it: an answer, a refusal, or nothing that can be relied on.

Everything of aioboto3 that this package touches is here; it is imported by `connect` and not before,
because it costs 60 MB and half a second, which a gateway without a bucket need not pay.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from carapace_cron.errors import ConfigurationError

AT_ONCE = 16  # requests; more only queue inside the client, which is bound by its own processor time
CONNECT_SECONDS = 2
READ_SECONDS = 5
PAGE = 1_000  # lines of a listing at a time, the most that S3 gives
DEFAULT_REGION = "us-east-1"  # what servers other than Amazon's expect, if anything

_RETRIED_STATUS = {429, 500, 502, 503, 504}
_RETRIED_CODES = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "ThrottlingException"}


class Refusal(Exception):
    """The server said no, and would say it again."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class Silence(Exception):
    """No answer, or one of a server in trouble: what was asked may have been done or not."""


@dataclass(frozen=True, slots=True)
class Address:
    """``s3://bucket/some/prefix``: the bucket, and what its keys begin with (``some/prefix/`` or nothing)."""

    bucket: str
    prefix: str
    endpoint_url: str | None  # None: Amazon's own

    @classmethod
    def parse(cls, text: str, endpoint_url: str | None) -> Address:
        parts = urlsplit(text)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise ConfigurationError(f"bad job store {text!r}: expected s3://bucket or s3://bucket/prefix")
        prefix = parts.path.strip("/")
        return cls(parts.netloc, f"{prefix}/" if prefix else "", endpoint_url or None)

    def __str__(self) -> str:
        return f"bucket {self.bucket!r} at {self.endpoint_url or 'Amazon S3'}"

    @property
    def is_loopback(self) -> bool:
        host = urlsplit(self.endpoint_url or "").hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


Page = tuple[list[tuple[str, str]], str | None]
"""(key, ETag) of at most `PAGE` objects in key order, and the token for the next page, if there is one."""


class Wire:
    """The requests of S3 to one bucket. Raises `Refusal`, `Silence`, or `ConfigurationError`."""

    def __init__(self, client: Any, resources: AsyncExitStack, address: Address) -> None:
        self.address = address
        self._client = client
        self._resources = resources
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def get(self, key: str) -> tuple[bytes, str] | None:
        """Body and ETag (without quotes), or None."""
        try:
            body, answer = await self._ask("get_object", Key=self.address.prefix + key)
        except Refusal as refusal:
            if refusal.code in ("NoSuchKey", "404"):
                return None
            raise
        return body, unquoted(answer["ETag"])

    async def put(self, key: str, body: bytes, **conditions: str) -> str:
        """The new ETag, without quotes."""
        whole = self.address.prefix + key
        _, answer = await self._ask(
            "put_object", Key=whole, Body=body, ContentType="application/json", **conditions
        )
        return unquoted(answer["ETag"])

    async def delete(self, key: str, **conditions: str) -> None:
        await self._ask("delete_object", Key=self.address.prefix + key, **conditions)

    async def page(self, prefix: str, **position: str) -> Page:
        whole = self.address.prefix + prefix
        _, answer = await self._ask("list_objects_v2", Prefix=whole, MaxKeys=PAGE, **position)
        start = len(self.address.prefix)
        lines = [(one["Key"][start:], unquoted(one["ETag"])) for one in answer.get("Contents", ())]
        return lines, answer.get("NextContinuationToken")

    async def create_bucket(self) -> None:
        await self._ask("create_bucket")

    async def close(self) -> None:
        await self._resources.aclose()

    async def _ask(self, operation: str, **parameters: Any) -> tuple[bytes, Any]:
        import aiohttp
        from botocore import exceptions

        try:
            async with self._gate:
                answer = await getattr(self._client, operation)(Bucket=self.address.bucket, **parameters)
                stream = answer.get("Body")
                return b"" if stream is None else await stream.read(), answer
        except exceptions.ClientError as error:
            raise _refused(error) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            message = f"no credentials for {self.address}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise ConfigurationError(message) from error
        except exceptions.ParamValidationError as error:
            raise ConfigurationError(f"the client refuses {self.address}: check its name") from error
        except (exceptions.BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Silence(f"no answer ({type(error).__name__})") from error


async def connect(address: Address) -> Wire:
    """A client for the bucket; nothing is sent yet. Credentials come from the usual AWS variables."""
    import aioboto3
    from aiobotocore.config import AioConfig
    from botocore.exceptions import BotoCoreError

    # Over HTTPS the newer default of sending checksums as a trailer makes some servers refuse or corrupt
    # the object (reported against botocore 1.36 for several); Amazon itself wants the default.
    own = {
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    resources = AsyncExitStack()
    try:
        session = aioboto3.Session()
        config = AioConfig(
            signature_version="s3v4",
            max_pool_connections=4 * AT_ONCE,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},  # who resends must look first: S3Objects
            **(own if address.endpoint_url else {}),
        )
        region = session.region_name or DEFAULT_REGION
        client = session.client(
            "s3", region_name=region, endpoint_url=address.endpoint_url, config=config
        )
        return Wire(await resources.enter_async_context(client), resources, address)
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"cannot make a client for {address}: {error}") from error


def unquoted(etag: str) -> str:
    """
    >>> unquoted('"99914b932bd37a50b983c5e7c90ae93b"')
    '99914b932bd37a50b983c5e7c90ae93b'
    """
    return etag.strip('"')


def _refused(error: Any) -> Refusal | Silence:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", status))
    if status in _RETRIED_STATUS or code in _RETRIED_CODES:
        return Silence(f"{status} {code}")
    return Refusal(status, code)
