"""What is refused before an endpoint begins, by messages as a server would send them."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref

import pytest

from evodeploy.serving import arrivals, gate
from evodeploy.serving.arrivals import Arrivals
from evodeploy.serving.gate import Gate, Room
from evodeploy.serving.hosts import HostGate, allowed_hosts
from evodeploy.serving.settings import Limits

CHUNKED = (b"transfer-encoding", b"chunked")


class Client:
    """A request whose body comes in the given parts, the last when `more` is set; its client leaves at `left`."""

    def __init__(self, *parts, headers=(), path="/v1/predict"):
        self.scope = {"type": "http", "path": path, "headers": [(b"host", b"localhost"), *headers]}
        self.more, self.left, self._parts = asyncio.Event(), asyncio.Event(), list(parts) or [b""]
        self.status, self.body = None, b""

    async def _receive(self):
        if not self._parts:
            await self.left.wait()
            return {"type": "http.disconnect"}
        part = self._parts.pop(0)
        if self._parts:
            return {"type": "http.request", "body": part, "more_body": True}
        await self.more.wait()
        return {"type": "http.request", "body": part, "more_body": False}

    async def _send(self, message):
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    async def ask(self, application):
        await application(self.scope, self._receive, self._send)
        return self.status

    def at_once(self):
        self.more.set()
        return self


async def echo(scope, receive, send):
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def gated(application=echo, token=None, **limits):
    return Gate(application, Limits(**limits), token, frozenset(["/open"]))


def asked(application, *parts, **changes):
    client = Client(*parts, **changes).at_once()
    return asyncio.run(client.ask(application)), client.body


def test_slow_bodies_keep_no_other_request_out():
    async def run():
        application = gated(admitted=2)
        slow = [Client(b"a", b"b") for _ in range(20)]
        waiting = [asyncio.create_task(client.ask(application)) for client in slow]
        await asyncio.sleep(0)
        assert [await Client(b"x").at_once().ask(application) for _ in range(5)] == [200] * 5
        for client, answer in zip(slow, waiting, strict=True):
            client.more.set()
            assert (await answer, client.body) == (200, b"ab")

    asyncio.run(run())


def test_a_place_is_taken_once_the_body_is_there_and_given_back():
    async def run():
        done = asyncio.Event()

        async def waits(scope, receive, send):
            await done.wait()
            await echo(scope, receive, send)

        application = gated(waits, admitted=1)
        first = asyncio.create_task(Client(b"x").at_once().ask(application))
        await asyncio.sleep(0)
        assert await Client(b"x").at_once().ask(application) == 429
        done.set()
        assert await first == 200
        assert await Client(b"x").at_once().ask(application) == 200

    asyncio.run(run())


def test_who_leaves_is_answered_no_more_and_gives_the_place_back():
    async def run():
        begun, ended = asyncio.Event(), asyncio.Event()

        async def never(scope, receive, send):
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        client, application = Client(b"x").at_once(), gated(never, admitted=1)
        asking = asyncio.create_task(client.ask(application))
        await begun.wait()
        client.left.set()
        assert await asyncio.wait_for(asking, 60) is None
        assert ended.is_set()
        application._app = echo
        assert await Client(b"x").at_once().ask(application) == 200

    asyncio.run(run())


def test_a_thread_keeps_the_place_of_a_client_that_has_left_until_it_ends():
    async def run():
        begun, free = threading.Event(), threading.Event()
        room = Room(Limits())

        def work():
            begun.set()
            assert free.wait(60)

        async def decodes(scope, receive, send):
            await room.in_thread(work)

        client = Client(b"x").at_once()
        application = Gate(decodes, Limits(admitted=1), None, frozenset(), room=room)
        asking = asyncio.create_task(client.ask(application))
        await asyncio.to_thread(begun.wait, 60)
        client.left.set()
        assert await asyncio.wait_for(asking, 60) is None
        application._app = echo
        assert await Client(b"x").at_once().ask(application) == 429
        free.set()
        while room.taken:
            await asyncio.sleep(0.01)
        assert await Client(b"x").at_once().ask(application) == 200

    asyncio.run(run())


def test_what_is_given_to_a_thread_is_dropped_where_the_request_ends_before_it_begins(monkeypatch):
    class Body:
        pass

    async def run():
        begun, free, ran = threading.Event(), threading.Event(), []
        room, body = Room(Limits()), Body()

        def work():
            begun.set()
            assert free.wait(60)

        first = asyncio.create_task(room.in_thread(work))
        await asyncio.to_thread(begun.wait, 60)
        second = asyncio.create_task(room.in_thread(ran.append, body))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        held = weakref.ref(body)
        del body, second
        gc.collect()
        assert (held(), room.taken) == (None, 0)
        free.set()
        await first
        assert await room.in_thread(len, "abc") == 3
        assert ran == []

    monkeypatch.setattr(gate, "usable_cores", lambda: -3)  # one thread
    asyncio.run(run())


def test_bodies_on_their_way_hold_no_more_than_those_admitted_may(monkeypatch):
    async def run(count, *parts):
        application = gated(admitted=2, body=10)
        waiting = [asyncio.create_task(Client(*parts, headers=[CHUNKED]).ask(application)) for _ in range(count)]
        for _ in range(4):
            await asyncio.sleep(0)
        refused = await Client(b"12345", b"6", headers=[CHUNKED]).at_once().ask(application)
        for task in waiting:
            task.cancel()
        return refused

    assert asyncio.run(run(2, b"12345", b"6")) == 200
    assert asyncio.run(run(3, b"12345", b"6")) == 429
    monkeypatch.setattr(gate, "BODIES", 3)
    assert asyncio.run(run(3, b"", b"")) == 429


def test_whole_bodies_count_as_the_largest_while_they_come():
    async def run():
        room = Room(Limits(admitted=2, body=10))
        calls, http = (Gate(echo, Limits(admitted=2, body=10), None, frozenset(), room=room, whole=w) for w in (1, 0))
        first = Client(b"12345", headers=[CHUNKED])
        waiting = asyncio.create_task(first.ask(calls))
        await asyncio.sleep(0)
        assert await Client(b"1234567890", headers=[CHUNKED]).at_once().ask(calls) == 200
        second = asyncio.create_task(Client(b"12345", headers=[CHUNKED]).ask(calls))
        await asyncio.sleep(0)
        assert await Client(b"1", headers=[CHUNKED]).at_once().ask(calls) == 429
        assert await Client(b"1", headers=[CHUNKED]).at_once().ask(http) == 429
        second.cancel()
        await asyncio.wait([second])
        assert await Client(b"x" * 11, headers=[CHUNKED]).at_once().ask(calls) == 413
        first.more.set()
        assert (await waiting, first.body) == (200, b"12345")
        assert await Client(b"1" * 10, headers=[CHUNKED]).at_once().ask(http) == 200

    asyncio.run(run())


def dripping(count, seconds, drops):
    """Bodies that have sent some bytes a second for some seconds, by `Arrivals` and the names of those evicted."""
    gone = []
    arrivals = Arrivals(count, 10**9)
    for name in range(count):
        arrival = arrivals.admit(lambda name=name: gone.append(name), 0.0, placed=True)
        for second in range(1, seconds + 1):
            assert arrivals.grows(arrival, drops(name), float(second))
    return arrivals, gone


def test_the_slowest_body_gives_way_where_places_run_out():
    bodies, gone = dripping(8, 5, lambda name: 1 if name == 3 else 10**6)
    assert bodies.admit(print, 5.0, placed=True) is not None
    assert gone == [3]
    assert bodies.admit(print, 5.0, placed=True) is None  # the others are fast


def test_bytes_ahead_of_time_keep_a_place_for_seconds_only():
    bodies, gone = dripping(2, 1, lambda name: 10**7)
    assert bodies.admit(print, 2.9, placed=True) is None
    assert bodies.admit(print, 3.1, placed=True) is not None
    assert len(gone) == 1


def test_a_stalled_body_gives_way_where_bytes_run_out():
    gone = []
    arrivals = Arrivals(8, 100)
    stalled = arrivals.admit(lambda: gone.append("stalled"), 0.0, placed=True)
    assert arrivals.grows(stalled, 80, 0.0)
    other = arrivals.admit(lambda: gone.append("other"), 9.0, placed=True)
    assert arrivals.grows(other, 80, 9.0)
    assert gone == ["stalled"]
    arrivals.leave(stalled)  # its place is given back once
    assert arrivals.grows(other, 20, 9.0)
    assert not arrivals.grows(other, 1, 9.0)


def test_clients_that_drip_are_answered_408_and_keep_no_other_out(monkeypatch):
    async def run():
        application = gated()
        slow = [Client(b"a", b"b", headers=[CHUNKED]) for _ in range(3)]
        waiting = [asyncio.create_task(client.ask(application)) for client in slow]
        for _ in range(4):
            await asyncio.sleep(0)
        quick = [await Client(b"x", headers=[CHUNKED]).at_once().ask(application) for _ in range(2)]
        answered = await asyncio.wait_for(next(asyncio.as_completed(waiting)), 60)
        for client in slow:
            client.more.set()
        return quick, answered, sorted(await asyncio.gather(*waiting)), {client.status: client.body for client in slow}

    monkeypatch.setattr(gate, "BODIES", 3)
    monkeypatch.setattr(arrivals, "PATIENCE", -1.0)  # late at once
    quick, answered, all_answers, bodies = asyncio.run(run())
    assert (quick, answered, all_answers) == ([200, 200], 408, [200, 200, 408])
    assert "at less than 16 KiB a second while others waited" in json.loads(bodies[408])["error"]


@pytest.mark.parametrize("announced", [CHUNKED, (b"content-length", b"2")])
def test_bodies_that_do_not_come_keep_no_request_out_that_sends_none(monkeypatch, announced):
    async def run():
        application = gated()
        waiting = [asyncio.create_task(Client(b"a", b"b", headers=[announced]).ask(application)) for _ in range(3)]
        for _ in range(4):
            await asyncio.sleep(0)
        assert await Client(b"x", headers=[announced]).at_once().ask(application) == 429
        for headers in ([], [(b"content-length", b"0")]):
            assert await Client(headers=headers).at_once().ask(application) == 200
        for task in waiting:
            task.cancel()

    monkeypatch.setattr(gate, "BODIES", 3)
    asyncio.run(run())


class Leaping(asyncio.SelectorEventLoop):
    """A loop that waits for nothing: its clock leaps to what is next."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


