"""The kind `apprise`: every service that the library Apprise knows, from Slack and mail to PagerDuty.

Apprise is synchronous and says only whether a service took the message, not with which status: every
failure is worth another try, until the courier gives up. Its connections are its own, to the services that
the operator named; jobs have no part in choosing them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from pydantic import Field, SecretStr, model_validator

from carapace_cron.channels.settings import KindSettings, read_settings
from carapace_cron.errors import ConfigurationError
from carapace_cron.model.notice import AnyNotice
from carapace_cron.model.run import bounded
from carapace_cron.ports.channel import Channel, DeliveryFailed

if TYPE_CHECKING:
    from apprise import NotifyBase

SHORTEST_SECRET = 4  # shorter parts of a URL are words and port numbers, and everywhere in a sentence
MARGIN = 64  # characters left free under a service's limit, for what its escaping adds to a short text

# A service turns these into a call to everybody, or into a link that shows another place than it leads to. A
# zero width space behind the sign breaks the spell.
_SPELL = re.compile(
    r"@(?=(?:everyone|here|channel|all)\b)"
    r"|<(?=[@!#]|[a-z][a-z0-9+.-]*:)"  # <!channel>, <https://evil.example|bank.example>
    r"|\](?=\()"  # [bank.example](https://evil.example)
    r"|\](?=:\s*<?[a-z][a-z0-9+.-]*:)",  # [bank.example]: https://evil.example
    re.IGNORECASE,
)


class AppriseSettings(KindSettings):
    """``[channels.<id>] kind = "apprise"``: one `url`, or several `urls` that all get each notice."""

    url: SecretStr | None = None
    urls: tuple[SecretStr, ...] = ()
    timeout_seconds: float = Field(20, ge=1, le=25)

    @model_validator(mode="after")
    def _has_an_url(self) -> AppriseSettings:
        if (self.url is None) == (not self.urls):
            raise ValueError("expected either url or urls")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        urls = self.urls if self.url is None else (self.url,)
        return tuple(url.get_secret_value() for url in urls)


class Service(Protocol):
    """One address. `tell` is called in a thread, and raises `DeliveryFailed`."""

    def tell(self, title: str, text: str) -> None: ...


class AppriseChannel:
    """One or several services. What one of them took is not told to it again when another failed."""

    kind = "apprise"

    def __init__(self, services: Sequence[Service], timeout_seconds: float) -> None:
        self._services = services
        self._timeout_seconds = timeout_seconds
        self._sending = False  # a thread works, be it one that nobody waits for any more
        self._told: tuple[str, set[int]] = ("", set())  # a notice's id, and which services took it

    async def send(self, notice: AnyNotice) -> None:
        """In a thread of this channel's own, so that a slow service delays nobody else."""
        if self._sending:
            raise DeliveryFailed("the send before this one is still stuck in the service's client")
        if self._told[0] != notice.id:
            self._told = (notice.id, set())
        told = self._told[1]
        title, text = without_spells(notice.title), without_spells(notice.text)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._in_thread(lambda: self._tell_all(title, text, told))
        except TimeoutError as error:
            raise DeliveryFailed(f"no answer within {self._timeout_seconds:g} s") from error

    async def close(self) -> None:
        """Nothing is held open; a stuck thread ends with the process."""

    def _tell_all(self, title: str, text: str, told: set[int]) -> None:
        failures = []
        for number, service in enumerate(self._services):
            if number in told:
                continue
            try:
                service.tell(title, text)
                told.add(number)
            except DeliveryFailed as failure:
                failures.append(str(failure))
        if failures:
            raise DeliveryFailed("; ".join(failures))

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """As `asyncio.to_thread`, but in a daemon: a thread that a service keeps must not keep the process
        from ending, as those of an executor would."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def answer(error: BaseException | None) -> None:
            if done.done():  # nobody waits any more
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def body() -> None:
            error: BaseException | None = None
            try:
                work()
            except Exception as raised:  # noqa: BLE001  # it is the waiting side's to judge
                error = raised
            self._sending = False  # before the answer: the next send may come the moment after it
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(answer, error)

        self._sending = True
        threading.Thread(target=body, name="apprise", daemon=True).start()
        await done


class AppriseService:
    """One Apprise URL."""

    def __init__(self, address: str, plugin: NotifyBase) -> None:
        from apprise import Apprise  # imported for operators who use it: it costs memory and start-up time

        self._secrets = secrets_of(address)
        self._plugin = plugin
        self._apprise = Apprise()
        self._apprise.add(plugin)

    def tell(self, title: str, text: str) -> None:
        with _sayings.listening() as said:
            taken = self._apprise.notify(title=title, body=self._fitting(title, text), body_format="text")
        if not taken:
            raise DeliveryFailed(self._failure(said))

    def _fitting(self, title: str, text: str) -> str:
        """`text` in the length the service takes, head and tail kept. More would be refused, each time."""
        room = self._plugin.body_maxlen - MARGIN - (0 if self._plugin.title_maxlen else len(title))
        return bounded(text, max(room, MARGIN))

    def _failure(self, said: Sequence[str]) -> str:
        name = self._plugin.service_name
        reason = "; ".join(said) or "the library gave no reason"
        return f"{name} did not take the notice: {masked(reason, self._secrets)}"


def apprise_channel(channel_id: str, given: Mapping[str, Any]) -> Channel:
    """The factory of the kind `apprise`, for `register_channel_kinds`."""
    settings = read_settings(AppriseSettings, channel_id, given)
    services = [_open_service(channel_id, address) for address in settings.addresses]
    return AppriseChannel(services, settings.timeout_seconds)


def _open_service(channel_id: str, address: str) -> AppriseService:
    import apprise  # as in AppriseService

    _sayings.attach()
    # Apprise's own time limit would move each send to a pool of threads that all services share, where a
    # few that hang stop the rest; the channel's thread and time limit do that better.
    asset = apprise.AppriseAsset(app_id="carapace-cron", async_mode=False, service_timeout=0)
    with warnings.catch_warnings():
        # The first call loads the library's own plugins, and its mail plugin imports `imghdr` for a
        # dependency that wants it; from Python 3.13 on it brings one of its own.
        warnings.filterwarnings("ignore", "'imghdr' is deprecated", DeprecationWarning)
        plugin = apprise.Apprise.instantiate(address, asset=asset)
    if plugin is None:
        schema = address.partition("://")[0] if "://" in address else ""
        shown = f"a URL with the schema {schema}://" if re.fullmatch(r"\w{1,20}", schema) else "no URL"
        raise ConfigurationError(
            f"bad url in [channels.{channel_id}]: {shown}, which Apprise does not understand; "
            "see https://github.com/caronc/apprise/wiki for the form each service wants"
        )
    if plugin.overflow_mode == apprise.OverflowMode.UPSTREAM:
        # Where escaping made the text too long after all: cut it rather than have it refused for ever.
        plugin.overflow_mode = apprise.OverflowMode.TRUNCATE
    return AppriseService(address, plugin)


def without_spells(text: str) -> str:
    """`text` that calls nobody and hides no link, whatever a job printed.

    >>> without_spells("@everyone <!channel>, mail ann@example.com") == (
    ...     "@\\u200beveryone <\\u200b!channel>, mail ann@example.com")
    True
    >>> without_spells("[bank](https://evil.example)") == "[bank]\\u200b(https://evil.example)"
    True
    """
    return _SPELL.sub(lambda sign: sign[0] + "\u200b", text)


def secrets_of(address: str) -> tuple[str, ...]:
    """What must not be told of an Apprise URL: every part of it, as which one is the token depends on the
    service.

    >>> secrets_of("slack://T0KENA/T0KENB/?format=text")
    ('T0KENA', 'T0KENB', 'format', 'text')
    """
    parts = re.split(r"[/@:?&=,#]+", address.partition("://")[2])
    both_ways = dict.fromkeys((*parts, *map(unquote, parts)))
    long_enough = [part for part in both_ways if len(part) >= SHORTEST_SECRET]
    return tuple(sorted(long_enough, key=len, reverse=True))


def masked(sentence: str, secrets: Sequence[str]) -> str:
    """
    >>> masked("no answer from t0kena", ("T0KENA",))
    'no answer from …'
    """
    if not secrets:
        return sentence
    return re.sub("|".join(map(re.escape, secrets)), "…", sentence, flags=re.IGNORECASE)


class _Sayings(logging.Handler):
    """What Apprise logs is the only place where it says why. Collected by thread; kept out of the
    operator's log, because its debug lines have whole URLs and payloads in them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._listeners: dict[int, list[str]] = {}

    def attach(self) -> None:
        logger = logging.getLogger("apprise")
        if self not in logger.handlers:
            logger.addHandler(self)
            logger.setLevel(logging.WARNING)
            logger.propagate = False
            # Underneath Apprise; at debug level it tells the path of every request.
            logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[str]]:
        """The warnings of this thread, in order, while the context lasts."""
        me = threading.get_ident()
        said = self._listeners[me] = []
        try:
            yield said
        finally:
            del self._listeners[me]

    def emit(self, record: logging.LogRecord) -> None:
        listener = self._listeners.get(record.thread or 0)
        if listener is not None:
            listener.append(record.getMessage().strip().rstrip("."))


_sayings = _Sayings()
