"""Our own corpus: what is refused before anything is looked up, and what must go on working."""

from __future__ import annotations

import pytest

from carapace_cron.errors import AddressNotAllowed, InvalidValue
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.url import check_url, shown

NOTHING = AllowList()

# Addresses and names of the inside, however they are spelled so that yarl still reads an address.
INSIDE = """
http://127.0.0.1/
http://127.0.0.1:8787/rpc
http://127.255.255.254/
http://0.0.0.0/
http://0.1.2.3/
http://10.0.0.1/
http://10.255.255.255/
http://100.64.0.1/
http://100.127.255.255/
http://100.100.100.200/latest/meta-data/
http://169.254.169.254/latest/meta-data/
http://169.254.170.2/v2/credentials
http://168.63.129.16/machine
http://172.16.0.1/
http://172.31.255.255/
http://192.0.0.1/
http://192.0.0.192/opc/v2/
http://192.0.2.1/
http://192.88.99.1/
http://192.168.0.1/
http://192.168.255.255:8080/
http://198.18.0.1/
http://198.19.255.255/
http://198.51.100.7/
http://203.0.113.7/
http://224.0.0.1/
http://239.255.255.255/
http://240.0.0.1/
http://255.255.255.255/
http://[::]/
http://[::1]/
http://[0:0:0:0:0:0:0:1]/
http://[::127.0.0.1]/
http://[::7f00:1]/
http://[::ffff:127.0.0.1]/
http://[::ffff:7f00:1]/
http://[::FFFF:169.254.169.254]/
http://[::ffff:a9fe:a9fe]/
http://[::ffff:10.0.0.1]/
http://[::ffff:0:127.0.0.1]/
http://[64:ff9b::127.0.0.1]/
http://[64:ff9b::a9fe:a9fe]/
http://[64:ff9b:1::10.0.0.1]/
http://[2002:7f00:1::]/
http://[2002:a9fe:a9fe::1]/
http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/
http://[2001:db8::1]/
http://[2001:10::1]/
http://[2001:20::1]/
http://[2620:4f:8000::1]/
http://[3fff::1]/
http://[5f00::1]/
http://[100::1]/
http://[fc00::1]/
http://[fd00:ec2::254]/
http://[fd20:ce::254]/
http://[fd12:3456:789a::1]/
http://[fe80::1]/
http://[fec0::1]/
http://[ff02::1]/
http://localhost/
http://localhost:8787/
http://LOCALHOST/
http://LocalHost:80/
http://foo.localhost/
http://printer.local/
http://db.internal/
http://metadata.google.internal/computeMetadata/v1/
http://nas.lan/
http://router.home/
http://router.home.arpa/
http://wiki.corp/
http://kubernetes.default.svc/
http://kubernetes.default.svc.cluster.local/
http://host.docker.internal/
http://intranet/
http://redis/
http://backend:8080/
http://a.localdomain/
""".strip().splitlines()

# No plain URL of a host: two readers could read two hosts, or a shell of another protocol is meant.
MALFORMED = [
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "javascript:alert(1)",
    "data:text/plain,x",
    "//example.com/",
    "example.com",
    "http:/example.com/",
    "http:example.com",
    "http://",
    "http:///path",
    "https://?x=1",
    "http://:80/",
    "http://user@example.com/",
    "http://user:pass@example.com/",
    "http://@example.com/",
    "http://:@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1#@example.com:x@y/".replace("#", "@"),
    "http://127.0.0.1\\@example.com/",
    "http://example.com\\.evil.com/",
    "http:\\\\example.com\\",
    "http://example.com/a b",
    " http://example.com/",
    "http://example.com/ ",
    "http://example.com/\n",
    "http://exam\tple.com/",
    "http://local\thost/",
    "http://example.com/\r\nX-Injected: 1",
    "http://example.com/\x00",
    "http://example.com/\x7f",
    "http://example.com/\u200b",
    "http://example.com/\u202egpj.exe",
    "http://exam\u00adple.com/",
    "http://example.com/\ud800",
    "http://example.com/\u2028",
    "http://example.com/\u3000",
    "http://%6c%6f%63alhost/",
    "http://127.0.0.1%2f.example.com/",
    "http://example%2ecom/",
    "http://[fe80::1%25eth0]/",
    "http://[::1%25lo]/",
    "http://[v1.fe80]/",
    "http://[127.0.0.1]/",
    "http://[example.com]/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "http://0/",
    "http://127.0.0.1./",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://127.0.0.0x1/",
    "http://1.2.3.4.5/",
    "http://1.2.3.400/",
    "http://example.0x1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://１２７.０.０.１/",
    "http://ℓocalhost/",
    "http://ｅxample.com/",
    "http://localhost./",
    "http://example.com./",
    "http://example..com/",
    "http://.example.com/",
    "http://-example.com/",
    "http://example-.com/",
    "http://exa$mple.com/",
    "http://exa*mple.com/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 130 + "com/",
    "http://example.com/" + "a" * 8192,
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:99999/",
    "http://example.com:-1/",
    "http://example.com:+80/",
    "http://example.com:８０/",
    "http://example.com:http/",
    "http://example.com:80:80/",
    "http://example.com:22/",
    "http://example.com:25/",
    "http://example.com:110/",
    "http://example.com:2375/",
    "http://example.com:6379/",
    "https://example.com:6667/",
    "http://example.com:11211/",
]