class Phone(Client):
    """A body of 5 MB that comes in parts, at a fixed interval, at first; then nothing does."""

    def __init__(self, seconds, count):
        super().__init__(*[b"x" * 50_000] * 100, headers=[CHUNKED])
        self._seconds, self._stop = seconds, 100 - count

    async def _receive(self):
        await asyncio.sleep(self._seconds if len(self._parts) > self._stop else 10**6)
        return await super()._receive()


@pytest.mark.parametrize(
    ("seconds", "parts", "status", "least", "most"),
    [(0.4, 100, 200, 40, 41), (29, 100, 200, 2900, 2901), (0.4, 90, 504, 36 + 30, 36 + 60), (31, 100, 504, 30, 30)],
)
def test_a_slow_body_is_taken_as_long_as_some_of_it_comes(seconds, parts, status, least, most):
    loop = Leaping()
    client = Phone(seconds, parts).at_once()
    assert loop.run_until_complete(client.ask(gated())) == status
    assert least <= round(loop.now, 6) <= most
    loop.close()
    if status == 504:
        assert json.loads(client.body)["error"] == "nothing of the request came for 30 s"
    else:
        assert len(client.body) == 5_000_000


@pytest.mark.parametrize(("before", "status", "seconds"), [(31, 504, 30), (29, 200, 129)])
def test_an_answer_begins_in_time_and_may_then_take_as_long_as_its_client(before, status, seconds):
    async def slow(scope, receive, send):
        await asyncio.sleep(before)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(100)
        await send({"type": "http.response.body", "body": b"whole"})

    loop, client = Leaping(), Client(b"x").at_once()
    assert loop.run_until_complete(client.ask(gated(slow))) == status
    assert loop.now == seconds
    assert client.body == (b"whole" if status == 200 else b'{"error":"not done within 30 s"}')
    loop.close()


