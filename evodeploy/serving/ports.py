"""Ports: those that nobody listens on, and listening on them alone."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

from evodeploy.errors import UsageError
from evodeploy.text import brief

BACKLOG = 2048  # connections that wait to be taken
ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # for an address that this machine lacks, as ::1 where IPv6 is off


def check_free(host: str, port: int, option: str) -> None:
    """Raise UsageError, which names the `option` for another, where `port` of `host` cannot be listened on.

    Ray shares its port with other processes of this user that do so too (SO_REUSEPORT): each would get some requests.
    """
    for each in listening(host, port, option):
        each.close()


def listening(host: str, port: int, option: str) -> list[socket.socket]:
    """Sockets that listen on `port` of every address of `host`, for this process alone; port 0 is any that is free.

    Addresses that this machine lacks are left out. Raises UsageError, which names the `option` for another port, or
    --host where no address is left.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # the latter for a name that DNS cannot have
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"'{brief(host, 60)}' is no address ({why}): choose another --host") from error
    failed = f"port {port} of {host} cannot be listened on"
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        absent: OSError | None = None
        for family, kind, protocol, _, address in found:
            if sockets and port == 0:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(stack.enter_context(_opened(family, kind, protocol, address)))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise UsageError(f"{failed} ({error.strerror}): choose another with {option}") from error
                absent = error
        if absent and not sockets:
            raise UsageError(f"{failed} ({absent.strerror}): choose another --host") from absent
        stack.pop_all()
    return sockets


def _opened(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    """A socket that listens on `address`; raises OSError."""
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(socket.socket(family, kind, protocol))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else what was closed just now is in the way
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        opened.bind(address)
        opened.listen(BACKLOG)
        stack.pop_all()
    return opened