ACCEPTED = """
http://example.com
https://example.com/
HTTPS://EXAMPLE.COM/Path
https://example.com/?q=1&r=a+b
https://example.com/a/b;c=1?x=%20y#fragment
https://example.com:8443/hook
http://example.com:80/
http://example.com:8080/
https://sub.domain.example.co.uk/x
https://my_bucket.s3.amazonaws.com/key
https://xn--mnchen-3ya.de/
https://münchen.de/straße
https://例え.jp/
https://hooks.slack.com/services/T000/B000/xyz
https://api.telegram.org/bot1:abc/sendMessage
http://1.1.1.1/
http://8.8.8.8:8000/
http://93.184.215.14/
https://[2606:4700:4700::1111]/
https://[2a00:1450:4001:81b::200e]:8443/
https://localhost.example.com/
https://internal.example.com/
https://127.0.0.1.nip.example/
https://example.com/%00
https://example.com/../../etc/passwd
https://example.com//double
https://a-b.c-d.example/~user/(x)!*'
""".strip().splitlines()


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(set(INSIDE) | set(MALFORMED)) >= 165
    assert len(set(ACCEPTED)) >= 20


@pytest.mark.parametrize("url", INSIDE)
def test_it_refuses_what_leads_inside_without_saying_where(url: str) -> None:
    with pytest.raises(AddressNotAllowed, match=r"^address not allowed$") as refusal:
        check_url(url, NOTHING)
    assert refusal.value.field == "command"


@pytest.mark.parametrize("url", MALFORMED, ids=ascii)
def test_it_refuses_what_is_no_plain_url(url: str) -> None:
    with pytest.raises((InvalidValue, AddressNotAllowed)) as refusal:
        check_url(url, NOTHING)
    assert refusal.value.field == "command"
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("url", ACCEPTED)
def test_it_takes_public_urls(url: str) -> None:
    assert check_url(url, NOTHING).raw_host


@pytest.mark.parametrize("url", INSIDE)
def test_the_metadata_services_stay_closed_when_the_operator_allows_everything(url: str) -> None:
    """All of it opens with 0.0.0.0/0 and ::/0, but names of the inside and metadata addresses."""
    everything = AllowList.parse("0.0.0.0/0, ::/0")
    metadata = ("169.254.", "168.63.129.16", "a9fe", "100.100.100.200", "192.0.0.192", "fd00:ec2", "fd20:ce")
    metadata += ("fe80",)
    literal = "[" in url or url.removeprefix("http://")[0].isdigit()
    closed = any(part in url for part in metadata) or not (
        literal or url.lower().startswith("http://localhost")
    )
    if closed:
        with pytest.raises(AddressNotAllowed):
            check_url(url, everything)
    else:
        assert check_url(url, everything)


def test_an_allowed_loopback_address_allows_the_name_localhost_on_that_port() -> None:
    allow = AllowList.parse("127.0.0.1:9000")
    assert check_url("http://127.0.0.1:9000/", allow) and check_url("http://LocalHost:9000/", allow)
    for other in (
        "http://localhost:9001/",
        "http://127.0.0.1/",
        "http://[::1]:9000/",
        "http://a.localhost:9000/",
    ):
        with pytest.raises(AddressNotAllowed):
            check_url(other, allow)


def test_a_port_of_another_protocol_is_called_only_when_the_operator_names_it() -> None:
    assert check_url("http://10.0.0.1:6379/", AllowList.parse("10.0.0.1:6379"))
    with pytest.raises(InvalidValue, match="port 6379 belongs to another protocol"):
        check_url("http://10.0.0.1:6379/", AllowList.parse("10.0.0.1"))


def test_what_the_operator_configured_may_be_an_inner_name() -> None:
    assert check_url("http://backend:8080/x", NOTHING, trusted=True).host == "backend"
    with pytest.raises(InvalidValue):
        check_url("http://0x7f.1/", NOTHING, trusted=True)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://example.com/reports/daily?token=s3cret", "https://example.com/reports/daily"),
        ("https://example.com/generate-monthly-report", "https://example.com/generate-monthly-report"),
        (
            "https://hooks.slack.com/services/T0/B0/Ab3dEf6hIj9kLm2n",
            "https://hooks.slack.com/services/T0/B0/…",
        ),
        ("https://api.telegram.org/bot123456:AAbbCCdd/sendMessage", "https://api.telegram.org/…/sendMessage"),
        ("https://example.com:8443/#x", "https://example.com:8443/"),
    ],
)
def test_messages_show_a_url_without_what_could_be_a_key(url: str, text: str) -> None:
    assert shown(check_url(url, NOTHING)) == text


def test_a_refusal_repeats_neither_password_nor_query() -> None:
    for url in ("http://user:s3cret@example.com/", "ftp://example.com/?key=s3cret"):
        with pytest.raises(InvalidValue) as refusal:
            check_url(url, NOTHING)
        assert "s3cret" not in str(refusal.value)
