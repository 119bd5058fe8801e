"""The address at which other hosts find this one, whatever a scheduler believes it to be."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import psutil
import pytest

from jobs.contract.environment import LOOPBACK, RendezvousError
from jobs.machine import network
from jobs.machine.network import interface_of, interfaces, meeting_address

ENTRIES = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
OUTSIDE = [e.address for e in ENTRIES if e.family == socket.AF_INET and not e.address.startswith("127.")]
IPV6 = [e.address.partition("%")[0] for e in ENTRIES if e.family == socket.AF_INET6]
NOBODYS, NO_NAME = "198.51.100.7", "no-such-host.invalid"


@pytest.fixture
def _others_are_reached_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's routes stand in for, as a machine may have none."""
    monkeypatch.setattr(network, "towards", lambda host, port=9: "192.0.2.2")


@pytest.mark.parametrize("known_as", ["127.0.1.1", "localhost", "::1", NOBODYS, NO_NAME])
@pytest.mark.usefixtures("_others_are_reached_from")
def test_what_means_nothing_to_others_is_replaced_by_where_they_are_reached_from(known_as: str) -> None:
    assert meeting_address(known_as, ["n2"]) == "192.0.2.2"


@pytest.mark.parametrize("known_as", ["127.0.1.1", "127.0.0.1", "localhost", "::1", NOBODYS, NO_NAME])
def test_one_host_alone_meets_itself(known_as: str) -> None:
    assert meeting_address(known_as, []) == LOOPBACK


@pytest.mark.parametrize(
    ("known_as", "words"),
    [
        ("127.0.1.1", "127.0.1.1 is on this host's loopback, where no other host is"),
        ("::1", "::1 is on this host's loopback, where no other host is"),
        (NO_NAME, f"{NO_NAME} has no IPv4 address here"),
        ("fe80::dead", "no network interface of this host has the address fe80::dead"),
        ("node..1", "node..1 has no IPv4 address here (no name of a host)"),
        ("n" * 70, f"{'n' * 70} has no IPv4 address here (no name of a host)"),
    ],
)
def test_where_no_address_can_be_found_it_is_said_at_once(known_as: str, words: str) -> None:
    with pytest.raises(RendezvousError) as error:
        meeting_address(known_as, ["127.0.1.1", NO_NAME])
    assert str(error.value).startswith(words)


@pytest.mark.skipif(not OUTSIDE, reason="needs a network interface beside loopback")
def test_an_address_of_this_host_is_kept() -> None:
    assert meeting_address(OUTSIDE[0], ["127.0.1.1"]) == OUTSIDE[0]
    for address in [
        a for a in IPV6 if interface_of(a) == interface_of(OUTSIDE[0])
    ]:  # of the same interface: ranks meet over IPv4
        assert meeting_address(address, ["127.0.1.1"]) == OUTSIDE[0]


@pytest.mark.parametrize("known_as", ["2001:DB8::5", "2001:db8:0:0:0:0:0:5", "fe80::1%eth7", "FE80::1"])
def test_an_ipv6_address_is_known_however_it_is_written(known_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel writes them, a link's own with its interface; which stand in, as a machine may have none."""
    entries = [SimpleNamespace(address=address) for address in ("00:16:3e:00:00:01", "2001:db8::5", "fe80::1%eth7")]
    there = {"lo": [SimpleNamespace(address="::1")], "eth6": [SimpleNamespace(address="fe80::2%eth6")], "eth7": entries}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: there)
    assert interface_of(known_as) == "eth7"
    with pytest.raises(RendezvousError):
        interface_of("fe80::2%eth7")


def test_all_of_loopback_is_of_one_interface() -> None:
    assert interface_of("127.0.1.1") == interface_of(LOOPBACK)
    assert interface_of(LOOPBACK) in interfaces()
