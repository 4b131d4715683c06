"""What is tried on the shim, each case in a process of its own: `python cases.py CASE PLAN ONNX`.

A case fails by an assertion; what the shim reports when the process ends is judged by the test that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import enum
import gc
import itertools
import json
import logging
import shutil
import sys
import threading
from pathlib import Path

import fake_tensorrt
import numpy as np
import onnx
import onnxruntime
import sharing
from cuda_shim.plans import write_exact, write_plan
from graphs import restated
from onnx import TensorProto
from PIL import Image

from evodeploy.builder import refit as refitting
from evodeploy.engines.base import run_all
from evodeploy.engines.opener import open_engine
from evodeploy.engines.tensorrt import lane
from evodeploy.engines.tensorrt.sidecar import read_sidecar
from evodeploy.errors import (
    BadFileError,
    InputError,
    OutOfMemoryError,
    RuntimeFailedError,
    UnavailableError,
    UsageError,
)
from evodeploy.files import sha256
from evodeploy.graph.fixed_keep import with_keep
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.machine.driver import architecture
from evodeploy.onnx_files import info_of, read_onnx, set_info, write_onnx
from evodeploy.specs import EngineOptions

shim = fake_tensorrt.cuda
shim.shim_bytes.restype = ctypes.c_size_t
DEVICE_MEMORY, HOST_MEMORY, STREAM, EVENT, GRAPH, GRAPH_EXEC = range(6)
LAUNCH_FAILED = 719
PLAN, ONNX = (Path(argument) for argument in sys.argv[2:4])
IMAGES = np.random.default_rng(5).standard_normal((16, 3, 64, 64), dtype=np.float32)

reference = onnxruntime.InferenceSession(str(ONNX), providers=["CPUExecutionProvider"])


def expected(images, keep=None):
    names = [spec.name for spec in reference.get_outputs()]
    feeds = {"images": images} if keep is None else {"images": images, "keep": np.array(keep, np.int64)}
    return dict(zip(names, reference.run(None, feeds), strict=True))


def same(got, images, keep=None):
    """Equal to the last bit: it is the same computation, so any difference is memory that was mixed up."""
    wanted = expected(images, keep)
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def on_the_device():
    return [shim.shim_live(kind) for kind in range(6)]


kept_failures = []  # until the case ends, as an interactive session does: they hold nothing that lies on the GPU


@contextlib.contextmanager
def refused(error, *words):
    seen = None
    try:
        yield
    except error as caught:
        seen = str(caught)
        kept_failures.append(caught)
    assert seen is not None, f"no {error.__name__} was raised"
    assert "\n" not in seen, seen
    for word in words:
        assert word in seen, seen


def batches_in_turn():
    with open_engine(PLAN, "tensorrt") as engine:
        assert (engine.name, engine.device, str(engine.batch)) == ("tensorrt", "cuda:0", "1 to 16")
        held = on_the_device()
        kept = engine.run(IMAGES[:1])
        for batch in (16, 3, 8, 4, 1):
            same(engine.run(IMAGES[:batch]), IMAGES[:batch])
        same(kept, IMAGES[:1])
        same(engine.run(IMAGES[::5]), IMAGES[::5])
        with refused(InputError, "a batch of 17 images is outside this engine's range of 1 to 16"):
            engine.run(np.concatenate([IMAGES, IMAGES[:1]]))
        assert on_the_device() == held, "memory was taken while running"
    assert on_the_device() == [0] * 6
    engine.close()
    with refused(UsageError, "the tensorrt engine is closed"):
        engine.run(IMAGES)
    with refused(UsageError, "closed"):
        next(engine.run_many([IMAGES]))
    with refused(UsageError, "closed"):
        engine.resident(IMAGES)
    with refused(UsageError, "there is no cuda:99 here: the driver sees"):
        open_engine(PLAN, "tensorrt", EngineOptions(device="cuda:99"))
    with refused(UsageError, "runs on an NVIDIA GPU only, got device cpu"):
        open_engine(PLAN, "tensorrt", EngineOptions(device="cpu"))
    with refused(UsageError, "compiles nothing"):
        open_engine(PLAN, "tensorrt", EngineOptions(cache=PLAN.parent))


def staged_in_chunks():
    """A large batch goes to the GPU in parts: while one is on its way, the next is copied to page-locked memory."""
    lane.CHUNK = 2 * IMAGES[0].nbytes + 1
    with open_engine(PLAN, "tensorrt") as engine:
        for batch, copies in ((1, 1), (2, 1), (3, 2), (16, 8)):
            before = shim.shim_copies()
            same(engine.run(IMAGES[:batch]), IMAGES[:batch])
            assert shim.shim_copies() - before == copies
        same(engine.run(IMAGES[::3]), IMAGES[::3])  # not contiguous
        for got in engine.run_many([IMAGES[:5], IMAGES[5:]]):
            same(got, IMAGES[:5] if len(got["logits"]) == 5 else IMAGES[5:])
        lane.CHUNK = 1  # less than an image
        same(engine.run(IMAGES[:4]), IMAGES[:4])


def two_gpus():
    with (
        open_engine(PLAN, "tensorrt") as engine,
        open_engine(PLAN, "tensorrt", EngineOptions(device="cuda:1")) as other,
    ):
        assert other.device == "cuda:1"
        same(other.run(IMAGES[:2]), IMAGES[:2])
        same(engine.run(IMAGES[1:5]), IMAGES[1:5])
    assert on_the_device() == [0] * 6


def gaps_between_profiles():
    with open_engine(PLAN, "tensorrt") as engine:
        for batch in (1, 8, 1, 16, 9):
            same(engine.run(IMAGES[:batch]), IMAGES[:batch])
        with refused(InputError, "a batch of 4 images is outside this engine's range of 1, 8 to 16, 8"):
            engine.run(IMAGES[:4])
        same(run_all(engine, IMAGES[:12], 4), IMAGES[:12])


def streamed():
    """Batches one ahead: the next is under way, unfinished, while the caller has the outputs of the one before."""
    sizes = (4, 16, 1, 7)
    batches = [IMAGES[:size] for size in sizes]
    with open_engine(PLAN, "tensorrt") as engine:
        for got, batch in zip(engine.run_many(iter(batches)), batches, strict=True):
            same(got, batch)
        assert list(engine.run_many([])) == []
        drawn = []
        stream = engine.run_many(drawn.append(batch) or batch for batch in batches)
        same(next(stream), batches[0])
        assert len(drawn) == 2
        same(engine.run(IMAGES[3:5]), IMAGES[3:5])
        for got, batch in zip(engine.run_many(batches), batches, strict=True):  # a second one does not look ahead
            same(got, batch)
        stream.close()
        for in_flight, taken in ((0, 1), (1, 1), (3, 3), (9, 3)):
            drawn.clear()
            stream = engine.run_many((drawn.append(batch) or batch for batch in batches), in_flight)
            same(next(stream), batches[0])
            assert len(drawn) == taken
            same(engine.run(IMAGES[3:5]), IMAGES[3:5])
            for got, batch in zip(stream, batches[1:], strict=True):
                same(got, batch)
        with refused(InputError, "float64"):
            list(engine.run_many([IMAGES[:2], IMAGES[:2].astype(np.float64)]))
        many = np.concatenate([IMAGES] * 3)[:41]
        same(run_all(engine, many, chunk=16), many)
        left = engine.run_many(batches)
        next(left)
    with refused(UsageError, "closed"):
        next(left)


def several_threads():
    """More threads than lanes, on one engine, while one of them streams."""
    batches = [IMAGES[start : start + 3] for start in range(12)]

    def work(number):
        if number == 6:
            for got, batch in zip(engine.run_many(batches), batches, strict=True):
                same(got, batch)
            return
        for turn in range(4):
            batch = IMAGES[(number + turn) % 8 :][: 1 + (number * 3 + turn) % 8]
            same(engine.run(batch), batch)

    with open_engine(PLAN, "tensorrt") as engine:
        sharing.in_threads(work, 7)
        assert shim.shim_live(STREAM) <= 4
        in_a_thread(engine.close)  # not the thread that opened it
    assert on_the_device() == [0] * 6


def shared():
    """The contract of every engine that threads share, with more threads than lanes at its end."""
    with open_engine(PLAN, "tensorrt") as engine:
        sharing.check_runs(engine)
        sharing.check_streams(engine)
        sharing.check_residents(engine)
        sharing.check_close(engine)
    assert on_the_device() == [0] * 6


def next_to_torch():
    """PyTorch's context, current in this thread, is so before, between and after our calls."""
    import torch

    theirs, current = ctypes.c_void_p(), ctypes.c_void_p()
    assert shim.cuInit(0) == shim.cuDevicePrimaryCtxRetain(ctypes.byref(theirs), 1) == 0
    assert shim.cuCtxPushCurrent_v2(theirs) == 0
    with open_engine(PLAN, "tensorrt") as engine:
        for batch in (2, 5):
            layer = torch.nn.functional.normalize(torch.from_numpy(IMAGES[:batch]))
            same(engine.run(layer.numpy()), layer.numpy())
            shim.cuCtxGetCurrent(ctypes.byref(current))
            assert current.value == theirs.value
    shim.cuCtxPopCurrent_v2(ctypes.byref(current))
    assert current.value == theirs.value
    shim.cuDevicePrimaryCtxRelease_v2(1)


