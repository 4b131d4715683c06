"""The run on Ray Data: decoding in parallel tasks, a pool of actors that predict, blocks no larger than a batch.

Ray is started on this machine, or a cluster is joined whose machines see the same files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
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
from evodeploy.text import reason

LEAST_STORE = 256 << 20  # bytes of shared memory for blocks in flight
ATTEMPTS = 5  # at work of which its worker dies
VARIABLES = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # at less, every actor pool begins with a false alarm
    "RAY_TQDM_PATCH_PRINT": "0",  # Ray would put a print of its own in place of Python's
}


@dataclass(frozen=True)
class Work:
    """What is done with each shard, and by how many actors; `home` roots the paths of inputs and artefact.

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
    """Ray, for as long as the body runs: one that this process has already is used and left.

    Else it is the Ray at `address`, or where that is None one of its own.
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
    """Leave the lines with these words out of what the body writes to stderr, C++ too; the others come at its end."""
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
    """Answers as they come, in no order: tables with a row for each image, see `Answerer`.

    Raises RuntimeFailedError where decoding, an engine or Ray fails for good; a lost worker's work is done again, at
    most `ATTEMPTS` times in all.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # in place of one that does not say what an engine raised
    context.target_max_block_size = work.block
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs the stack of what it raises
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
            enable_true_multi_threading=True,  # one call at a time all the same, in the thread that knows its task
        ),
        memory=work.block,  # another claim than the decoding's keeps Ray from fusing that into the actors
        num_cpus=1,
        num_gpus=1 if work.on_gpu else 0,
    )
    try:
        yield from answered.iter_batches(batch_size=None, batch_format="pyarrow")
    except Exception as error:  # Ray raises what its parts raise
        raise RuntimeFailedError(f"the run stopped: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What ended the work, in one sentence."""
    if getattr(error, "actor_init_failed", False):  # the last line is what was raised, after its type
        return re.sub(r"^[\w.]+: ", "", reason(error, -1))
    return reason(getattr(error, "cause", None) or error)


class RayAnswerer(Answerer):
    """What an actor runs; raises as `_attempt` does."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """As `Answerer` answers."""
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
    """Raise RuntimeFailedError where `ATTEMPTS` workers died in this task, which Ray would try for ever.

    And for what the body raises that is no EvodeployError: Ray adds lines to it.
    """
    if global_worker.core_worker.get_current_task_attempt_number() >= ATTEMPTS:
        raise RuntimeFailedError(f"{ATTEMPTS} workers in a row died while they {what}")
    try:
        yield
    except EvodeployError:
        raise
    except Exception as error:
        raise RuntimeFailedError(reason(error)) from error
