"""ONNX Runtime's execution providers as engines: what each is called, and what our options are called there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from evodeploy.engines.device import cuda_index
from evodeploy.errors import UsageError
from evodeploy.onnx_files import onnx_sha256
from evodeploy.specs import KEEP, BatchRange, EngineOptions, ModelInfo, TensorSpec

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROFILE = BatchRange(1, 128)  # the batches of an elastic file in TensorRT's provider, where its batch is dynamic
BEST_BATCH = 32


@dataclass(frozen=True)
class Provider:
    """An engine's `name`, its execution providers, the first choice first, and how our options are given to it.

    The names of those options were looked up in the libraries of onnxruntime-gpu 1.22. `one_graph` says that a session
    keeps a single CUDA graph, which it replays whatever the batch size is. `tf32` says that products are TF32 where no
    option says otherwise, `profiled` that ranges of shapes are stated when an elastic file is opened.
    """

    name: str
    chain: tuple[str, ...]
    options: Callable[[EngineOptions], dict[str, str]]
    one_graph: bool = False
    tf32: bool = False
    profiled: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on an NVIDIA GPU."""
        return CUDA in self.chain

    def configured(
        self, options: EngineOptions, further: Mapping[str, str] = MappingProxyType({})
    ) -> list[str | tuple[str, dict[str, str]]]:
        """Return the chain with options, as a session takes it: what TensorRT leaves to CUDA runs on the same GPU.

        `further` are options of the first choice alone, see `elastic_profile` and `cache_prefix`.
        """
        first, *rest = self.chain
        same = {"device_id": str(cuda_index(options.device))}
        return [
            (first, {**self.options(options), **further}),
            *((name, same) if name == CUDA else name for name in rest),
        ]


def elastic_profile(inputs: Sequence[TensorSpec], info: ModelInfo | None) -> dict[str, str]:
    """Options of TensorRT's provider for an elastic file: the batches and numbers of kept tokens that runs may ask for.

    Nothing of a static one. Without it the provider builds an engine again whenever a run leaves the range of those
    before. `keep` decides shapes, so its values are what its profile holds; the best of them are the highest, because
    ONNX Runtime took the best of such an input for the highest and the highest for the best until September 2026
    (pull request 32415), which TensorRT refuses unless they are equal.
    """
    if info is None or not info.elastic:
        return {}
    images = inputs[0]
    low, high = ([getattr(stage, end) for stage in info.elastic] for end in ("low", "high"))
    batches = [images.shape[0] or batch for batch in (PROFILE.min, BEST_BATCH, PROFILE.max)]
    return {
        f"trt_profile_{name}_shapes": f"{images.name}:{_times((batch, *images.shape[1:]))},{KEEP}:{_times(keep)}"
        for name, batch, keep in zip(("min", "opt", "max"), batches, (low, high, high), strict=True)
    }


def cache_prefix(path: Path, options: EngineOptions) -> dict[str, str]:
    """Options of TensorRT's provider by which it names the engines that it keeps of the file `path`, if it keeps any.

    By itself it names them by the file's name and those of its nodes, and so takes an engine with the weights of
    another export of that name.
    """
    return {} if options.cache is None else {"trt_engine_cache_prefix": onnx_sha256(path)[:16]}


def _times(sizes: Iterable[int | None]) -> str:
    return "x".join(map(str, sizes))


def _cuda_options(options: EngineOptions) -> dict[str, str]:
    chosen = {"device_id": str(cuda_index(options.device)), "use_tf32": "0" if options.tf32 is False else "1"}
    if options.cuda_graph:
        chosen["enable_cuda_graph"] = "1"
    return chosen


def _tensorrt_options(options: EngineOptions) -> dict[str, str]:
    if options.precision == "bf16":
        raise UsageError("the engine 'onnxruntime-tensorrt' computes in fp32 or fp16, got precision bf16")
    chosen = {"device_id": str(cuda_index(options.device))}
    if options.precision == "fp16":
        chosen["trt_fp16_enable"] = "1"
    if options.cuda_graph:
        chosen["trt_cuda_graph_enable"] = "1"
    if options.cache:
        folder = str(options.cache)
        chosen |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        chosen |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    return chosen


ON_CPU = Provider("onnxruntime", (CPU,), lambda options: {})
ON_CUDA = Provider("onnxruntime-cuda", (CUDA, CPU), _cuda_options, tf32=True)
ON_TENSORRT = Provider(
    "onnxruntime-tensorrt", (TENSORRT, CUDA, CPU), _tensorrt_options, one_graph=True, tf32=True, profiled=True
)
PROVIDERS = {provider.name: provider for provider in (ON_CPU, ON_CUDA, ON_TENSORRT)}