def resident():
    """The GPU's time alone: a kernel takes it a millisecond, and the host five for starting one."""
    shim.shim_slow_launches(5.0)
    with open_engine(PLAN, "tensorrt") as engine:
        batch = engine.resident(IMAGES[:1])
        assert [round(batch.time(), 6) for _ in range(2)] == [0.001] * 2
        assert (batch.hidden, batch.launches) == (True, 10)
        same(batch.outputs(), IMAGES[:1])
        same(engine.run(IMAGES[8:]), IMAGES[8:])
        same(batch.outputs(), IMAGES[:1])
        batch.close()
        batch.close()
        with refused(UsageError, "closed"):
            batch.time()
        held = on_the_device()
        elsewhere = engine.resident(IMAGES[:2], in_flight=3)
        assert round(elsewhere.time(), 6) == round(0.001 / 3, 6)  # of each batch: three streams at a time
        same(elsewhere.outputs(), IMAGES[:2])
        streams = shim.shim_live(STREAM)
        more = engine.resident(IMAGES[:2], in_flight=9)
        assert shim.shim_live(STREAM) == streams + engine.deepest
        more.close()
        in_a_thread(elsewhere.close)
        assert on_the_device() == held
        forgotten = engine.resident(IMAGES[:2])
    with refused(UsageError, "closed"):
        forgotten.outputs()


def graphs():
    """One recording for each batch size and lane; each keeps working when others were recorded after it."""
    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        for batch in (4, 16, 4, 1, 16, 4):
            same(engine.run(IMAGES[-batch:]), IMAGES[-batch:])
        assert shim.shim_live(GRAPH_EXEC) == 3
        assert shim.shim_live(GRAPH) == 0
        batch = engine.resident(IMAGES[:4])
        assert batch.time() > 0
        same(batch.outputs(), IMAGES[:4])
        fake_tensorrt.Engine.fail_enqueue = 1
        with refused(RuntimeFailedError, "could not start a batch of 5", "no kernel for you"):
            engine.run(IMAGES[:5])
        same(engine.run(IMAGES[:5]), IMAGES[:5])


