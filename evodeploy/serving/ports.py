"""Ports that nobody listens on."""

from __future__ import annotations

import socket

from evodeploy.errors import UsageError


def check_free(host: str, port: int, option: str) -> None:
    """Raise UsageError, which names the `option` for another, where `port` of `host` cannot be listened on.

    Ray shares its port with other processes of this user that do so too (SO_REUSEPORT): each would get some requests.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UsageError(f"{host} is no address ({error.strerror or error}): choose another --host") from error
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
