"""Which of this machine's networks leads to another one."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from contextlib import suppress

_SIOCGIFADDR = 0x8915
_NAME_BYTES, _ADDRESS = 256, slice(20, 24)


def interface_towards(host: str, port: int) -> str | None:
    """The network interface from which an address is reached, e.g. "eth0"; None: it has no IPv4 address that says so.

    Raises OSError where the name is not known, or nothing leads there.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # nothing is sent
        ours = probe.getsockname()[0]
        if ipaddress.ip_address(ours.partition("%")[0]).is_loopback:
            return "lo"
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an IPv4 address
                found = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack(f"{_NAME_BYTES}s", name.encode()))
                if socket.inet_ntoa(found[_ADDRESS]) == ours:
                    return name
    return None