def clock_of_graphs():
    """Of a graph too the GPU's time alone: a kernel takes it a millisecond, and the host five for starting one."""
    shim.shim_slow_launches(5.0)
    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        assert round(engine.resident(IMAGES[:4]).time(), 6) == 0.001


def in_a_thread(work):
    sharing.in_threads(lambda _: work(), 1)


def logged(level=logging.WARNING):
    """A list that receives what evodeploy logs."""
    handler = logging.Handler()
    lines = []
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("evodeploy").addHandler(handler)
    logging.getLogger("evodeploy").setLevel(level)
    return lines


def memory_of_graphs():
    """Four lanes record 36 batch sizes each: one memory to compute in for a lane, and no more than 32 graphs."""
    images = np.random.default_rng(6).standard_normal((36, 3, 64, 64), dtype=np.float32)
    lanes, kept = 4, 32
    together = threading.Barrier(lanes, timeout=60)

    def work(number):
        for batch in range(1, 37):
            got = engine.run(images[:batch])
            if batch in (1, 36):
                same(got, images[:batch])

    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        fake_tensorrt.Engine.during_launch = together.wait  # so that four lanes are in use at each batch size
        sharing.in_threads(work, lanes)
        fake_tensorrt.Engine.during_launch = None
        assert shim.shim_live(GRAPH_EXEC) == lanes * kept
        tensors = images.nbytes + sum(value.nbytes for value in expected(images).values())
        fake = fake_tensorrt.Engine
        assert shim.shim_bytes() == lanes * (tensors + fake.device_memory_size_v2 + kept * fake.context_bytes)
        same(engine.run(images[:1]), images[:1])  # was forgotten, is recorded again
        assert shim.shim_live(GRAPH_EXEC) == lanes * kept


def graphs_refused():
    """What cannot be recorded is launched without graphs; tried, and logged, once for each batch size in all lanes."""
    seen = logged()
    fake_tensorrt.Engine.capturable = False
    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        for batch in (4, 2, 4, 2, 4):
            same(engine.run(IMAGES[:batch]), IMAGES[:batch])
        batch = engine.resident(IMAGES[:4])  # in a lane of its own
        same(batch.outputs(), IMAGES[:4])
        assert fake_tensorrt.Engine.captures == 4  # each was tried twice
        assert "operation not permitted" in engine.without_graph(4)
        assert engine.without_graph(8) == ""
        fake_tensorrt.Engine.capturable = True
        same(engine.run(IMAGES[:4]), IMAGES[:4])
        same(engine.run(IMAGES[:8]), IMAGES[:8])
        assert (fake_tensorrt.Engine.captures, shim.shim_live(GRAPH_EXEC)) == (5, 1)
        shim.shim_set_graphs(1)  # in all: there is no memory for more
        same(engine.run(IMAGES[:5]), IMAGES[:5])
        assert (shim.shim_live(GRAPH), shim.shim_live(GRAPH_EXEC)) == (0, 1)
    reason = "tensorrt 10.13.0.35 could not start a batch of %d: Error Code 1: Cuda Runtime (operation not permitted"
    for line, (size, why) in zip(seen, [(4, reason % 4), (2, reason % 2), (5, "OUT_OF_MEMORY")], strict=True):
        assert line.startswith(f"batches of {size} run without a CUDA graph") and why in line, line


def recorded_next_to_others():
    """While one thread records, others use the default stream, allocate, and fail."""
    import pycuda.driver as driver

    outcomes = []

    def others():
        with engine._gpu.releasing():
            memory = driver.mem_alloc(64)
            driver.memcpy_htod(memory, np.zeros(16, np.float32))  # as PyTorch does in its default stream
            memory.free()
        fake_tensorrt.Engine.fail_enqueue = 1
        with refused(RuntimeFailedError, "no kernel for you"):
            batch.time()
        outcomes.append(True)

    with (
        open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine,
        open_engine(PLAN, "tensorrt") as plain,
    ):
        batch = plain.resident(IMAGES[:2])
        fake_tensorrt.Engine.during_capture = lambda: in_a_thread(others)
        same(engine.run(IMAGES[:4]), IMAGES[:4])
        fake_tensorrt.Engine.during_capture = None
        assert outcomes == [True]
        assert shim.shim_live(GRAPH_EXEC) == 1
        assert batch.time() > 0, "the GPU counts as lost, and is not"
        same(engine.run(IMAGES[8:12]), IMAGES[8:12])


def recorded_next_to_making():
    """Making an engine may wait for the whole GPU, which would end a recording: one waits for the other."""
    made = threading.Event()

    def make():
        with open_engine(PLAN, "tensorrt") as other:
            same(other.run(IMAGES[:3]), IMAGES[:3])
        made.set()

    maker = threading.Thread(target=make)

    def during():
        maker.start()
        assert not made.wait(0.5), "an engine was made while another recorded"

    fake_tensorrt.Engine.waits_for_gpu = True
    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        fake_tensorrt.Engine.during_capture = during
        same(engine.run(IMAGES[:4]), IMAGES[:4])
        maker.join()
        assert made.is_set()
        assert shim.shim_live(GRAPH_EXEC) == 1


def disturbed_recording():
    """A thread that waits for the whole GPU ends a recording, which is tried once more; then computed without."""
    import pycuda.driver as driver

    seen = logged()

    def wait():
        with engine._gpu.releasing(), contextlib.suppress(driver.Error):
            driver.Context.synchronize()  # fails too, in that thread

    def wait_once():
        fake_tensorrt.Engine.during_capture = None
        in_a_thread(wait)

    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        fake_tensorrt.Engine.during_capture = wait_once
        same(engine.run(IMAGES[:2]), IMAGES[:2])
        assert (shim.shim_live(GRAPH_EXEC), seen) == (1, [])
        fake_tensorrt.Engine.during_capture = lambda: in_a_thread(wait)
        for _ in range(2):
            same(engine.run(IMAGES[:4]), IMAGES[:4])
        assert len(seen) == 1 and ("previous error during capture" in seen[0] or "returned [901]" in seen[0]), seen


