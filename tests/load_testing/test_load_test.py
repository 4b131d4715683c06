"""How a server answers under load: on the service in one process, and on servers that stall, refuse or are none."""

from __future__ import annotations

import http.server
import json
import signal
import threading
import time
from typing import ClassVar

import pytest
from PIL import Image
from reference_pages import check_fields
from served import started, wait_until

import evodeploy
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.load_testing import run
from evodeploy.load_testing.arrivals import closed_loop, open_loop, poisson
from evodeploy.load_testing.page import as_html
from evodeploy.load_testing.records import Load, LoadTest, Outcome, Reply
from evodeploy.load_testing.target import pictures_of, ratio_of
from evodeploy.serving.service import running
from evodeploy.serving.settings import Settings


@pytest.fixture(scope="module")
def service(small_onnx):
    with running(Settings(small_onnx, port=0, grpc_port=0, max_batch=2)) as started:
        yield started


@pytest.fixture
def address(service):
    return service.address


def test_the_service_is_asked_at_each_rate(address):
    test = evodeploy.load_test(address, rates=(30, 60), seconds=0.5, target=30.0)
    assert [load.rate for load in test.loads] == [30, 60]
    for load in test.loads:
        assert load.answers == {"200": len(poisson(load.rate, 0.5, 0))}
        assert load.in_time == 1
        assert load.keep_ratio == 0.5
        assert 0 < load.quantile(0.5) <= load.quantile(0.999)
    assert "30/s" in str(test)
    json.dumps(test.to_dict(), allow_nan=False)


def test_any_server_of_the_protocol_is_asked_by_tensors(address):
    test = evodeploy.load_test(address, connections=2, model="evo_deit_test", seconds=0.3)
    (load,) = test.loads
    assert load.answers.keys() == {"200"}
    assert load.connections == 2
    assert "one FP32 tensor of [1, 3, 64, 64] for 'evo_deit_test'" in str(test)
    with pytest.raises(RuntimeFailedError, match="answers 404 there is no model 'other' here"):
        evodeploy.load_test(address, model="other")


def test_any_server_of_the_protocol_is_asked_by_grpc(service):
    url = f"grpc://{service.grpc}"
    test = evodeploy.load_test(url, rates=(30,), model="evo_deit_test", seconds=0.5, target=30.0)
    (load,) = test.loads
    assert load.answers == {"OK": len(poisson(30, 0.5, 0))}
    assert (load.in_time, load.keep_ratio, load.failed) == (1, 0.5, 0)
    assert "one FP32 tensor of [1, 3, 64, 64] for 'evo_deit_test', by gRPC" in str(test)
    with pytest.raises(RuntimeFailedError, match="answers NOT_FOUND there is no model 'other' here"):
        evodeploy.load_test(url, model="other")
    with pytest.raises(RuntimeFailedError, match="grpc://127.0.0.1:9 answers UNAVAILABLE"):
        evodeploy.load_test("grpc://127.0.0.1:9", model="other")


def test_the_ratio_that_is_asked_for_is_not_rounded():
    """0.295918 keeps 57 of 196 tokens, and this one 58."""
    assert pictures_of("http://127.0.0.1:9", None, False, None, 0.2959184).path.endswith("?keep_ratio=0.2959184")


def test_what_is_refused_and_lost_by_grpc_is_counted():
    outcomes = (Outcome(0.1, "OK"), Outcome(0.1, "RESOURCE_EXHAUSTED"), Outcome(0.1, "UNAVAILABLE"))
    load = Load(3.0, None, 1.0, 1.0, outcomes)
    assert (len(load.answered), load.refused, load.failed) == (1, 1, 1)


def test_answers_are_compared_with_the_folders_of_pictures(address, small_onnx, tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (70, 70)).save(picture)
    with evodeploy.load(small_onnx) as predictor:
        best = predictor.predict(picture).label.name
    for name, accuracy in ((best, 1.0), ("other", 0.0)):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        picture.rename(folder / "a.png")
        picture = folder / "a.png"
        (load,) = evodeploy.load_test(
            address, connections=1, images=tmp_path / "pictures", labels=True, seconds=0.2
        ).loads
        assert load.accuracy == accuracy
        assert load.cells()[-1] == f"{accuracy:.1%}"
    with pytest.raises(UsageError, match="a.png has no label: put images into folders"):
        evodeploy.load_test(address, images=folder, labels=True)


