"""Cases that need no injected fault, for the shim and for a real driver: what a GPU, PyTorch and full memory do to us.

A case that needs CUDA in PyTorch or a real GPU ends with the code of `NOT_RUN` and its reason.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import fake_tensorrt
import numpy as np
import sharing
from cuda_shim.cases import IMAGES, PLAN, refused, same
from gpu.on_driver import is_shim

from evodeploy.engines.opener import open_engine
from evodeploy.errors import OutOfMemoryError, RuntimeFailedError, UsageError
from evodeploy.specs import EngineOptions

NOT_RUN = 77
GRAPHS = EngineOptions(cuda_graph=True)
LANES = 4
LARGEST = 32  # of the plan that `memory` gets
CONTEXT_BYTES = 16 << 20


def not_run(reason):
    print(reason)
    sys.exit(NOT_RUN)


def measured(**values):
    """Say what was measured, for the process that started this case."""
    print("measured " + json.dumps(values))


def cuda_torch():
    if is_shim():
        not_run("PyTorch computes nothing on the shim")
    import torch

    if not torch.cuda.is_available():
        not_run("PyTorch has no CUDA here")
    return torch


def while_recording(work, batch=4):
    """Record a graph while `work` runs in another thread; the right results, and the device is not lost."""
    failures = []

    def other():
        try:
            work()
        except BaseException as error:
            failures.append(error)

    def during():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    with open_engine(PLAN, "tensorrt", GRAPHS) as engine:
        same(engine.run(IMAGES[:1]), IMAGES[:1])
        fake_tensorrt.Engine.during_capture = during
        try:
            same(engine.run(IMAGES[:batch]), IMAGES[:batch])
        finally:
            fake_tensorrt.Engine.during_capture = None
        assert not failures, failures
        for size in (batch, 1, batch, 2, 16):
            same(engine.run(IMAGES[-size:]), IMAGES[-size:])


def torch_in_its_default_stream_while_recording():
    torch = cuda_torch()
    values = torch.ones(1 << 20, device="cuda")

    def work():
        for _ in range(20):
            assert float((values * 2).sum().cpu()) == 2 << 20

    while_recording(work)


def torch_out_of_memory_while_recording():
    torch = cuda_torch()

    def work():
        try:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError:
            return
        raise AssertionError("there was memory for a petabyte")

    while_recording(work)
    assert float(torch.ones(4, device="cuda").sum()) == 4


def out_of_memory_while_recording():
    import pycuda.driver as driver

    from evodeploy.engines.tensorrt.cuda import device

    def work():
        with device(0).releasing():
            try:
                driver.mem_alloc(1 << 50)
            except driver.MemoryError:
                return
        raise AssertionError("there was memory for a petabyte")

    while_recording(work)


def residents():
    """Batches that stay on the GPU, one lane and three, while the engine computes others."""
    with open_engine(PLAN, "tensorrt") as engine:
        batch, three = engine.resident(IMAGES[:8]), engine.resident(IMAGES[:2], in_flight=3)
        for _ in range(3):
            assert batch.time() > 0
            assert three.time() > 0
            same(engine.run(IMAGES[8:]), IMAGES[8:])
        same(batch.outputs(), IMAGES[:8])
        same(three.outputs(), IMAGES[:2])
        batch.close()
        with refused(UsageError, "closed"):
            batch.time()


def next_to_torch():
    """PyTorch's results before, between and after ours, in one primary context, with its own streams and graphs."""
    torch = cuda_torch()
    before = torch.arange(1 << 16, device="cuda", dtype=torch.float32)
    graph, fixed = torch.cuda.CUDAGraph(), torch.ones(1024, device="cuda")
    float((fixed * 2).sum())  # so that its kernels are there
    with torch.cuda.graph(graph):
        doubled = fixed * 2
    with open_engine(PLAN, "tensorrt", GRAPHS) as engine:
        for batch in (2, 5, 2):
            same(engine.run(IMAGES[:batch]), IMAGES[:batch])
            graph.replay()
            assert float(doubled.sum()) == 2048
            assert float(before.sum()) == float(np.arange(1 << 16, dtype=np.float64).sum())
    graph.replay()
    assert float(doubled.sum()) == 2048


