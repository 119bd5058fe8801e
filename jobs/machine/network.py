"""The network interfaces of this machine, their addresses, and free ports."""

from __future__ import annotations

import socket

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

    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return str(name)
    raise RendezvousError(f"no network interface of this host has the address {address}")


def address_on(interface: str) -> str:
    """The IPv4 address of this host on a network interface; what interface_of does the other way."""
    import psutil

    entries = psutil.net_if_addrs().get(interface)
    if entries is None:
        known = ", ".join(sorted(psutil.net_if_addrs()))
        raise RendezvousError(f"this host has no network interface {interface}; it has {known}")
    for entry in entries:
        if entry.family == socket.AF_INET:
            return str(entry.address)
    raise RendezvousError(f"the network interface {interface} has no IPv4 address")


def master_port(address: str = LOOPBACK) -> int:
    """A port that is free now on `address`, for a launcher to give out as MASTER_PORT."""
    with reserve_port(address) as held:
        return int(held.getsockname()[1])
