"""Ports: those that nobody listens on, and listening on them alone."""

from __future__ import annotations

import contextlib
import socket

from evodeploy.errors import UsageError
from evodeploy.text import brief

BACKLOG = 2048  # connections that wait to be taken


def check_free(host: str, port: int, option: str) -> None:
    """Raise UsageError, which names the `option` for another, where `port` of `host` cannot be listened on.

    Ray shares its port with other processes of this user that do so too (SO_REUSEPORT): each would get some requests.
    """
    for each in listening(host, port, option):
        each.close()


def listening(host: str, port: int, option: str) -> list[socket.socket]:
    """Sockets that listen on `port` of every address of `host`, for this process alone; port 0 is any that is free.

    Raises UsageError, which names the `option` for another port.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # the latter for a name that DNS cannot have
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"'{brief(host, 60)}' is no address ({why}): choose another --host") from error
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, kind, protocol, _, address in found:
            opened = stack.enter_context(socket.socket(family, kind, protocol))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else what was closed just now is in the way
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
            if sockets and port == 0:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                opened.bind(address)
                opened.listen(BACKLOG)
            except OSError as error:
                raise UsageError(
                    f"port {port} of {host} cannot be listened on ({error.strerror}): choose another with {option}"
                ) from error
            sockets.append(opened)
        stack.pop_all()
    return sockets