DEFAULT = (32, 16)  # what the elastic plan keeps where a run does not say


def elastic():
    """Each run keeps as many tokens as it says; what is out of bounds is refused before anything is enqueued."""
    with open_engine(PLAN, "tensorrt") as engine:
        assert [str(spec) for spec in engine.inputs] == ["images float32 (batch, 3, 64, 64)", "keep int64 (2)"]
        held = on_the_device()
        for batch, keep in ((3, (6, 64)), (3, (64, 6)), (16, (64, 64)), (1, (6, 6)), (1, (20, 7))):
            same(engine.run(IMAGES[:batch], keep), IMAGES[:batch], keep)
            same(engine.run(IMAGES[-batch:]), IMAGES[-batch:], DEFAULT)
        assert on_the_device() == held, "memory was taken while running"
        enqueued = fake_tensorrt.Engine.enqueued
        for keep in ((5, 10), (10, 65), (-1, 6), (2**40, 6)):
            with refused(InputError, "of its 64 tokens", "6 to 64"):
                engine.run(IMAGES[:2], keep)
        for keep in ((), (10,), (10, 10, 10)):
            with refused(InputError, f"keep has {len(keep)} numbers of tokens, expected 2"):
                engine.resident(IMAGES[:2], keep=keep)
        with refused(InputError, "6 to 64"):
            list(engine.run_many([IMAGES[:2]], keep=(0, 0)))
        assert fake_tensorrt.Engine.enqueued == enqueued
        ours = [9, 8]
        got = engine.run(IMAGES[:2], ours)
        ours[:] = 0, 0  # the caller's again
        same(got, IMAGES[:2], (9, 8))
        stream = engine.run_many([IMAGES[:4], IMAGES[4:5]], keep=(7, 50))
        same(next(stream), IMAGES[:4], (7, 50))
        same(engine.run(IMAGES[:4], (8, 8)), IMAGES[:4], (8, 8))
        same(next(stream), IMAGES[4:5], (7, 50))
        batch = engine.resident(IMAGES[:4], in_flight=2, keep=(33, 6))
        same(engine.run(IMAGES[:4], (8, 8)), IMAGES[:4], (8, 8))
        assert batch.time() > 0
        same(batch.outputs(), IMAGES[:4], (33, 6))
        fake_tensorrt.Engine.fail_enqueue = 1
        with refused(RuntimeFailedError, "could not start a batch of 2"):
            engine.run(IMAGES[:2], (8, 8))
        same(engine.run(IMAGES[:2], (8, 8)), IMAGES[:2], (8, 8))
    assert on_the_device() == [0] * 6


def elastic_over_static():
    """The step `elastic` of the acceptance: equal outputs and times at each ratio, and a difference fails."""
    from gpu import elastic_step

    model = read_onnx(ONNX)
    info = info_of(model)
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(open_engine(PLAN, "tensorrt"))]
        for ratio in elastic_step.BUILT:
            keep = info.keep_of(ratio)
            static = with_keep(model, keep)
            static.graph.output[1].type.tensor_type.shape.dim[1].dim_value = keep[0]
            set_info(static, dataclasses.replace(info, elastic=(), keep_ratios=(ratio, ratio)))
            path = PLAN.with_name(f"{ratio}.onnx")
            write_onnx(static, path)
            plan = write_plan(path.with_suffix(".engine"), path)
            engines.append(stack.enter_context(open_engine(plan, "tensorrt")))
        elastic, *statics = engines
        found = elastic_step.compared(elastic, dict(zip(elastic_step.BUILT, statics, strict=True)), IMAGES[:4])
        assert list(found) == ["0.3", "1"] and [row["keep"] for row in found.values()] == [(19, 19), (64, 64)]
        for row in found.values():
            assert row["largest_difference"] == 0 and row["equal_images"] == 1
            assert row["static_ms"] > 0 and row["elastic_ms"] > 0
        try:
            elastic_step.compared(elastic, {0.5: statics[0]}, IMAGES[:4])
        except AssertionError as error:
            assert "at (32, 32) tokens 100% of the images differ" in str(error)
        else:
            raise AssertionError("outputs of another ratio passed")
    assert on_the_device() == [0] * 6


def elastic_built():
    """What the builder makes of an elastic network has the bounds in every profile; refitted it is elastic too."""
    import fake_builder

    from evodeploy.builder.pipeline import build

    fake_builder.add_builder(sys.modules["tensorrt"])
    fake_builder.Builder.folder = PLAN.parent
    several, made, full = (PLAN.with_name(f"{name}.engine") for name in ("several", "made", "full"))
    build(ONNX, several, profiles=((1, 1, 1), (2, 4, 8)))
    write_plan(made, ONNX, refittable=True)
    refitting.refit(made, ONNX, full)
    for path in (several, full):
        with open_engine(path, "tensorrt") as engine:
            for batch, keep in itertools.product((1, 8), ((6, 64), (64, 6))):
                same(engine.run(IMAGES[:batch], keep), IMAGES[:batch], keep)
    static = write_exact(PLAN.with_name("static.onnx"))
    with refused(UsageError, "static.onnx is another network than", "keep_ratios None, expected (0.5, 0.25)"):
        refitting.refit(made, static, PLAN.with_name("again.engine"))


