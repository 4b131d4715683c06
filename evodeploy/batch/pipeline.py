"""The run on Ray Data: decoding in parallel tasks, a pool of actors that predict, and blocks no larger than a batch.

Ray is started on this machine, or a cluster is joined whose machines all see the same files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray._private.worker import global_worker

from evodeploy.batch.decode import prepared_batches
from evodeploy.batch.inputs import Rows, Shard
from evodeploy.batch.predict import Answerer
from evodeploy.cluster import joined_ray, own_ray
from evodeploy.errors import EvodeployError, RuntimeFailedError
from evodeploy.machine.cores import usable_cores
from evodeploy.specs import EngineOptions, ModelInfo
from evodeploy.text import raised, reason

LEAST_STORE = 256 << 20  # bytes of shared memory for blocks in flight
ATTEMPTS = 5  # of a task whose worker dies each time
VARIABLES = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # at lower levels, every actor pool begins with a false alarm
    "RAY_TQDM_PATCH_PRINT": "0",  # otherwise Ray replaces Python's print
}


@dataclass(frozen=True)
class Work:
    """The work on each shard, and the number of actors. `home` is the root of the paths of inputs and artefact.

    `sha256` is the artefact's `identity`.
    """

    home: Path
    artefact: Path
    sha256: str
    info: ModelInfo
    engine: str
    on_gpu: bool
    options: EngineOptions
    actors: int
    batch: int
    top: int

    @property
    def block(self) -> int:
        """Bytes of a batch of prepared images."""
        return self.batch * 3 * self.info.image_size**2 * np.dtype(self.info.input.dtype).itemsize


@contextlib.contextmanager
def cluster(work: Work, address: str | None) -> Iterator[None]:
    """Provide Ray while the body runs. If this process is already connected to Ray, that is used and left running.

    Otherwise the Ray at `address` is joined, or a separate one is started if that is None.
    """
    if ray.is_initialized():
        yield
        return
    if address is not None:
        with joined_ray(address):
            yield
        return
    cores = usable_cores()
    store = max(LEAST_STORE, 4 * work.block * (work.actors + cores))
    with contextlib.ExitStack() as stack:
        with without_line(b"Set ray log level from environment variable"):
            own = own_ray(f"batch-{os.getpid()}", VARIABLES, num_cpus=cores + work.actors, object_store_memory=store)
            stack.enter_context(own)
        yield


@contextlib.contextmanager
def without_line(words: bytes) -> Iterator[None]:
    """Drop lines with these words from what the body, C++ included, writes to stderr; the others come at its end."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as captured, contextlib.ExitStack() as stack:
        stderr = os.dup(2)
        stack.callback(os.close, stderr)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            captured.seek(0)
            for line in captured:
                if words not in line:
                    os.write(2, line)


def results(shards: Mapping[int, Shard], work: Work) -> Iterator[pa.Table]:
    """Yield answers as they come, in any order: tables with a row for each image, see `Answerer`.

    Raises RuntimeFailedError if decoding, an engine or Ray fails for good. The work of a lost worker is repeated, with
    at most `ATTEMPTS` attempts in total.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # instead of an error without the message of the engine
    context.target_max_block_size = work.block
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs the stack of every error that it raises
    batches = sum(math.ceil(len(shard) / work.batch) for shard in shards.values())
    todo = ray.data.from_items(
        [{"number": number, "shard": shard} for number, shard in shards.items()], override_num_blocks=len(shards)
    )
    decoded = todo.map_batches(partial(_decode, work=work), batch_size=1, batch_format="numpy")
    answered = decoded.map_batches(
        RayAnswerer,
        fn_constructor_args=(work.home / work.artefact, work.sha256, work.engine, work.options, work.top),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=min(work.actors, batches),
            enable_true_multi_threading=True,  # calls still run one at a time, in the thread that knows its task
        ),
        memory=work.block,  # differs from the decoding's claim, so that Ray does not fuse that into the actors
        num_cpus=1,
        num_gpus=1 if work.on_gpu else 0,
    )
    try:
        yield from answered.iter_batches(batch_size=None, batch_format="pyarrow")
    except Exception as error:  # Ray passes on the errors of its parts
        raise RuntimeFailedError(f"the run stopped: {_why(error)}") from error


def _why(error: Exception) -> str:
    """Return the reason why the work ended, as one sentence."""
    if getattr(error, "actor_init_failed", False):  # its message is a traceback
        return raised(str(error))
    return reason(getattr(error, "cause", None) or error)


class RayAnswerer(Answerer):
    """An `Answerer` that an actor runs. Raises the errors of `_attempt`."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer a batch in the same way as `Answerer`."""
        path = batch["paths"][0].as_py()[0]
        with _attempt(f"predicted a batch that begins with {path}: use a smaller --batch or fewer --actors"):
            return super().__call__(batch)


def _decode(item: Mapping[str, Any], work: Work) -> Iterator[pa.Table]:
    number, shard = int(item["number"][0]), item["shard"][0]
    path = f"{shard.parquet}, row {shard.start}" if isinstance(shard, Rows) else shard.paths[0]
    with _attempt(f"decoded part {number}, the images from {path} on: leave out the image that crashes them"):
        yield from prepared_batches(number, shard, work.home, work.info, work.batch)


@contextlib.contextmanager
def _attempt(what: str) -> Iterator[None]:
    """Raise RuntimeFailedError if `ATTEMPTS` workers died in this task, which Ray would repeat forever.

    Also turn errors of the body that are not EvodeployErrors into it: Ray adds lines to their messages.
    """
    if global_worker.core_worker.get_current_task_attempt_number() >= ATTEMPTS:
        raise RuntimeFailedError(f"{ATTEMPTS} workers in a row died while they {what}")
    try:
        yield
    except EvodeployError:
        raise
    except Exception as error:
        raise RuntimeFailedError(reason(error)) from error
