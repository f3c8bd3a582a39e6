"""The kind `email`: a notice is mailed by SMTP, as plain text.

A mail has an id made of the notice's, so one that is sent again after a crash is the same mail to those who
look, and mails of one topic (a job, an incident) refer to it, so that they are shown as one conversation.
Which answers are final is in ``docs/reference/channels.md``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Annotated, Any, Literal

import aiosmtplib
from pydantic import AfterValidator, Field, SecretStr, model_validator

from carapace_cron.channels.settings import KindSettings, read_settings
from carapace_cron.model.notice import AnyNotice
from carapace_cron.model.untrusted import one_line
from carapace_cron.ports.channel import Channel, DeliveryFailed

log = logging.getLogger(__name__)

PORTS = {"starttls": 587, "tls": 465, "none": 25}
MOST_RECIPIENTS = 50
SAID_LIMIT = 200  # characters of a server's own words
QUIT_SECONDS = 2.0  # for a goodbye; the mail is taken by then
_ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
    r"@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?"
)


def _address(text: str) -> str:
    """What goes into headers and commands of SMTP, so nothing that could end one."""
    if not _ADDRESS.fullmatch(text):
        raise ValueError("expected an address like ops@example.com, without a name")
    return text


Address = Annotated[str, AfterValidator(_address)]


class EmailSettings(KindSettings):
    """``[channels.<id>] kind = "email"``."""

    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")
    port: int | None = Field(None, ge=1, le=65535)  # None: the usual one of `security`
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: SecretStr | None = None
    sender: Address
    to: tuple[Address, ...] = Field(min_length=1, max_length=MOST_RECIPIENTS)
    timeout_seconds: float = Field(20, ge=1, le=25)

    @model_validator(mode="after")
    def _keeps_the_password(self) -> EmailSettings:
        if (self.username is None) != (self.password is None):
            raise ValueError("expected both username and password, or neither")
        if self.password is not None and self.security == "none":
            raise ValueError("a password is not sent in the clear: expected security starttls or tls")
        return self


class EmailChannel:
    """One server, and those who get each notice."""

    kind = "email"

    def __init__(self, settings: EmailSettings) -> None:
        self._settings = settings

    async def send(self, notice: AnyNotice) -> None:
        """Returns when the server took it for at least one of the recipients: sent again, it would come
        twice to those who have it."""
        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                refused = await self._hand_over(mail(notice, self._settings))
        except aiosmtplib.SMTPAuthenticationError as error:  # often mended within the day
            raise DeliveryFailed(f"the mail server refused the login: {_words(error)}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal(error) from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refused_by_all(error) from error
        except TimeoutError as error:
            raise DeliveryFailed(f"the mail server took longer than {seconds:g} s") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            sentence = f"the mail server {self._settings.host} could not be reached ({type(error).__name__})"
            raise DeliveryFailed(sentence) from error
        for address, answer in refused.items():
            log.warning(
                "a mail was taken, but not for %s: %s", address, one_line(answer.message, SAID_LIMIT),
                extra={"action": "mail_partly_refused", "notice_id": notice.id},
            )

    async def close(self) -> None:
        """Nothing is held open: each mail has a connection of its own."""

    async def _hand_over(self, message: EmailMessage) -> Mapping[str, aiosmtplib.SMTPResponse]:
        """The recipients that the server refused, while it took others."""
        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port or PORTS[settings.security],
            timeout=settings.timeout_seconds,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
        )
        await client.connect()
        try:
            if settings.password is not None:
                await client.login(settings.username or "", settings.password.get_secret_value())
            refused, _ = await client.send_message(message, sender=settings.sender, recipients=settings.to)
            # From here on the mail is theirs, whatever becomes of the connection: some servers just hang up.
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=QUIT_SECONDS)
            return refused
        finally:
            client.close()


def email_channel(channel_id: str, given: Mapping[str, Any]) -> Channel:
    """The factory of the kind `email`, for `register_channel_kinds`."""
    return EmailChannel(read_settings(EmailSettings, channel_id, given))


def mail(notice: AnyNotice, settings: EmailSettings) -> EmailMessage:
    """The message. Its subject is one line and shows what the job is called, whatever that is."""
    domain = settings.sender.partition("@")[2]
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    message["Subject"] = _read_as_it_stands(one_line(notice.title))
    message["Date"] = format_datetime(notice.happened_at)
    message["Message-ID"] = _message_id(notice.id, domain)
    message["References"] = _message_id(notice.topic, domain)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers to this one
    message.set_content(notice.text, charset="utf-8")
    return message


def _read_as_it_stands(line: str) -> str:
    """`line` without encoded words (RFC 2047). The library would decode them before it writes the header, and
    ``=?utf-8?q?=0D=0ABcc:_eve@example.com?=`` holds the end of one and the beginning of another."""
    return line.replace("=?", "= ?")


def _message_id(text: str, domain: str) -> str:
    return f"<{hashlib.sha256(text.encode()).hexdigest()[:32]}.carapace-cron@{domain}>"


def _refusal(error: aiosmtplib.SMTPResponseException) -> DeliveryFailed:
    return DeliveryFailed(f"the mail server refused the mail: {_words(error)}", permanent=_is_final(error))


def _refused_by_all(error: aiosmtplib.SMTPRecipientsRefused) -> DeliveryFailed:
    """Final only if it is for each of them: one that is asked to wait may yet get it."""
    words = "; ".join(_words(one) for one in error.recipients[:3])
    return DeliveryFailed(
        f"the mail server takes no mail for these recipients: {words}",
        permanent=all(_is_final(one) for one in error.recipients),
    )


def _is_final(error: aiosmtplib.SMTPResponseException) -> bool:
    """RFC 5321 section 4.2.1: 5yz is the same the next time, 4yz is not."""
    return 500 <= error.code < 600


def _words(error: aiosmtplib.SMTPResponseException) -> str:
    return f"{error.code} {one_line(error.message, SAID_LIMIT)}"
