"""The requests of a load test: images for evodeploy's endpoint, or tensors for any Open Inference Protocol server."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import random
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evodeploy.datasets.classes import stated_number
from evodeploy.datasets.examples import Example, Label
from evodeploy.datasets.sources import dataset_of
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.load_testing.arrivals import Asking
from evodeploy.load_testing.pictures import SIZE, noise, read_pictures
from evodeploy.load_testing.records import Reply
from evodeploy.text import brief, reason

SECONDS = 60.0  # limit for an answer
PICTURES, LABELLED = 64, 4096  # images that are sent in turn, at most
LARGEST = 64 << 20  # bytes of a tensor
PORTS = {"http": 80, "https": 443}  # defaults for addresses without one; gRPC has no usual one
_TYPES = {"FP32": "<f4", "FP16": "<f2", "FP64": "<f8", "UINT8": "u1", "INT8": "i1", "INT32": "<i4", "INT64": "<i8"}


@dataclass(frozen=True)
class Bodies:
    """A server, and the bodies that are posted to `path` in turn; `classes` holds the class of each, if known.

    The names and numbers of the classes in the answers are collected in `seen`, by all threads.
    """

    url: str
    path: str
    bodies: tuple[bytes, ...]
    headers: dict[str, str] = field(repr=False)
    what: str
    classes: tuple[Label, ...] = ()
    seen: set[tuple[str, int]] = field(default_factory=set, repr=False)
    turns: Iterator[int] = field(default_factory=itertools.count, repr=False)  # shared by all threads

    def asking(self) -> Asking:
        """Return a function that sends a request over its own connection. One thread may use it."""
        connection = connected(self.url)

        def ask() -> Reply:
            turn = next(self.turns) % len(self.bodies)
            for fresh in (connection.sock is None, True):
                try:
                    connection.request("POST", self.path, self.bodies[turn], self.headers)
                    response = connection.getresponse()
                    body = response.read()
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    if fresh or not isinstance(error, (ConnectionError, http.client.RemoteDisconnected)):
                        return Reply(type(error).__name__)
                else:
                    right = self._is_right(turn, body) if self.classes and response.status == 200 else None
                    return Reply(str(response.status), ratio_of(response.headers.get("evodeploy-keep-ratio")), right)
            raise AssertionError

        return ask

    def _is_right(self, turn: int, body: bytes) -> bool:
        """Return whether the first class of an answer is that of the image."""
        best = _best(body)
        if best is None:
            return False
        self.seen.add(best)
        return _are_one(self.classes[turn], *best)

    def unmatched(self) -> bool:
        """Return whether there were classes in the answers, but none of them was the class of any image."""
        return bool(self.seen) and not any(_are_one(label, *best) for label in {*self.classes} for best in self.seen)


def connected(url: str) -> http.client.HTTPConnection:
    """Return a connection to the server, opened at its first request. Raises UsageError if `url` is not an address."""
    scheme, host, port = address_of(url, tuple(PORTS), "http://127.0.0.1:8000")
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    return kind(host, port, timeout=SECONDS)


def address_of(url: str, schemes: Sequence[str], such: str) -> tuple[str, str, int]:
    """Return scheme, host and port of `url`. Raises UsageError, with the example `such`, if it is not an address."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError as error:
        raise UsageError(f"'{brief(url, 60)}' is not the address of a server ({error})") from error
    if parts.scheme not in schemes or not host or port is None or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"'{brief(url, 60)}' is not the address of a server, expected one such as {such}")
    return parts.scheme, host, port


