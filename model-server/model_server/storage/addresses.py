"""Which network addresses a model may be fetched from: not this pod, not its node, not the cloud's metadata service.

Private addresses are allowed: stores inside the cluster have them, and the pod fetches with its own rights only.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from model_server.errors import LoadFailure, Reason

Address = IPv4Address | IPv6Address

_METADATA: Final = frozenset(
    ip_address(text)
    for text in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_THIS_NETWORK: Final = ip_network("0.0.0.0/8")


def forbidden(address: Address) -> bool:
    """Whether nothing may be fetched from `address`, also when it is wrapped in an IPv6 one."""
    inner = _unwrapped(address)
    if inner is not None:
        return forbidden(inner)
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address in _METADATA
        or (address.version == 4 and (address in _THIS_NETWORK or int(address) == 2**32 - 1))
    )


def _unwrapped(address: Address) -> IPv4Address | None:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 one."""
    if isinstance(address, IPv4Address):
        return None
    if address.teredo:
        return address.teredo[1]
    if any(address in network for network in _NAT64) or 1 < int(address) < 2**32:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def resolve(host: str, port: int, *, any_address: bool = False) -> list[str]:
    """The addresses of `host` to connect to, exactly these: a second look-up could answer differently.

    LoadFailure(FetchFailed) when one of them is forbidden; OSError when there are none. Blocks.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    texts = list(dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found))
    for text in texts:
        if not any_address and forbidden(ip_address(text.partition("%")[0])):
            raise LoadFailure(
                Reason.FETCH_FAILED, f"{host} is {text}: models are not fetched from loopback, link-local or metadata"
            )
    return texts
