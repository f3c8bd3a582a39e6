"""Which addresses a tenant's call may reach. Pure: text and numbers in, a reason or nothing out.

The standard library's `is_private` and `is_global` let NAT64, 6to4, IPv4-compatible and site-local forms
of a loopback address through, and change between patch releases, so the lists are ours: IPv4 without the
special blocks (IANA special-purpose registry, RFC 6890), IPv6 only where global addresses are given out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from carapace_cron.errors import ConfigurationError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# Where clouds answer with the machine's own credentials: never called, whatever the operator allows.
_METADATA = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local: AWS, Azure, Google, OpenStack, DigitalOcean, ECS
        "168.63.129.16/32",  # Azure's wire server: a public address that answers inside only
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "fe80::/10",  # link-local
        "fd00:ec2::/32",  # AWS: metadata, time, pod identity
        "fd20:ce::/32",  # Google
        "fd00:42::42/128",  # Scaleway
    )
)
_IPV4_SPECIAL = tuple(
    (IPv4Network(text), reason)
    for text, reason in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "multicast tunnelling"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_IPV6_GLOBAL = IPv6Network("2000::/3")
_IPV6_SPECIAL = tuple(
    (IPv6Network(text), reason)
    for text, reason in (
        ("2001::/23", "protocol assignments and Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
    )
)
_IPV4_AT_THE_END = tuple(
    IPv6Network(text)
    for text in (
        "::/96",  # IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 of one's own
    )
)
_LOOPBACKS: tuple[IPAddress, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_ENTRY = re.compile(
    r"(?P<host>\[[^\[\]]+\]|[^\[\]:]+|[^\[\]]*:[^\[\]]*:[^\[\]]*?)(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


def read_address(text: str) -> IPAddress | None:
    """The address that `text` spells, an IPv4-mapped one as the IPv4 address it reaches.

    None for anything else, an IPv6 zone (``fe80::1%eth0``) among it: what cannot be read is not called.

    >>> read_address("::ffff:127.0.0.1"), read_address("fe80::1%eth0"), read_address("0x7f.1")
    (IPv4Address('127.0.0.1'), None, None)
    """
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def is_metadata(address: IPAddress) -> bool:
    """Whether a cloud's metadata service may answer there, directly or through an address that embeds it."""
    return any(inside in network for inside in _reached(address) for network in _METADATA)


def why_refused(address: IPAddress) -> str | None:
    """Why a tenant's call may not go there; None for a public address.

    >>> why_refused(IPv4Address("127.0.0.1")), why_refused(IPv6Address("64:ff9b::7f00:1"))
    ('loopback', 'not a global address')
    >>> why_refused(IPv4Address("1.1.1.1")), why_refused(IPv6Address("2606:4700:4700::1111"))
    (None, None)
    """
    if is_metadata(address):
        return "metadata service"
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _IPV4_SPECIAL if address in network), None)
    if address.ipv4_mapped:
        return why_refused(address.ipv4_mapped)
    if address not in _IPV6_GLOBAL:
        return "not a global address"
    return next((reason for network, reason in _IPV6_SPECIAL if address in network), None)


def _reached(address: IPAddress) -> list[IPAddress]:
    """The address, and the IPv4 address that it embeds, by whichever way."""
    if isinstance(address, IPv4Address):
        return [address]
    tail = [IPv4Address(int(address) & 0xFFFFFFFF)] if any(address in net for net in _IPV4_AT_THE_END) else []
    teredo = [address.teredo[1]] if address.teredo else []
    embedded = [found for found in (address.ipv4_mapped, address.sixtofour, *teredo, *tail) if found]
    return [address, *embedded]


@dataclass(frozen=True, slots=True)
class Permit:
    """A network that the operator lets be called; `port` None means every port."""

    network: IPNetwork
    port: int | None

    def covers(self, address: IPAddress, port: int) -> bool:
        return address in self.network and self.port in (None, port)


@dataclass(frozen=True, slots=True)
class AllowList:
    """What the operator lets jobs call besides public addresses (``CARAPACE_CRON_URL_ALLOW``)."""

    permits: tuple[Permit, ...] = ()

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """``"127.0.0.1:9000, 10.0.0.0/8, [::1]:8080, 192.168.0.0/16:8080, localhost:9000"``.

        Networks or addresses, each with an optional port; the only name is `localhost`. Empty: nothing.
        Raises `ConfigurationError` naming the entry; metadata addresses are never allowed.

        >>> AllowList.parse("127.0.0.1:9000").covers(IPv4Address("127.0.0.1"), 9000)
        True
        >>> AllowList.parse("10.0.0.0/33")
        Traceback (most recent call last):
        carapace_cron.errors.ConfigurationError: bad entry "10.0.0.0/33" in the list of allowed addresses: \
expected a network or address with an optional port, such as 10.0.0.0/8, 127.0.0.1:9000 or [::1]:8080
        """
        entries = [entry.strip() for entry in text.split(",")]
        return cls(tuple(permit for entry in entries if entry for permit in _read_entry(entry)))

    def covers(self, address: IPAddress, port: int) -> bool:
        """Whether the operator allows `address` on `port`; never true of a metadata address."""
        return not is_metadata(address) and any(permit.covers(address, port) for permit in self.permits)

    def localhost(self, port: int) -> list[IPAddress]:
        """The loopback addresses that the name `localhost` may mean on `port`; empty: it is refused."""
        return [address for address in _LOOPBACKS if self.covers(address, port)]

    def names_port(self, port: int) -> bool:
        """Whether an entry names this very port: then even a port of another protocol is meant."""
        return any(permit.port == port for permit in self.permits)


def _read_entry(entry: str) -> list[Permit]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise _bad_entry(entry)
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 1 <= port <= 65_535:
        raise _bad_entry(entry, f"port {port} is not in 1–65535")
    host = match["host"].removeprefix("[").removesuffix("]")
    return [Permit(network, port) for network in _networks(host, entry)]


def _networks(host: str, entry: str) -> list[IPNetwork]:
    if host.lower() == "localhost":
        return [ip_network(address) for address in _LOOPBACKS]
    try:
        network = ip_network(host)
    except ValueError as error:
        reason = "host bits are set" if "host bits" in str(error) else None
        raise _bad_entry(entry, reason) from error
    if _only_metadata(network):
        raise _bad_entry(entry, "metadata services are never called")
    return [network]


def _only_metadata(network: IPNetwork) -> bool:
    return is_metadata(network.network_address) and is_metadata(network.broadcast_address)


def _bad_entry(entry: str, reason: str | None = None) -> ConfigurationError:
    forms = "10.0.0.0/8, 127.0.0.1:9000 or [::1]:8080"
    expected = f"expected a network or address with an optional port, such as {forms}"
    because = f"{reason}; {expected}" if reason else expected
    return ConfigurationError(f'bad entry "{entry}" in the list of allowed addresses: {because}')