def pictures_of(url: str, images: Path | None, labels: bool, token: str | None, keep_ratio: float | None) -> Bodies:
    """Prepare the images of the data source `images`, or one of noise, for `/v1/predict`.

    With `labels`, answers are compared with the labels of the images. Raises UsageError for an image without a label.
    """
    what, bodies, classes = f"a JPEG of {SIZE[0]} by {SIZE[1]} pixels", [noise()], []
    if images is not None:
        examples = list(dataset_of(images).examples)
        if labels:
            random.Random(0).shuffle(examples)  # otherwise the classes come one after another
        pairs = read_pictures(examples[: LABELLED if labels else PICTURES])
        bodies = [contents for _, contents in pairs]
        classes = [_label_of(each) for each, _ in pairs if labels]
        what = f"{len(bodies)} images of {images}"
    query = "" if keep_ratio is None else f"?keep_ratio={keep_ratio}"
    return Bodies(url, f"/v1/predict{query}", tuple(bodies), _headers(token), what, tuple(classes))


def _label_of(example: Example) -> Label:
    if example.label is None:
        raise UsageError(
            f"{brief(example.name)} has no label: put images into folders that are named as the model's classes"
        )
    return example.label


def _best(body: bytes) -> tuple[str, int] | None:
    """Return the name and the number of the first class in an answer."""
    try:
        label = json.loads(body)["labels"][0]
        return str(label["name"]), int(label["index"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def _are_one(label: Label, name: str, number: int) -> bool:
    """Return whether `label` is the class: its name, its number, also as text, or its WordNet id.

    If the name itself states another number, a label that is text can only match the name.
    """
    return label in (name, number) or (stated_number(name) in (None, number) and stated_number(label) == number)


def tensors_of(url: str, model: str, token: str | None, keep_ratio: float | None) -> Bodies:
    """Prepare one random tensor of the shape that the server reports for `model`, in the protocol's binary form.

    Raises UsageError if the input of the model is unsuitable, RuntimeFailedError if the server does not answer.
    """
    place = f"/v2/models/{urllib.parse.quote(model, safe='')}"
    name, datatype, shape, data = tensor_for(asked(url, place, token), model)
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    parameters: dict[str, Any] = {"binary_data_output": True}
    if keep_ratio is not None:
        parameters["keep_ratio"] = keep_ratio
    head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    headers = _headers(token) | {"Inference-Header-Content-Length": str(len(head))}
    return Bodies(url, f"{place}/infer", (head + data,), headers, f"one {datatype} tensor of {shape} for '{model}'")


def tensor_for(document: dict[str, Any], model: str) -> tuple[str, str, list[int], bytes]:
    """Return name, datatype, shape and random data of the one input that a `document` of the protocol describes.

    Raises UsageError if it has no such input.
    """
    try:
        (given,) = document["inputs"]
        name, datatype = str(given["name"]), str(given["datatype"])
        shape = [1 if int(size) < 1 else int(size) for size in given["shape"]]
        dtype = np.dtype(_TYPES[datatype])
        if math.prod(shape) * dtype.itemsize > LARGEST:
            raise ValueError(f"the shape {shape} is large")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"the model '{brief(model, 60)}' does not have one input that can be sent ({reason(error)})"
        ) from error
    drawn = np.random.default_rng(1)
    array = drawn.integers(0, 100, shape) if dtype.kind in "iu" else drawn.standard_normal(shape)
    return name, datatype, shape, array.astype(dtype).tobytes()


def asked(url: str, path: str, token: str | None) -> dict[str, Any]:
    """Return the JSON object at a path. Raises RuntimeFailedError if the server does not send one."""
    connection = connected(url)
    try:
        connection.request("GET", path, headers=_headers(token))
        response = connection.getresponse()
        body = response.read(1 << 20)
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeFailedError(f"{url} does not answer ({reason(error)})") from error
    finally:
        connection.close()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if response.status != 200 or not isinstance(document, dict):
        message = document.get("error", "") if isinstance(document, dict) else ""
        raise RuntimeFailedError(f"{url}{path} answers {response.status} {brief(str(message), 200)}".rstrip())
    return document


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def ratio_of(text: str | None) -> float | None:
    """Return the mean of the ratios in a header, or None if they cannot be read."""
    try:
        ratios: Sequence[float] = [float(part) for part in (text or "").split(",")]
    except ValueError:
        return None
    return sum(ratios) / len(ratios) if all(0 < each <= 1 for each in ratios) else None  # NaN could not be saved
