"""The network interfaces of this machine, their addresses, and free ports.

Ranks meet over IPv4: Horovod's rendezvous and many an installation of the others know nothing else.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress

from jobs.contract.environment import LOOPBACK, RendezvousError


def reserve_port(address: str) -> socket.socket:
    """A socket bound to a free port of `address`, not listening; keep it open to keep the port."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, 0))
    return held


def interface_of(address: str) -> str:
    """The name of the network interface that has `address` (Gloo is told to use only that one)."""
    import psutil

    address = LOOPBACK if address.startswith("127.") else address  # all of these are of one interface
    wanted, _, zone = _plain(address).partition("%")
    for name, entries in psutil.net_if_addrs().items():
        if zone in ("", name) and any(_plain(entry.address).partition("%")[0] == wanted for entry in entries):
            return str(name)
    raise RendezvousError(f"no network interface of this host has the address {address}")


def _plain(address: str) -> str:
    """An IPv6 address as it is written in full or short, in capitals or not; any other as it is."""
    import ipaddress

    with suppress(ValueError):
        return str(ipaddress.ip_address(address)) if ":" in address else address
    return address


def address_on(interface: str) -> str:
    """The IPv4 address of this host on a network interface; what interface_of does the other way."""
    import psutil

    entries = psutil.net_if_addrs().get(interface)
    if entries is None:
        raise RendezvousError(f"this host has no network interface {interface}; it has {', '.join(interfaces())}")
    for entry in entries:
        if entry.family == socket.AF_INET:
            return str(entry.address)
    raise RendezvousError(f"the network interface {interface} has no IPv4 address")


def interfaces() -> list[str]:
    """The names of this host's network interfaces."""
    import psutil

    return sorted(psutil.net_if_addrs())


def master_port(address: str = LOOPBACK) -> int:
    """A port that is free now on `address`, for a launcher to give out as MASTER_PORT."""
    with reserve_port(address) as held:
        return int(held.getsockname()[1])


def taken(error: OSError) -> bool:
    """Whether that is why a socket could not be bound, or not listen: another program has its port."""
    return error.errno == errno.EADDRINUSE


def resolved(host: str) -> str:
    """The IPv4 address that the name `host` has here, or that it is. Raises RendezvousError."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as error:  # of a name that is none, as "node..1"
        reason = error.strerror if isinstance(error, OSError) else "no name of a host"
        raise RendezvousError(f"{host} has no IPv4 address here ({reason})") from None


def towards(host: str, port: int = 9) -> str:
    """The address from which this host would send to another one. Nothing is sent. Raises RendezvousError."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((resolved(host), port))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise RendezvousError(f"{host} cannot be reached: {error.strerror}") from None


def meeting_address(known_as: str, others: Sequence[str]) -> str:
    """The address of this host at which ranks on other hosts find it.

    `known_as` is the name or address that a scheduler has of this host, `others` are those of the other hosts.
    What it has may mean another thing here than there: 127.0.1.1 for a host's own name (Debian's /etc/hosts), a
    router's address, IPv6. Then it is the address from which this host sends to the others. Raises RendezvousError.
    """
    try:
        address = address_on(interface_of(known_as)) if ":" in known_as else resolved(known_as)
        master_port(address)
        loopback = address.startswith("127.")
        fault = f"{known_as} is on this host's loopback, where no other host is" if loopback and others else ""
        if not fault:
            return LOOPBACK if loopback else address
    except RendezvousError as error:
        fault = str(error)
    except OSError:
        fault = f"{known_as} is no address of this host"
    for other in others:
        with suppress(RendezvousError):
            if not (address := towards(other)).startswith("127."):
                return address
    if others:
        raise RendezvousError(fault)
    return LOOPBACK
