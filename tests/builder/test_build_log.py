from __future__ import annotations

import io
import logging
from pathlib import Path

from evodeploy.builder.build_log import BuildLog


def test_warnings_are_logged_once_errors_kept_and_noise_dropped(logged):
    log = BuildLog()
    log("WARNING", "onnx2trt: weights are INT64, cast down to INT32")
    log("WARNING", "half of this layer runs on the host")
    log("WARNING", "half of this layer runs on the host")
    log("INFO", "Total Weights Memory: 1234 bytes")
    log("INFO", "Total Activation Memory: 77 bytes")
    assert list(logged) == ["TensorRT warning: half of this layer runs on the host"]
    assert log.memory == {"Weights": 1234, "Activation": 77}
    assert log.reason == "TensorRT gave no reason"
    log("ERROR", "the cause\nwith more")
    log("INTERNAL_ERROR", "its consequence")
    assert log.reason == "the cause"


def test_all_is_logged_for_debugging_and_written_to_the_file(logged, caplog):
    caplog.set_level(logging.DEBUG, "evodeploy")
    file = io.StringIO()
    log = BuildLog(file)
    log("VERBOSE", "a")
    log("WARNING", "INT64 again")
    assert list(logged) == ["TensorRT verbose: a", "TensorRT warning: INT64 again"]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert file.getvalue() == "[VERBOSE] a\n[WARNING] INT64 again\n"


def test_a_file_that_takes_no_more_stops_no_build():
    log = BuildLog(Path("/dev/full").open("w", buffering=1))  # noqa: SIM115
    log("ERROR", "the cause")
    log("INFO", "more")
    assert log.loss is not None
    assert log.loss.strerror == "No space left on device"
    assert log.reason == "the cause"