def elastic_in_threads():
    """Threads that share an engine keep different numbers of tokens at a time, with CUDA graphs and without."""
    keeps = [(6, 64), (64, 6), (32, 16), (10, 10), (50, 7), (6, 6)]
    for options in (EngineOptions(), EngineOptions(cuda_graph=True)):
        with open_engine(PLAN, "tensorrt", options) as engine:

            def work(number, engine=engine):
                for turn in range(6):
                    batch, keep = IMAGES[turn % 3 :][: 1 + (number + turn) % 4], keeps[(number + turn) % len(keeps)]
                    same(engine.run(batch, keep), batch, keep)

            sharing.in_threads(work, 6)  # more than there are lanes
        assert on_the_device() == [0] * 6


def elastic_graphs():
    """A graph for each batch size and `keep`, which never finds other tokens; no more than 32 over both."""
    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        for batch, keep in itertools.product((4, 1, 4), ((6, 64), (64, 6), (6, 64))):
            same(engine.run(IMAGES[-batch:], keep), IMAGES[-batch:], keep)
        assert (shim.shim_live(GRAPH_EXEC), fake_tensorrt.Engine.captures) == (4, 4)
        assert shim.shim_live(HOST_MEMORY) == 3 + 4, "a graph has no numbers of its own"
        batch = engine.resident(IMAGES[:4], keep=(64, 6))
        same(batch.outputs(), IMAGES[:4], (64, 6))
        batch.close()
        for first in range(6, 42):
            same(engine.run(IMAGES[:2], (first, 9)), IMAGES[:2], (first, 9))
        assert (shim.shim_live(GRAPH_EXEC), shim.shim_live(HOST_MEMORY)) == (32, 3 + 32)
        same(engine.run(IMAGES[-4:], (6, 64)), IMAGES[-4:], (6, 64))  # was forgotten, is recorded again
        seen = logged()
        fake_tensorrt.Engine.capturable = False
        for keep in ((60, 60), (60, 61), (60, 60)):
            same(engine.run(IMAGES[:2], keep), IMAGES[:2], keep)
        assert [line.split(" tokens")[0] for line in seen] == [
            "batches of 2 that keep 60, 60",
            "batches of 2 that keep 60, 61",
        ]
        assert engine.without_graph(2, (60, 61)) and not engine.without_graph(2)
    assert on_the_device() == [0] * 6


reported = 0  # characters of the shim's report that were read


def newly_reported():
    global reported
    shim.shim_misuse.restype = ctypes.c_char_p
    text = shim.shim_misuse().decode()[reported:]
    reported += len(text)
    return text


def shows(words, mistake):
    """The shim reports `mistake` in these words."""
    import pycuda.driver as driver

    with contextlib.suppress(driver.Error):
        mistake()
    found = newly_reported()
    assert words in found, (words, found)


def elastic_misuse():
    """What the fake finds wrong with a shape tensor, each of which the other cases rely on."""
    import pycuda.driver as driver

    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    engine = fake_tensorrt.Runtime(fake_tensorrt.Logger()).deserialize_cuda_engine(PLAN.read_bytes())
    engine.runtime.logger.log = lambda severity, message: None
    execution, stream = engine.create_execution_context(), driver.Stream(1)
    memory = {spec.name: driver.mem_alloc(1 << 20) for spec in (*reference.get_inputs(), *reference.get_outputs())}
    for name, buffer in memory.items():
        if name != "keep":
            execution.set_tensor_address(name, int(buffer))
    execution.set_input_shape("images", (2, 3, 64, 64))

    def launch():
        return execution.execute_async_v3(stream.handle)

    keep = driver.pagelocked_empty(2, np.int64)
    shows("has no address", lambda: launch() and sys.exit("it was launched"))
    shows("device memory is the address", lambda: execution.set_tensor_address("keep", int(memory["keep"])))
    execution.set_tensor_address("keep", keep.ctypes.data)
    keep[:] = 6, 65
    shows("'keep' [6, 65], outside the profile's [6, 6] to [64, 64]", lambda: launch() and sys.exit("it was launched"))
    keep[:] = 6, 6
    assert launch()
    stream.synchronize()
    assert newly_reported() == ""
    assert launch()
    keep[:] = 7, 6  # too early: it is not done
    shows("was changed or freed", stream.synchronize)
    assert launch()
    keep.base.free()
    shows("was changed or freed", stream.synchronize)
    execution = engine = None
    for buffer in memory.values():
        buffer.free()
    stream = None
    driver.Context.pop()


def rtx_cache_and_graphs():
    cache = PLAN.parent / "made" / "cache"
    options = EngineOptions(cuda_graph=True, cache=cache)
    for sizes in ((4, 2), (2,), (8,)):
        with open_engine(PLAN, "tensorrt", options) as engine:
            for batch in sizes:
                same(engine.run(IMAGES[:batch]), IMAGES[:batch])
        (kept,) = cache.iterdir()
        assert kept.name.endswith(f"-{architecture()}.rtx-cache")
    assert kept.read_text() == "[2, 4, 8]"  # of all three starts
    config = fake_tensorrt.Engine.last_config
    assert config.cuda_graph_strategy is fake_tensorrt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    kept.write_bytes(b"of another driver")
    with open_engine(PLAN, "tensorrt", options) as engine:
        same(engine.run(IMAGES[:1]), IMAGES[:1])
    assert kept.read_text() == "[1]"
    assert fake_tensorrt.Engine.compiled == [4, 2, 8, 1]
    with open_engine(PLAN, "tensorrt") as engine:  # without a folder too, its lanes share what was compiled
        same(engine.run(IMAGES[:6]), IMAGES[:6])
        same(engine.resident(IMAGES[:6]).outputs(), IMAGES[:6])
    assert fake_tensorrt.Engine.compiled == [4, 2, 8, 1, 6]
    assert fake_tensorrt.Engine.fallbacks == [], "computed with kernels that are not of the batch's size"


