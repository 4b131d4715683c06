"""Checks of the Host header. If another site makes its domain name point here, requests of its pages carry that name.

Without a token and without this check, such a page could read every answer (DNS rebinding). Requests from pages of
other sites are refused as well: the page could not read the answer, but the request would be computed.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from fastapi.responses import JSONResponse

from evodeploy.serving.settings import Settings
from evodeploy.text import printable

ANY_ADDRESS = "*"  # any IP address: another site's page can only come here by a name
LOCAL = ("localhost", "127.0.0.1", "::1")


def allowed_hosts(bound: str, more: Iterable[str]) -> frozenset[str]:
    """Return the names of this machine, the address `bound` and `more`; every address if it listens on all of them."""
    hosts = {*LOCAL, bound, *(_plain(each) for each in more)}
    if bound in ("0.0.0.0", "::"):
        hosts |= {ANY_ADDRESS, socket.gethostname()}
    return frozenset(each.lower() for each in hosts)


def hosts_for(settings: Settings) -> frozenset[str] | None:
    """Return the hosts that requests to a service may name, or None, which means any, if a token is needed."""
    return None if settings.token is not None else allowed_hosts(settings.host, settings.allow_hosts)


class HostGate:
    """An ASGI middleware that passes requests to `hosts`, with any port. Others get 421, or 400 if they name none.

    Requests from pages of other sites get 403, except when a user follows a link to the service.
    """

    def __init__(self, app: Any, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            named = [value for key, value in scope["headers"] if key == b"host"]
            if len(named) != 1:
                refusal = JSONResponse({"error": f"the request has {len(named)} Host headers, expected one"}, 400)
                await refusal(scope, receive, send)
                return
            host = _plain(named[0].decode("latin-1"))
            if not self._is_allowed(host):
                answer = f"'{printable(host[:100])}' is not a host of this service: allow it with `serve --allow-host`"
                await JSONResponse({"error": answer}, 421)(scope, receive, send)
                return
            if _is_of_another_site(scope):
                error = "the request comes from a page of another site, from which this service accepts none"
                await JSONResponse({"error": error}, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        return host in self._hosts or (ANY_ADDRESS in self._hosts and _is_address(host))


def _plain(host: str) -> str:
    """Return `host` in lower case, without its port and without the brackets of IPv6."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() and ":" not in name else host.removesuffix(":")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_of_another_site(scope: Any) -> bool:
    """Return whether the browser marks it so (https://www.w3.org/TR/fetch-metadata/), and it is not a followed link."""
    named = {key: value for key, value in scope["headers"] if key.startswith(b"sec-fetch-")}
    follows = scope.get("method") == "GET" and named.get(b"sec-fetch-mode") == b"navigate"
    return named.get(b"sec-fetch-site") == b"cross-site" and not follows
