from __future__ import annotations

import io
from pathlib import Path

from evodeploy.builder.log import BuildLog


def test_warnings_are_told_once_errors_kept_and_noise_dropped():
    told: list[str] = []
    log = BuildLog(told.append)
    log("WARNING", "onnx2trt: weights are INT64, cast down to INT32")
    log("WARNING", "half of this layer runs on the host")
    log("WARNING", "half of this layer runs on the host")
    log("INFO", "Total Weights Memory: 1234 bytes")
    log("INFO", "Total Activation Memory: 77 bytes")
    assert told == ["TensorRT warning: half of this layer runs on the host"]
    assert log.memory == {"Weights": 1234, "Activation": 77}
    assert log.reason == "TensorRT gave no reason"
    log("ERROR", "the cause\nwith more")
    log("INTERNAL_ERROR", "its consequence")
    assert log.reason == "the cause"


def test_verbose_tells_all_and_the_file_holds_all():
    told: list[str] = []
    file = io.StringIO()
    log = BuildLog(told.append, verbose=True, file=file)
    log("VERBOSE", "a")
    log("WARNING", "INT64 again")
    assert told == ["TensorRT verbose: a", "TensorRT warning: INT64 again"]
    assert file.getvalue() == "[VERBOSE] a\n[WARNING] INT64 again\n"


def test_a_file_that_takes_no_more_stops_no_build():
    log = BuildLog(lambda text: None, file=Path("/dev/full").open("w", buffering=1))  # noqa: SIM115
    log("ERROR", "the cause")
    log("INFO", "more")
    assert log.loss is not None
    assert log.loss.strerror == "No space left on device"
    assert log.reason == "the cause"
