"""The execution providers of ONNX Runtime as engines, and the translation of our options into theirs."""

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
PROFILE = BatchRange(1, 128)  # batches of an elastic file in the TensorRT provider, if its batch axis is dynamic
BEST_BATCH = 32


@dataclass(frozen=True)
class Provider:
    """An engine's `name`, its execution providers in order of preference, and the translation of our options.

    The names of the options were looked up in the libraries of onnxruntime-gpu 1.22. `one_graph` says that a session
    keeps a single CUDA graph, which it replays for any batch size. `tf32` says that products are TF32 by default.
    `profiled` says that opening an elastic file needs ranges of shapes.
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
        """Return the chain with options, as a session takes it. TensorRT and CUDA get the same GPU.

        `further` are options of the first provider only, see `elastic_profile` and `cache_prefix`.
        """
        first, *rest = self.chain
        same = {"device_id": str(cuda_index(options.device))}
        return [
            (first, {**self.options(options), **further}),
            *((name, same) if name == CUDA else name for name in rest),
        ]


def elastic_profile(inputs: Sequence[TensorSpec], info: ModelInfo | None) -> dict[str, str]:
    """Return the TensorRT provider's options for an elastic file: the ranges of batch sizes and of kept tokens.

    The result is empty for a static file. Without a profile, the provider rebuilds its engine whenever a run leaves the
    range of the earlier runs. `keep` is a shape tensor, so its profile holds values. The optimum equals the maximum
    because ONNX Runtime swapped the two for such an input until September 2026 (pull request 32415), and TensorRT
    refuses swapped values unless they are equal.
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
    """Return the TensorRT provider's option that names the engines it caches for `path`; empty without a cache.

    By default these names depend only on the names of the file and of its nodes. The provider would then use a cached
    engine with the weights of an earlier export of the same name.
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