def test_the_command_writes_all_forms(cli, address, tmp_path):
    Image.new("RGB", (70, 70)).save(tmp_path / "a.png")
    options = ("--images", tmp_path, "--rate", "20", "--seconds", "0.2", "--target", "30000")
    code, out, err = cli(
        "load-test", address, *options, "--json", "-o", tmp_path / "l.json", "--html", tmp_path / "l.html"
    )
    assert code == 0, err
    document = json.loads(out)
    check_fields("Load test", document)
    assert document == json.loads((tmp_path / "l.json").read_text())
    assert document["what"] == f"1 images of {tmp_path}"
    assert document["loads"][0]["answers"].keys() == {"200"}
    page = (tmp_path / "l.html").read_text()
    assert "20/s" in page
    assert "<script" not in page
    code, _, err = cli("load-test", address, *options, "-o", tmp_path / "l.json")
    assert (code, "l.json" in err and "exists" in err) == (2, True)


def test_a_server_that_stalls_is_asked_no_less():
    """One connection, each answer 50 ms: the tenth request that is due at once waits for the nine before it."""

    def make():
        def ask():
            time.sleep(0.05)
            return "200", None

        return ask

    outcomes = open_loop(make, [0.0] * 10, most=1)
    assert sorted(outcome.seconds >= 0.05 * (n + 1) for n, outcome in enumerate(outcomes)) == [True] * 10
    assert all(outcome.seconds < 10 for outcome in closed_loop(make, 2, 0.1))


def test_what_is_offered_does_not_depend_on_how_late_the_answers_are(monkeypatch):
    """One connection and 50 ms for each answer: what is sent in half a second is answered in a second."""

    class Slow:
        what = "a picture"

        def asking(self):
            return lambda: Reply("200") if time.sleep(0.05) is None else None

    monkeypatch.setattr(run, "asked", lambda *_: {})
    monkeypatch.setattr(run, "pictures_of", lambda *_: Slow())
    monkeypatch.setattr(run, "MOST", 1)
    (load,) = evodeploy.load_test("http://x", rates=(40,), seconds=0.5).loads
    count = len(poisson(40, 0.5, 0))
    assert load.seconds >= 0.05 * count > 0.6
    assert load.cells()[1] == f"{count / 0.5:.1f}"


def test_arrivals_are_as_many_as_the_rate_says_and_the_same_each_time():
    times = poisson(100, 20, 3)
    assert times == poisson(100, 20, 3) == sorted(times)
    assert len(times) == pytest.approx(2000, rel=0.1)
    assert all(0 <= each < 20 for each in times)


def test_what_was_not_answered_is_counted():
    outcomes = [Outcome(n / 100, "200", 0.5 if n <= 50 else 1.0) for n in range(1, 101)]
    outcomes += [Outcome(0.001, "429"), Outcome(0.001, "503"), Outcome(60.0, "TimeoutError"), Outcome(0.1, "500")]
    load = Load(20.0, None, 5.2, 0.505, tuple(outcomes))
    assert (load.refused, load.failed, load.keep_ratio) == (2, 2, 0.75)
    assert load.in_time == 50 / 104  # of all, refused ones included
    assert [load.quantile(share) for share in (0, 0.5, 0.9, 0.99, 0.999)] == [0.01, 0.5, 0.9, 0.99, 1.0]
    shown = ("20/s", "20.0", "19.2", "500.0 ms", "900.0 ms", "990.0 ms", "1000.0 ms", "2", "2", "48.1%", "0.75", "–")
    assert load.cells() == shown
    document = LoadTest("x", "y", (load,)).to_dict()["loads"][0]
    assert document["latency"] == {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 1.0}
    assert (document["requests"], len(document["latencies"]), document["latencies"][0]) == (104, 100, 0.01)
    nothing = Load(None, 3, 1.0, None, (Outcome(1.0, "ConnectionRefusedError"),))
    assert nothing.cells() == ("3 connections", "1.0", "0.0", "–", "–", "–", "–", "0", "1", "–", "–", "–")
    test = LoadTest("http://x<b>", "a picture", (load, nothing))
    assert test.to_dict()["schema"] == 1
    assert "48.1%" in str(test)
    assert "&lt;b&gt;" in as_html(test)
    assert "<b>" not in as_html(test)
    as_html(LoadTest("x", "y", (nothing,)))


def test_a_record_is_saved_under_a_name(tmp_path):
    for name in ("l.json", "l.html"):
        LoadTest("x", "y", ()).save(str(tmp_path / name))
        assert (tmp_path / name).stat().st_size