def no_room():
    per_image = IMAGES[0].nbytes
    shim.shim_set_memory(ctypes.c_size_t(2 * per_image))
    with refused(OutOfMemoryError, "cuda:0 has no room for 0.8 MB more: 0.1 of 0.1 MB are free", "--max-batch"):
        open_engine(PLAN, "tensorrt")
    assert on_the_device() == [0] * 6
    shim.shim_set_memory(ctypes.c_size_t(1 << 30))
    fake_tensorrt.Engine.device_memory_size_v2 = 10 << 20
    engine = open_engine(PLAN, "tensorrt")
    lane = shim.shim_bytes()
    shim.shim_set_memory(ctypes.c_size_t(lane + (4 << 20)))
    with refused(OutOfMemoryError, "no room for 10.5 MB more"):
        engine.resident(IMAGES)
    fake_tensorrt.Engine.fail_enqueue = 1
    with refused(RuntimeFailedError, "no kernel for you"):  # that reason, not the one before
        engine.run(IMAGES)
    same(engine.run(IMAGES), IMAGES)
    shim.shim_set_memory(ctypes.c_size_t(2 * lane - 1))
    with refused(OutOfMemoryError, "makes no execution context: Requested amount of GPU memory could not be allocated"):
        engine.resident(IMAGES)
    shim.shim_fail(b"cuMemHostAlloc", 1, 2)
    with refused(OutOfMemoryError, "page-locked"):
        engine.resident(IMAGES)
    same(engine.run(IMAGES), IMAGES)
    engine.close()


def no_gpu_to_be_had():
    """What the driver answers while an engine is opened is a sentence, and the next one opens."""
    for call, code, error, words in (
        (b"cuDevicePrimaryCtxRetain", 2, OutOfMemoryError, "cuda:0 does not start (cuDevicePrimaryCtxRetain failed"),
        (b"cuDevicePrimaryCtxRetain", 101, RuntimeFailedError, "cuda:0 does not start"),
        (b"cuStreamCreate", 2, OutOfMemoryError, "tensorrt runs out of memory while it opens on cuda:0"),
        (b"cuStreamCreate", 1, RuntimeFailedError, "tensorrt failed while it opens on cuda:0: cuStreamCreate failed"),
    ):
        shim.shim_fail(call, 1, code)
        with refused(error, words):
            open_engine(PLAN, "tensorrt")
    assert on_the_device() == [0] * 6
    with open_engine(PLAN, "tensorrt") as engine:
        same(engine.run(IMAGES), IMAGES)


def failing_enqueue():
    with open_engine(PLAN, "tensorrt") as engine:
        held = on_the_device()
        fake_tensorrt.Engine.fail_enqueue = 1
        with refused(
            RuntimeFailedError, "tensorrt 10.13.0.35 could not start a batch of 3: Error Code 1: Cuda Runtime"
        ):
            engine.run(IMAGES[:3])
        same(engine.run(IMAGES[:3]), IMAGES[:3])
        assert on_the_device() == held
        fake_tensorrt.Engine.fail_in_worker = True
        fake_tensorrt.Engine.fail_enqueue = 1
        with refused(
            RuntimeFailedError, "could not start a batch of 3: Error Code 1: Cuda Runtime (no kernel for you)"
        ):
            engine.run(IMAGES[:3])
        fake_tensorrt.Engine.fail_in_worker = False
        fake_tensorrt.Engine.refuses_addresses = True
        with refused(RuntimeFailedError, "takes no address for 'images': TensorRT gave no reason"):
            engine.run(IMAGES[:3])
        fake_tensorrt.Engine.refuses_addresses = False
        fake_tensorrt.Engine.fail_enqueue = 2
        stream = engine.run_many([IMAGES[:2]] * 3)
        with refused(RuntimeFailedError, "could not start a batch of 2"):
            next(stream)
        shim.shim_fail(b"cuMemcpyDtoHAsync_v2", 2, 1)
        with refused(RuntimeFailedError, "tensorrt failed at batch 2: cuMemcpyDtoHAsync failed: invalid argument"):
            engine.run(IMAGES[:2])
        same(engine.run(IMAGES), IMAGES)
        batch = engine.resident(IMAGES[:2])
        for work, call in ((batch.time, b"cuEventRecord"), (batch.run, b"cuStreamSynchronize"),
                           (batch.outputs, b"cuMemcpyDtoHAsync_v2")):  # fmt: skip
            shim.shim_fail(call, 1, 1)
            with refused(RuntimeFailedError, "tensorrt failed at batch 2: cu", " failed: invalid argument"):
                work()
        shim.shim_fail(b"cuEventRecord", 1, 2)
        with refused(OutOfMemoryError, "tensorrt runs out of memory at batch 2"):
            batch.time()
        assert batch.time() > 0
        same(batch.outputs(), IMAGES[:2])


def context_lost():
    engine = open_engine(PLAN, "tensorrt")
    batch = engine.resident(IMAGES[:2])
    shim.shim_fail(b"kernel", 1, LAUNCH_FAILED)
    with refused(
        RuntimeFailedError,
        "cuda:0 cannot be used by this process any more",
        "launch failure",
        "start the process again",
    ):
        engine.run(IMAGES[:3])
    for again in (lambda: engine.run(IMAGES[:3]), batch.time, lambda: open_engine(PLAN, "tensorrt")):
        with refused(RuntimeFailedError, "cuda:0 cannot be used after an earlier failure"):
            again()
    with open_engine(PLAN, "tensorrt", EngineOptions(device="cuda:1")) as other:
        same(other.run(IMAGES[:3]), IMAGES[:3])
    engine.close()