def full_gpu():
    """An engine that finds no memory says so, and runs once there is some again."""
    import pycuda.driver as driver

    from evodeploy.engines.tensorrt.cuda import device

    gpu = device(0)
    with open_engine(PLAN, "tensorrt") as engine:
        same(engine.run(IMAGES), IMAGES)  # its kernels are there
    fake_tensorrt.Engine.device_memory_size_v2 = 256 << 20
    with gpu.releasing():
        held = filled(driver)
    try:
        with refused(OutOfMemoryError):
            open_engine(PLAN, "tensorrt")
    finally:
        with gpu.releasing():
            for memory in held:
                memory.free()
    with open_engine(PLAN, "tensorrt") as engine:
        same(engine.run(IMAGES), IMAGES)


def filled(driver):
    """Memory that leaves less than 16 MiB of the GPU's."""
    held, size = [], 1 << 36
    while size >= 16 << 20:
        try:
            held.append(driver.mem_alloc(size))
        except driver.MemoryError:
            size //= 2
    return held


def illegal_address():
    """A kernel that writes where nothing is: the error says that the GPU is lost, and the process can still end."""
    if is_shim():
        not_run("the shim plays no kernel that uses a wrong address: its case context_lost injects the error")
    engine = open_engine(PLAN, "tensorrt")
    resident = engine.resident(IMAGES[:2])
    same(engine.run(IMAGES[:3]), IMAGES[:3])
    fake_tensorrt.ExecutionContext.wrong_address = True
    with refused(RuntimeFailedError, "cuda:0 cannot be used by this process any more", "illegal memory access"):
        engine.run(IMAGES[:3])
    for again in (lambda: engine.run(IMAGES[:3]), resident.time, lambda: open_engine(PLAN, "tensorrt")):
        with refused(RuntimeFailedError, "cuda:0 cannot be used after an earlier failure"):
            again()
    engine.close()


def memory():
    """Graphs of 32 batch sizes in 4 lanes, and how much of the GPU's memory they hold; all of it is given back."""
    import pycuda.driver as driver

    from evodeploy.engines.tensorrt.cuda import device

    gpu = device(0)
    fake_tensorrt.Engine.device_memory_size_v2 = CONTEXT_BYTES
    images = np.concatenate([IMAGES, IMAGES])

    def used():
        with gpu.releasing():
            free, total = driver.mem_get_info()
        return total - free

    with open_engine(PLAN, "tensorrt", GRAPHS) as engine:
        same(engine.run(images[:1]), images[:1])  # the context and its kernels are there
    before, by_batch = used(), {}
    with open_engine(PLAN, "tensorrt", GRAPHS) as engine:
        for batch in range(1, LARGEST + 1):
            in_all_lanes(engine, images[:batch])
            by_batch[batch] = used() - before
    after = used() - before
    measured(
        bytes_after_1=by_batch[1], bytes_after_16=by_batch[16], bytes_after_32=by_batch[32], bytes_after_close=after,
        context_bytes=CONTEXT_BYTES,
    )  # fmt: skip
    most = 2 * LANES * CONTEXT_BYTES + (64 << 20)
    assert by_batch[LARGEST] <= most, f"{by_batch[LARGEST]} bytes are in use, expected no more than {most}"
    assert after <= 32 << 20, f"{after} bytes are in use after close"


def in_all_lanes(engine, images):
    """Run `images` in as many threads as there are lanes, at the same time."""

    def work(number):
        for _ in range(2):
            same(engine.run(images), images)

    sharing.in_threads(work, LANES)


def resident_clock():
    """The time on the device of a kernel that lasts as long as it was asked to: no more is counted, and no less."""
    if is_shim():
        not_run("on the shim nothing takes a known time of the GPU")
    found = {}
    for graph in (False, True):
        with open_engine(PLAN, "tensorrt", EngineOptions(cuda_graph=graph)) as engine:
            for microseconds in (100, 1000, 5000):
                fake_tensorrt.ExecutionContext.wait_ns = microseconds * 1000
                resident = engine.resident(IMAGES[: 1 + microseconds // 1000])
                times = sorted(resident.time() * 1e6 for _ in range(21))
                resident.close()
                found[f"{microseconds} us{' graph' if graph else ''}"] = {"median": times[10], "least": times[0]}
    measured(**found)
    for name, times in found.items():
        expected = float(name.split()[0])
        assert expected * 0.98 <= times["median"] <= expected * 1.02 + 25, (name, times)


def clean_end():
    """The process ends while an engine, a resident batch and a thread's results are held, after some work."""
    global held
    engine = open_engine(PLAN, "tensorrt", GRAPHS)
    held = [engine, engine.resident(IMAGES[:2])]
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        same(engine.run(IMAGES[:5]), IMAGES[:5])