@pytest.mark.parametrize("token", [None, "secret"])
@pytest.mark.parametrize("path", ["/v1/predict", "/open"])
def test_headers_that_are_too_large_or_ambiguous_are_refused(token, path):
    application = gated(token=token)
    large = (b"x", b"y" * gate.HEADER_BYTES)
    status, body = asked(application, path=path, headers=[large])
    assert (status, json.loads(body)["error"]) == (431, "the headers are larger than 16384 bytes")
    twice = [(b"authorization", b"Bearer secret")] * 2
    status, body = asked(application, path=path, headers=twice)
    assert (status, json.loads(body)["error"]) == (400, "Authorization is given 2 times, expected once")
    assert asked(application, path=path, headers=twice[:1])[0] == 200


@pytest.mark.parametrize("length", [b"-1", b"x", b"11", b"9" * 5000, b""])
def test_a_length_that_is_none_or_too_large_is_refused_unread(length):
    assert asked(gated(body=10), b"0" * 5, headers=[(b"content-length", length)])[0] == 413


@pytest.mark.parametrize(
    ("bound", "host", "status"),
    [
        ("127.0.0.1", "localhost", 200),
        ("127.0.0.1", "LOCALHOST:8000", 200),
        ("127.0.0.1", "127.0.0.1:1", 200),
        ("127.0.0.1", "[::1]:8000", 200),
        ("127.0.0.1", "[::1]", 200),
        ("127.0.0.1", "models.example:8000", 200),
        ("10.0.0.7", "10.0.0.7:80", 200),
        ("0.0.0.0", "10.0.0.7:80", 200),
        ("127.0.0.1", "10.0.0.7", 421),
        ("127.0.0.1", "evil.example:8000", 421),
        ("127.0.0.1", "localhost.evil.example", 421),
        ("0.0.0.0", "evil.example:8000", 421),
        ("127.0.0.1", "*", 421),
        ("127.0.0.1", "", 421),
    ],
)
def test_a_host_that_is_not_of_the_service_is_refused(bound, host, status):
    async def run():
        client = Client().at_once()
        client.scope["headers"] = [(b"host", host.encode())]
        return await client.ask(HostGate(echo, allowed_hosts(bound, ["Models.example"])))

    assert asyncio.run(run()) == status


@pytest.mark.parametrize(
    ("method", "site", "mode", "status"),
    [
        ("POST", b"cross-site", b"no-cors", 403),
        ("POST", b"cross-site", b"navigate", 403),  # a form
        ("GET", b"cross-site", b"no-cors", 403),  # an image
        ("GET", b"cross-site", b"navigate", 200),  # a link
        ("POST", b"same-origin", b"cors", 200),
        ("GET", b"none", b"navigate", 200),
    ],
)
def test_a_page_of_another_site_is_refused(method, site, mode, status):
    client = Client(headers=[(b"sec-fetch-site", site), (b"sec-fetch-mode", mode)]).at_once()
    client.scope["method"] = method
    assert asyncio.run(client.ask(HostGate(echo, allowed_hosts("127.0.0.1", [])))) == status


def test_two_hosts_or_none_are_refused():
    application = HostGate(echo, allowed_hosts("127.0.0.1", []))
    assert asked(application, headers=[(b"host", b"localhost")])[0] == 400
    client = Client().at_once()
    client.scope["headers"] = []
    assert asyncio.run(client.ask(application)) == 400
