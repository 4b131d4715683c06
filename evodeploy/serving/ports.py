"""Ports that nobody listens on."""

from __future__ import annotations

import socket

from evodeploy.errors import UsageError
from evodeploy.text import brief


def check_free(host: str, port: int, option: str) -> None:
    """Raise UsageError, which names the `option` for another, where `port` of `host` cannot be listened on.

    Ray shares its port with other processes of this user that do so too (SO_REUSEPORT): each would get some requests.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # the latter for a name that DNS cannot have
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"'{brief(host, 60)}' is no address ({why}): choose another --host") from error
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else what was closed just now is in the way
            try:
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                raise UsageError(
                    f"port {port} of {host} cannot be listened on ({error.strerror}): choose another with {option}"
                ) from error
