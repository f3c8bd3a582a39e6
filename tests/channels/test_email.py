"""The channel `email` against a real SMTP server (aiosmtpd), which refuses what the test wants refused."""

from __future__ import annotations

import asyncio
import logging
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from carapace_cron.channels.email import EmailChannel, email_channel
from carapace_cron.errors import ConfigurationError
from carapace_cron.model.notice import MonitorNotice, Notice
from carapace_cron.model.untrusted import presentable
from carapace_cron.ports.channel import DeliveryFailed

MakeNotice = Callable[..., Notice]
PASSWORD = "correct horse"


class MailServer:
    """Keeps the mails it took. `answers`: verb → what it says to it instead of yes; a callable of the
    argument where that depends."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.answers: dict[str, Callable[[str], str | None]] = {}
        self.logins: list[tuple[bytes, bytes]] = []
        self.context: ssl.SSLContext | None = None
        self.port = 0

    def answer(self, verb: str, argument: str = "") -> str | None:
        return self.answers.get(verb, lambda _: None)(argument)

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.answer("MAIL", address) or "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refused = self.answer("RCPT", address)
        if refused is None:
            envelope.rcpt_tos.append(address)
        return refused or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        refused = self.answer("DATA")
        if refused is None:
            assert isinstance(envelope.content, bytes)
            mail = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.envelopes.append(envelope)
        return refused or "250 OK"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answer("QUIT") is not None:
            assert server.transport is not None
            server.transport.abort()
        return "221 Bye"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    def protocol(self) -> SMTP:
        return SMTP(
            self,
            hostname="mail.example.com",
            tls_context=self.context,
            require_starttls=self.context is not None,
            authenticator=self.authenticate,
        )


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    mail_server = MailServer()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(mail_server.protocol, "127.0.0.1", 0)
    mail_server.port = listening.sockets[0].getsockname()[1]
    yield mail_server
    listening.close()
    await listening.wait_closed()


SOUND = {"host": "127.0.0.1", "security": "none", "sender": "cron@example.com", "to": ["ops@example.com"]}


def open_email(port: int, **settings: Any) -> EmailChannel:
    channel = email_channel("mail", {**SOUND, "port": port, **settings})
    assert isinstance(channel, EmailChannel)
    return channel


async def test_a_result_is_mailed_as_plain_text(mail_server: MailServer, make_notice: MakeNotice) -> None:
    to = ["ops@example.com", "alice@example.com"]
    await open_email(mail_server.port, to=to).send(make_notice(output="42 orders, naïve <b>\n.\n.."))

    [mail], [envelope] = mail_server.mails, mail_server.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("cron@example.com", to)
    assert mail["From"] == "cron@example.com"
    assert mail["To"] == "ops@example.com, alice@example.com"
    assert mail["Subject"] == "Daily report: success"
    assert mail["Date"] == "Sat, 21 Nov 2026 09:00:00 +0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "text/plain"
    text = mail.get_content()
    assert "executed successfully in 1234ms" in text
    assert "42 orders, naïve <b>\n.\n.." in text.replace("\r\n", "\n")


async def test_a_mail_that_is_sent_again_is_the_same_mail(
    mail_server: MailServer, make_notice: MakeNotice
) -> None:
    channel = open_email(mail_server.port)
    for notice_id in ("one", "one", "two"):
        await channel.send(make_notice(notice_id))
    first, again, other = mail_server.mails
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert first["References"] == other["References"]  # one conversation: it is the same job
    assert first["Message-ID"].endswith("@example.com>")


async def test_a_monitors_trouble_is_one_conversation(
    mail_server: MailServer, monitor_notice: MonitorNotice
) -> None:
    channel = open_email(mail_server.port)
    await channel.send(monitor_notice)
    await channel.send(monitor_notice.evolve(id="up", event="monitor.up", success=True, reason="It pinged."))
    down, up = mail_server.mails
    assert (down["Subject"], up["Subject"]) == ("Backup: down", "Backup: up")
    assert down["References"] == up["References"]


HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "References", "Auto-Submitted", "MIME-Version",
    "Content-Type", "Content-Transfer-Encoding",
}  # fmt: skip
HOSTILE_NAMES = [
    "Report\r\nBcc: mallory@example.com",
    "Report\n\n<script>",
    "R\u2028Bcc: m@x",
    "R =?utf-8?q?=0D=0ABcc:_mallory@example.com?=",
    f"R==?utf-8?b?{b64encode(b'x' + bytes([13, 10]) + b'Bcc: mallory@example.com').decode()}?=",
    f"R =?utf-8?q?=0D=0A=0D=0A{'ä' * 60}?= {'=?' * 10}",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_no_name_of_a_job_adds_a_header_or_a_recipient(
    mail_server: MailServer, make_notice: MakeNotice, name: str
) -> None:
    channel = open_email(mail_server.port)
    for notice in (make_notice("raw", job_name=name), presentable(make_notice("clean", job_name=name))):
        await channel.send(notice)
    for mail, envelope in zip(mail_server.mails, mail_server.envelopes, strict=True):
        assert set(mail.keys()) == HEADERS and not mail.defects
        assert "executed successfully" in mail.get_content().splitlines()[0]
        assert envelope.rcpt_tos == ["ops@example.com"]
        assert mail["Subject"].startswith("R") and "\n" not in mail["Subject"]


REFUSALS = [
    ("MAIL", "550 5.7.1 we do not know you", True),
    ("MAIL", "451 4.7.1 greylisted, try again later", False),
    ("RCPT", "550 5.1.1 no such user", True),
    ("RCPT", "452 4.2.2 mailbox full", False),
    ("DATA", "554 5.7.1 looks like spam", True),
    ("DATA", "421 4.3.2 closing down", False),
]


@pytest.mark.parametrize(("verb", "answer", "permanent"), REFUSALS)
async def test_only_a_refusal_for_good_is_final(
    mail_server: MailServer, make_notice: MakeNotice, verb: str, answer: str, permanent: bool
) -> None:
    mail_server.answers[verb] = lambda _: answer
    with pytest.raises(DeliveryFailed) as failed:
        await open_email(mail_server.port).send(make_notice())
    assert failed.value.permanent is permanent
    assert answer in str(failed.value)


async def test_a_mail_that_some_get_is_delivered_and_the_others_are_named(
    mail_server: MailServer, make_notice: MakeNotice, caplog: pytest.LogCaptureFixture
) -> None:
    mail_server.answers["RCPT"] = lambda who: "550 no such user" if who.startswith("gone") else None
    await open_email(mail_server.port, to=["gone@example.com", "ops@example.com"]).send(make_notice())
    assert [one.rcpt_tos for one in mail_server.envelopes] == [["ops@example.com"]]
    assert "not for gone@example.com: no such user" in caplog.text


async def test_refusing_one_for_now_and_one_for_good_is_not_final(
    mail_server: MailServer, make_notice: MakeNotice
) -> None:
    mail_server.answers["RCPT"] = lambda who: "550 no" if who.startswith("gone") else "450 later"
    with pytest.raises(DeliveryFailed) as failed:
        await open_email(mail_server.port, to=["gone@example.com", "ops@example.com"]).send(make_notice())
    assert not failed.value.permanent


async def test_a_server_that_hangs_up_after_it_took_the_mail_has_it(
    mail_server: MailServer, make_notice: MakeNotice
) -> None:
    mail_server.answers["QUIT"] = lambda _: "hang up"
    await open_email(mail_server.port).send(make_notice())
    assert len(mail_server.mails) == 1


async def test_a_server_that_is_away_is_tried_again(make_notice: MakeNotice) -> None:
    listening = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    with pytest.raises(DeliveryFailed, match="could not be reached") as failed:
        await open_email(port).send(make_notice())
    assert not failed.value.permanent


async def test_a_server_that_says_nothing_is_left_in_time(make_notice: MakeNotice) -> None:
    listening = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with pytest.raises(DeliveryFailed, match="took longer than 1 s"):
        await open_email(port, timeout_seconds=1).send(make_notice())
    listening.close()


# TLS and the login


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of localhost, signed by itself; with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)  # TLS looks at the machine's clock
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kept = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both = tmp_path / "localhost.pem"
    both.write_bytes(kept + signed.public_bytes(Encoding.PEM))
    return both


def with_login(mail_server: MailServer, password: str = PASSWORD) -> EmailChannel:
    login = {"username": "cron", "password": password}
    return open_email(mail_server.port, host="localhost", security="starttls", **login)


async def test_it_logs_in_behind_tls(
    mail_server: MailServer, make_notice: MakeNotice, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail_server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    mail_server.context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await with_login(mail_server).send(make_notice())
    assert mail_server.logins == [(b"cron", PASSWORD.encode())]

    with pytest.raises(DeliveryFailed, match="refused the login") as failed:
        await with_login(mail_server, "wrong").send(make_notice())
    assert not failed.value.permanent
    assert "wrong" not in str(failed.value)


async def test_it_tells_nobody_the_password_whose_certificate_it_does_not_trust(
    mail_server: MailServer, make_notice: MakeNotice, certificate: Path
) -> None:
    mail_server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    mail_server.context.load_cert_chain(certificate)
    with pytest.raises(DeliveryFailed, match="could not be reached"):
        await with_login(mail_server).send(make_notice())
    assert mail_server.logins == []


async def test_it_does_not_go_on_without_tls(mail_server: MailServer, make_notice: MakeNotice) -> None:
    """A server, or somebody on the way to it, that offers none."""
    with pytest.raises(DeliveryFailed):
        await with_login(mail_server).send(make_notice())
    assert mail_server.logins == [] and mail_server.mails == []


BAD_SETTINGS = [
    ({"sender": "cron@example.com\r\nBcc: m@x"}, "bad sender"),
    ({"to": []}, "bad to"),
    ({"to": ["Ops <ops@example.com>"]}, "bad to.0"),
    ({"username": "cron"}, "expected both username and password"),
    ({"username": "cron", "password": "secret-word"}, "a password is not sent in the clear"),
    ({"security": "ssl"}, "bad security"),
    ({"port": 0}, "bad port"),
    ({"host": "a b"}, "bad host"),
    ({"colour": "red"}, "unknown setting colour"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD_SETTINGS)
def test_bad_settings_stop_the_start_with_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        email_channel("mail", {**SOUND, **settings})
    assert "[channels.mail]" in str(refused.value)
    assert "secret-word" not in str(refused.value)