def left_open():
    """Never closed: one engine still in use when the process ends, with a batch under way; one that was dropped."""
    global survivor, stream
    survivor = open_engine(PLAN, "tensorrt")
    survivor.resident(IMAGES[:2])
    stream = survivor.run_many(itertools.repeat(IMAGES[:2]))
    same(next(stream), IMAGES[:2])
    dropped = open_engine(PLAN, "tensorrt")
    same(dropped.run(IMAGES), IMAGES)
    held = shim.shim_live(DEVICE_MEMORY)
    del dropped
    gc.collect()
    assert shim.shim_live(DEVICE_MEMORY) < held


def refit():
    """`PLAN` with the weights of `ONNX`, which are others: `expected` is computed from them."""
    full = PLAN.with_name("full.engine")
    with refused(UsageError, "small.engine holds no weights: put them in with `evodeploy refit"):
        open_engine(PLAN, "tensorrt")
    record = refitting.refit(PLAN, ONNX, full).record
    assert (record.stripped, record.refittable, record.source) == (False, True, ONNX.name)
    with open_engine(full, "tensorrt") as after:
        same(after.run(IMAGES[:2]), IMAGES[:2])
    sys.modules["tensorrt"].SerializationFlag = enum.Enum("Before10_14", {"EXCLUDE_WEIGHTS": 0})
    record = refitting.refit(PLAN, ONNX, PLAN.with_name("older.engine")).record
    assert (record.stripped, record.refittable) == (False, False)
    half = PLAN.with_name("half.onnx")
    write_onnx(reduced_from_onnx(read_onnx(ONNX), "fp16").model, half)
    with refused(UsageError, "half.onnx holds FP16 weights, expected FP32 ones for"):
        refitting.refit(PLAN, half, PLAN.with_name("again.engine"))
    fewer = restated(ONNX, PLAN.with_name("fewer.onnx"), keep_ratios=(0.25, 0.25))
    with refused(UsageError, "fewer.onnx is another network than", "(keep_ratios (0.25, 0.25), expected (0.5, 0.5))"):
        refitting.refit(PLAN, fewer, PLAN.with_name("again.engine"))
    refit_while_it_is_replaced(half)
    with refused(BadFileError, "other.onnx does not fit the engine: the weights 'w' have another shape"):
        fake_tensorrt.OnnxParserRefitter.fits = False
        refitting.refit(PLAN, ONNX, PLAN.with_name("again.engine"))
    assert not PLAN.with_name("again.engine").exists()
    assert on_the_device() == [0] * 6


def refit_while_it_is_replaced(other):
    """The plan gets the weights of the file as it was read first."""
    path, load = shutil.copy(ONNX, PLAN.with_name("replaced.onnx")), onnx.load

    def replaced(source):
        model = load(source)
        shutil.copy(other, path)
        return model

    onnx.load = replaced
    record = refitting.refit(PLAN, path, PLAN.with_name("replaced.engine")).record
    onnx.load = load
    assert record.source_sha256 == sha256(ONNX)
    with open_engine(PLAN.with_name("replaced.engine"), "tensorrt") as engine:
        same(engine.run(IMAGES[:2]), IMAGES[:2])


def refit_kept():
    """What the FP16 engine `PLAN` keeps in FP32 gets FP32 weights; the record has the range of what it computes now."""
    (kept,) = read_sidecar(PLAN).kept_fp32
    record = refitting.refit(PLAN, ONNX, PLAN.with_name("full.engine")).record
    got = read_onnx(Path(json.loads(PLAN.read_text())["onnx"] + ".refitted")).graph
    types = {tensor.name: tensor.data_type for tensor in got.initializer}
    products = [node for node in got.node if node.op_type == "MatMul" and node.input[1] in types]
    found = {node.name: types[node.input[1]] for node in products}
    assert found.pop(kept) == TensorProto.FLOAT
    assert {*found.values()} == {TensorProto.FLOAT16}
    assert record.kept_fp32 == {kept: "asked for"}
    assert "on 2 images" in record.largest_activation
    folder = PLAN.with_name("pictures")
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number,) * 3).save(folder / f"{number}.png")
    record = refitting.refit(PLAN, ONNX, PLAN.with_name("measured.engine"), images=folder).record
    assert "on 3 images" in record.largest_activation
    half = PLAN.with_name("half.onnx")
    write_onnx(reduced_from_onnx(read_onnx(ONNX), "fp16").model, half)
    with refused(UsageError, "half.onnx holds FP16 weights, expected FP32 ones for"):
        refitting.refit(PLAN, half, PLAN.with_name("again.engine"))


def profiled():
    """The layers of a plan with their times, next to runs of another engine; no graph is recorded."""
    from evodeploy import profile

    found = profile(PLAN, engine="tensorrt", batch=2, runs=3)
    with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=True)) as engine:
        same(engine.run(IMAGES[:3]), IMAGES[:3])
    nodes = [node.name for node in read_onnx(ONNX).graph.node]
    assert (found.engine, found.device, found.batch, found.runs) == ("tensorrt", "cuda:0", 2, 3)
    assert [name for node in found.nodes for name in sorted(node.made_of, key=nodes.index)] == nodes
    assert [round(node.seconds * 1e3, 6) for node in found.nodes] == [0.5 + 2 * i for i in range(len(found.nodes))]
    assert {node.calls for node in found.nodes} == {1}
    with refused(UsageError, "leave out cuda_graph"):
        profile(PLAN, engine="tensorrt", options=EngineOptions(cuda_graph=True))
    assert on_the_device() == [0] * 6


