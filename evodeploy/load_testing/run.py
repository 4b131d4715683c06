"""The function `load_test`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from evodeploy.arguments import checked
from evodeploy.errors import UsageError
from evodeploy.load_testing.arrivals import closed_loop, open_loop, poisson
from evodeploy.load_testing.calls import SCHEMES, Calls, calls_of
from evodeploy.load_testing.records import Load, LoadTest
from evodeploy.load_testing.target import Bodies, asked, pictures_of, tensors_of
from evodeploy.text import brief

RATES = (10.0, 20.0, 40.0)
MOST = 256  # requests in flight at once

_log = logging.getLogger(__name__)


@checked
def load_test(
    url: str,
    *,
    rates: Sequence[float] | None = None,
    connections: int | None = None,
    images: str | os.PathLike[str] | None = None,
    labels: bool = False,
    model: str | None = None,
    seconds: float = 10.0,
    target: float | None = None,
    keep_ratio: float | None = None,
    token: str | None = None,
    seed: int = 0,
) -> LoadTest:
    """Send requests to the server at `url` for `seconds` at each of `rates` per second; measure answers and latencies.

    Requests are sent at random times that do not depend on answers, and latencies count from these times. With
    `connections`, that number of clients each send the next request when the last is answered. `evodeploy serve` gets
    the images of the folder `images`, or one of noise. With `labels`, each image lies in a folder named after its
    class, by name, number or WordNet id, and the answers have an accuracy. With `model`, any server of the Open
    Inference Protocol gets a random tensor, over gRPC if the address is `grpc://HOST:PORT`, or `grpcs://` with TLS. An
    answer is in time within `target` seconds. Every request asks for `keep_ratio`.

    Raises UsageError if the arguments do not fit, RuntimeFailedError if the server does not answer at all.
    """
    by_grpc = url.partition("://")[0] in SCHEMES
    if by_grpc and model is None:
        raise UsageError("gRPC takes tensors: name the model that they are for")
    if labels and images is None:
        raise UsageError("labels need images: give a folder of them")
    if (rates is not None and connections is not None) or (images is not None and model is not None):
        what = "rates and connections" if connections is not None and rates is not None else "images and a model"
        raise UsageError(f"{what} exclude each other: choose one")
    clients = 1 if connections is None else connections
    for name, values in (("rates", rates or ()), ("connections", [clients]), ("seconds", [seconds])):
        if not all(0 < value < float("inf") for value in values):
            raise UsageError(f"{name} are {values}, expected numbers above 0")
    url = url.rstrip("/")
    wanted: Bodies | Calls
    if by_grpc and model is not None:
        wanted = calls_of(url, model, token, keep_ratio)
    else:
        asked(url, "/v2", token)
        if model is None:
            wanted = pictures_of(url, None if images is None else Path(images), labels, token, keep_ratio)
        else:
            wanted = tensors_of(url, model, token, keep_ratio)
    wanted.asking()()  # the setup at the first request is not measured
    loads = []
    for rate in (None,) if connections is not None else rates or RATES:
        began = time.perf_counter()
        if rate is None:
            assert connections is not None
            outcomes = closed_loop(wanted.asking, connections, seconds)
            took = time.perf_counter() - began
        else:
            outcomes = open_loop(wanted.asking, poisson(rate, seconds, seed), MOST)
            took = max(seconds, time.perf_counter() - began)
        sending = None if rate is None else seconds
        loads.append(Load(rate, connections, took, target, tuple(outcomes), sending))
        _log.info("%s: %d of %d answered", loads[-1].name, len(loads[-1].answered), len(outcomes))
    if isinstance(wanted, Bodies) and not any(load.accuracy for load in loads) and wanted.unmatched():
        (name, number), label = min(wanted.seen), str(wanted.classes[0])
        _log.warning(
            f"no label matches an answered class: labels are such as '{brief(label, 60)}', classes such as "
            f"'{brief(name, 60)}' ({number}); name the folders as the model's classes, by name, number or WordNet id"
        )
    return LoadTest(url, wanted.what, tuple(loads))
