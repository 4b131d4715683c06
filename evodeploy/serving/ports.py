"""Finding ports that are free, and listening on them exclusively."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

from evodeploy.errors import UsageError
from evodeploy.text import brief

BACKLOG = 2048  # connections that wait to be accepted
ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # the machine lacks such an address, for example ::1 if IPv6 is off


def check_free(host: str, port: int, option: str) -> None:
    """Raise UsageError if nothing can listen on `port` of `host`; the message names the `option` to choose another.

    Ray shares its port with other processes of this user that do the same (SO_REUSEPORT): each would get some requests.
    """
    for each in listening(host, port, option):
        each.close()


def listening(host: str, port: int, option: str) -> list[socket.socket]:
    """Return sockets that listen on `port` of every address of `host`, exclusively. Port 0 is any free port.

    Addresses that this machine lacks are left out. Raises UsageError; its message names the `option` to choose another
    port, or --host if no address is left.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # the latter for a name that is not valid in DNS
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"'{brief(host, 60)}' is not an address ({why}): choose another --host") from error
    failed = f"cannot listen on port {port} of {host}"
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
    """Return a socket that listens on `address`. Raises OSError."""
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(socket.socket(family, kind, protocol))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a socket just closed blocks the port
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a separate socket
        opened.bind(address)
        opened.listen(BACKLOG)
        stack.pop_all()
    return opened