@pytest.mark.parametrize(
    "url",
    [
        "",
        "grpc://",
        "grpc://127.0.0.1",
        "grpc://[x",
        "grpc://x:8001/a",
        "127.0.0.1:8000",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x/path",
        "http://[x",
        "http://x?a=b",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UsageError, match="is not the address of a server"):
        evodeploy.load_test(url, model="m")


@pytest.mark.parametrize(
    "options",
    [
        {"rates": (1,), "connections": 1},
        {"images": ".", "model": "a"},
        {"rates": (0,)},
        {"labels": True},
        {"connections": 0},
        {"seconds": 0},
    ],
)
def test_what_cannot_be_asked_is_refused(options):
    with pytest.raises(UsageError):
        evodeploy.load_test("http://127.0.0.1:9", **options)


def test_grpc_without_a_model_is_refused():
    with pytest.raises(UsageError, match="gRPC takes tensors: name the model"):
        evodeploy.load_test("grpc://127.0.0.1:9")


def test_a_server_that_does_not_answer_is_an_error():
    with pytest.raises(RuntimeFailedError, match="http://127.0.0.1:9 does not answer"):
        evodeploy.load_test("http://127.0.0.1:9")


class Odd(http.server.BaseHTTPRequestHandler):
    """Says that it has a model, closes each connection without a word, and answers every second request."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self):
        self.answer(b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Odd.asked += 1
        if Odd.asked % 2:
            self.close_connection = True
        else:
            self.answer(b"{}")

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("evodeploy-keep-ratio", "a,b")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_connections_that_end_without_a_word_are_reported():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        test = evodeploy.load_test(f"http://127.0.0.1:{server.server_port}/", rates=(100,), seconds=0.2)
        server.shutdown()
    assert set(test.loads[0].answers) <= {"200", "RemoteDisconnected"}
    assert test.loads[0].answered
    assert test.loads[0].keep_ratio is None


@pytest.mark.parametrize(
    ("text", "ratio"), [("0.5", 0.5), ("1,0.5", 0.75), ("nan", None), ("0.5,inf", None), ("", None)]
)
def test_a_ratio_that_is_none_is_not_counted(text, ratio):
    assert ratio_of(text) == ratio


class Tench(http.server.BaseHTTPRequestHandler):
    """Says of every picture that it is of one class."""

    label: ClassVar = {"name": "tench", "index": 0}

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer({"labels": [self.label]})

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Stalling(Tench):
    """Answers its first request, the one that is not measured, and no other before it is `released`."""

    asked = 0
    released = threading.Event()

    def do_POST(self):
        Stalling.asked += 1
        if Stalling.asked > 1:
            Stalling.released.wait(120)
        super().do_POST()


@pytest.mark.parametrize("load", [("--connections", 2), ("--rate", 50)])
def test_ctrl_c_ends_it_though_nothing_is_answered(load):
    Stalling.asked = 0
    Stalling.released.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        process = started("load-test", f"http://127.0.0.1:{server.server_port}", *load, "--seconds", 3600)
        try:
            wait_until(lambda: Stalling.asked > 2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
            Stalling.released.set()
            server.shutdown()
    assert (process.returncode, err) == (130, "Error: interrupted\n")


@pytest.mark.parametrize(
    ("folder", "label", "accuracy"),
    [
        ("tench", ("tench", 0), 1),
        ("n01440764", ("tench", 0), 1),
        ("0", ("tench", 0), 1),
        ("007", ("class 7", 7), 1),
        ("goldfish", ("tench", 0), 0),
        ("n01443537", ("tench", 0), 0),
        ("7", ("5", 7), 0),  # a class of another number that is called so
        ("n01443537", ("n02102040", 1), 0),  # a model with some of ImageNet's classes
    ],
)
def test_labels_are_names_numbers_or_wordnet_ids(tmp_path, monkeypatch, logged, folder, label, accuracy):
    (tmp_path / folder).mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / folder / "a.png")
    monkeypatch.setattr(Tench, "label", dict(zip(("name", "index"), label, strict=True)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tench) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        test = evodeploy.load_test(url, rates=(30, 60), images=tmp_path, labels=True, seconds=0.2)
        server.shutdown()
    assert [load.accuracy for load in test.loads] == [accuracy] * 2
    warned = [line for line in logged if "no label matches an answered class" in line]
    assert len(warned) == 1 - accuracy
    assert all(f"labels are such as '{folder}', classes such as '{label[0]}' ({label[1]})" in line for line in warned)
