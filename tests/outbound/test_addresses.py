from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carapace_cron.errors import ConfigurationError
from carapace_cron.outbound.address import AllowList, is_metadata, read_address, why_refused


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
    "128.0.0.0",
             "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255",
             "192.169.0.0",
             "198.17.255.255", "198.20.0.0", "223.255.255.255", "2000::", "2001:200::", "2001:db7:ffff::",
             "2003::",
             "2606:4700::1111", "3ffe::1"],
)  # fmt: skip
def test_the_neighbours_of_special_blocks_are_public(text: str) -> None:
    assert why_refused(ip_address(text)) is None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_its_mapped_form(address: object) -> None:
    mapped = ip_address(f"::ffff:{address}")
    assert why_refused(mapped) == why_refused(ip_address(str(address)))
    assert read_address(str(mapped)) == address


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_outside_the_global_block_is_public(address: object) -> None:
    ip = ip_address(str(address))
    if why_refused(ip) is None and read_address(str(ip)) == ip:
        assert int(ip) >> 125 == 1


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe",
     "2002:a9fe:a9fe::",
     "2001:0:0:0:0:0:5601:5601", "168.63.129.16", "fd00:ec2::254", "fe80::1"],
)  # fmt: skip
def test_a_metadata_address_is_known_in_every_embedding_and_never_allowed(text: str) -> None:
    address = ip_address(text)
    assert is_metadata(address)
    assert not AllowList.parse("0.0.0.0/0, ::/0").covers(address, 80)


@pytest.mark.parametrize(
    "text", ["fe80::1%eth0", "0x7f.1", "127.1", "localhost", "", "1.2.3.4\n", "１.1.1.1"]
)
def test_what_is_no_address_is_not_read_as_one(text: str) -> None:
    assert read_address(text) is None


@pytest.mark.parametrize(
    ("entries", "address", "port", "covered"),
    [
        ("127.0.0.1:9000", "127.0.0.1", 9000, True),
        ("127.0.0.1:9000", "127.0.0.1", 9001, False),
        ("127.0.0.1:9000", "127.0.0.2", 9000, False),
        ("10.0.0.0/8", "10.9.8.7", 1, True),
        (" 10.0.0.0/8 , [::1]:8080 ,", "::1", 8080, True),
        ("[::1]:8080", "::1", 80, False),
        ("::1", "::1", 80, True),
        ("fd12::/16", "fd12::7", 443, True),
        ("[fd12::/16]:443", "fd12::7", 443, True),
        ("192.168.0.0/16:8080", "192.168.3.4", 8080, True),
        ("192.168.0.0/16:8080", "192.168.3.4", 80, False),
        ("localhost:9000", "127.0.0.1", 9000, True),
        ("localhost:9000", "::1", 9000, True),
        ("LOCALHOST", "127.0.0.1", 1, True),
        ("localhost", "127.0.0.2", 1, False),
        ("", "127.0.0.1", 80, False),
    ],
)
def test_the_allow_list_covers_networks_by_port(entries: str, address: str, port: int, covered: bool) -> None:
    assert AllowList.parse(entries).covers(ip_address(address), port) is covered


@pytest.mark.parametrize(
    "entry",
    ["example.com", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0:0", "10.0.0.0:65536", "10.0.0.0:http", "[::1",
     "::1]:80",
     "*", "10.*", "http://10.0.0.1", "localhost:", "127.1", "169.254.169.254", "169.254.0.0/16",
     "fd00:ec2::254",
     "168.63.129.16:80"],
)  # fmt: skip
def test_a_bad_entry_is_named_at_start(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="bad entry") as refusal:
        AllowList.parse(f"10.0.0.0/8, {entry}")
    assert f'"{entry}"' in str(refusal.value)
