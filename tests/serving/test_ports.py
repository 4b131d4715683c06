from __future__ import annotations

import socket

import pytest
from served import free_port

from evodeploy.errors import UsageError
from evodeploy.serving.ports import check_free, listening


def test_a_free_port_stays_free():
    port = free_port()
    for _ in range(2):
        check_free("127.0.0.1", port, "--port")
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_that_another_would_share_is_refused():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            with pytest.raises(UsageError, match=f"cannot listen on port {port} of {host} .*another with --port"):
                check_free(host, port, "--port")


@pytest.mark.parametrize("host", ["", "no.such.host.invalid", "a" * 300, "a..b"])
def test_what_is_no_address_is_refused(host):
    with pytest.raises(UsageError, match=r"'.{0,60}' is not an address \(.+\): choose another --host"):
        check_free(host, 8000, "--port")


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(UsageError, match=r"cannot listen on port 8000 of 192.0.2.1 .*address\): choose another --host"):
        check_free("192.0.2.1", 8000, "--port")


@pytest.mark.parametrize("absent", [("192.0.2.1", socket.AF_INET), ("10.0.0.1", -1)])  # no such address; no such family
def test_addresses_that_this_machine_lacks_are_left_out(monkeypatch, absent):
    """As ::1 of localhost, where IPv6 is off."""
    addresses = [absent, ("127.0.0.1", socket.AF_INET)]
    found = [(family, socket.SOCK_STREAM, 0, "", (address, 0)) for address, family in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    (only,) = listening("localhost", 0, "--port")
    with only:
        assert only.getsockname()[0] == "127.0.0.1"
