"""HTTP on behalf of a job: only to the public internet, unless the operator allows more."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import httpx

from compute_horde.executor.settings import ExecutorSettings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
WebClient = Callable[[], httpx.AsyncClient]
"""Makes a client for one job, so that jobs share no cookies and no connections."""

TIMEOUT = httpx.Timeout(60, connect=10)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(Exception):  # noqa: N818 - what happened
    """The name leads to addresses that a job may not reach."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, also when it only wraps an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if wrapped is None and address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast


class GuardedBackend(httpcore.AnyIOBackend):
    """Looks a name up once, checks the addresses, and connects to one that it has checked."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = [address for address in await _resolve(host, port) if is_public(address)]
        if not addresses:
            raise AddressRefused(f"{host} is not on the public internet")
        for number, address in enumerate(addresses, start=1):
            try:
                return await super().connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise AddressRefused(f"{host} has no address")


async def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} cannot be found") from error
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


class GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport over :class:`GuardedBackend`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=GuardedBackend())


class Web:
    """A :data:`WebClient`. ``prepare`` loads the certificates, which takes a while, ahead of the first job."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self._open = settings.allow_private_networks
        self._context: ssl.SSLContext | None = None

    def prepare(self) -> ssl.SSLContext:
        self._context = self._context or httpx.create_ssl_context(trust_env=False)
        return self._context

    def __call__(self) -> httpx.AsyncClient:
        context = self.prepare()
        transport = (
            httpx.AsyncHTTPTransport(verify=context, trust_env=False) if self._open else GuardedTransport(context)
        )
        return httpx.AsyncClient(transport=transport, timeout=TIMEOUT, trust_env=False, max_redirects=10)


def without_query(url: str) -> str:
    """The part of a URL that may be shown: no credentials, query or fragment."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return "the URL"
    return str(parsed.copy_with(userinfo=b"", query=None, fragment=None))[:300]