def bad_plan():
    with refused(RuntimeFailedError, "tensorrt 10.13.0.35 cannot load the plan: Serialization assertion failed."):
        open_engine(PLAN, "tensorrt")
    assert on_the_device() == [0] * 6


def another_gpu():
    with refused(
        UnavailableError,
        f"built for sm50 with tensorrt 10.13.0.35; here: {architecture()} with tensorrt 10.13.0.35: build it again "
        "with `evodeploy build-engine small.onnx`",
    ):
        open_engine(PLAN, "tensorrt")


def half_precision():
    """Tensors of the plan's own types: float16 in, float16 and int64 out."""
    images = IMAGES[:, :, :4, :4].astype(np.float16)
    with open_engine(PLAN, "tensorrt") as engine:
        assert [str(spec) for spec in (*engine.inputs, *engine.outputs)] == [
            "images float16 (batch, 3, 4, 4)", "scaled float16 (batch, 3, 4, 4)", "best int64 (batch, 4, 4)",
        ]  # fmt: skip
        for batch in (3, 8):
            same(engine.run(images[:batch]), images[:batch])
        with refused(InputError, "float32, expected float16"):
            engine.run(IMAGES[:, :, :4, :4])


@contextlib.contextmanager
def benched():
    """The candidates of a bench that is given no engine, but an ONNX file and its twin's, and so builds them."""
    import fake_builder

    from evodeploy.benchmark.plans import Builds
    from evodeploy.benchmark.row_specs import row_specs_of
    from evodeploy.benchmark.subject import subject_of

    fake_builder.add_builder(sys.modules["tensorrt"])
    fake_builder.Builder.folder = PLAN.parent
    path = restated(ONNX, PLAN.parent / "twin.onnx", keep_ratios=(1.0, 1.0))
    builds = Builds((4, 1), PLAN.parent / "engines")
    with row_specs_of(subject_of([ONNX, path]), ["onnxruntime", "tensorrt"], ["fp32"], 1, builds) as candidates:
        yield candidates


def bench_builds():
    """The engines of the model and of its twin are built, and the next time taken from the cache."""
    for first in ("building FP32", "using the FP32 engine of"):
        lines = logged(logging.INFO)
        with benched() as candidates:
            assert [line.startswith(first) for line in lines] == [True, True], lines
            ours = [one for one in candidates if one.engine == "tensorrt"]
            assert [(one.role, one.cuda_graph) for one in ours] == list(
                itertools.product(("evo", "dense"), (False, True))
            )
            for one in ours:
                with one.open() as engine:
                    assert str(engine.batch) == "1 to 4"
                    same(engine.run(IMAGES[:3]), IMAGES[:3])
    assert on_the_device() == [0] * 6


def bench_over_dense():
    from evodeploy.benchmark.measure.interleaved import Budget
    from evodeploy.benchmark.report.speedups import over_dense
    from evodeploy.benchmark.timed_rows import timed_rows

    budget = Budget(seconds=0, rounds=6, min_seconds=0, warmup_seconds=0)
    with benched() as candidates:
        rows = timed_rows(candidates, (1,), budget)
    ours = [row for row in rows if row.spec.engine == "tensorrt"]
    assert [(row.transfers, row.in_flight) for row in ours] == 4 * list(
        itertools.product(("included", "resident"), (1, 2, 3))
    )
    for row in ours:
        assert row.timing is not None, row.reason
        assert row.verdict.correct, row.verdict
        assert (over_dense(row, rows) is None) == (row.spec.role == "dense")
    assert on_the_device() == [0] * 6


def misuse():
    """Every mistake is reported: what the other cases rely on."""
    import pycuda.driver as driver

    driver.init()
    context = driver.Device(0).retain_primary_context()
    shows("cuMemAlloc_v2 without a current context", lambda: shim.cuMemAlloc_v2(ctypes.byref(ctypes.c_size_t()), 8))
    context.push()
    stream = driver.Stream()
    memory, host = driver.mem_alloc(64), driver.pagelocked_empty(16, np.float32)
    shows("64 bytes beyond the end", lambda: driver.memcpy_htod_async(int(memory) + 4, host, stream))
    shows("not page-locked memory", lambda: driver.memcpy_htod_async(memory, np.zeros(4, np.float32), stream))
    shows("not device memory", lambda: driver.memcpy_dtoh_async(host, 4096, stream))
    host[:] = 3
    driver.memcpy_htod_async(memory, host, stream)
    host[:] = 4  # too early: the copy has not happened
    shows("that work in a stream still uses", lambda: shim.cuMemFree_v2(ctypes.c_size_t(int(memory))))
    shows("freed device memory", memory.free)
    shows("ran after its device memory was freed", stream.synchronize)
    memory = driver.mem_alloc(64)
    host[:] = 3
    driver.memcpy_htod_async(memory, host, stream)
    driver.memcpy_dtoh_async(host, memory, stream)
    assert (host != 3).all(), "read before it was waited for, and there already"
    shows("work that nobody waited for", lambda: shim.cuStreamDestroy_v2(ctypes.c_void_p(stream.handle)))
    stream = None
    driver.Context.pop()
    other = driver.Device(1).retain_primary_context()
    other.push()
    shows("in another context", lambda: shim.cuMemFree_v2(ctypes.c_size_t(int(memory))))
    shows("does not play", lambda: driver.memset_d8(memory, 0, 4))
    driver.Context.pop()


if __name__ == "__main__":
    name = "tensorrt_rtx" if sys.argv[1].startswith("rtx") else "tensorrt"
    version = {"tensorrt": "10.13.0.35", "tensorrt_rtx": "1.7.1.116"}[name]
    sys.modules[name] = fake_tensorrt.as_module(name, version)
    globals()[sys.argv[1]]()
    kept_failures.clear()
