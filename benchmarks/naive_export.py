"""The benefit of the export's graph: `python benchmarks/naive_export.py [MODEL]`.

An Evo-DeiT written as in papers (the whole attention matrix, from which the class row is read; query-key and value
products separate; tokens sorted and gathered) and exported by torch.onnx unchanged, compared with this project's export
of the same weights: nodes, the GPU program of an FP16 engine (SM89, TensorRT for RTX), and throughput on the CPU in
ONNX Runtime and OpenVINO, batch 8, interleaved. Prints a Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from in_turn import interleaved
from torch import Tensor, nn

from evodeploy.benchmark.measure.interleaved import Budget
from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.opener import open_engine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.inspection.program import read_program
from evodeploy.machine.cores import usable_cores
from evodeploy.models.evo_deit import EvoDeiT
from evodeploy.models.loaded import LoadedModel
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions

BATCH = 8


class Naive(nn.Module):
    """Stage-wise Evo-DeiT with the weights of `network`, in the most direct form."""

    def __init__(self, network: EvoDeiT) -> None:
        super().__init__()
        self.network = network
        self.config = network.config

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, classes)."""
        net, config = self.network, self.config
        patches = net.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([net.cls_token.expand(images.shape[0], -1, -1), patches], dim=1) + net.pos_embed
        scores = torch.zeros_like(patches[:, :, 0])
        for run in config.segments_of():
            if run.keep == config.tokens:
                x, scores = self._blocks(run.blocks, x, scores)
                continue
            order = scores.argsort(dim=1, descending=True)
            x = torch.cat([x[:, :1], self._take(x[:, 1:], order)], dim=1)
            scores = scores.gather(1, order)
            slow, kept = self._blocks(run.blocks, x[:, : run.keep + 1], scores[:, : run.keep])
            x = torch.cat([slow, x[:, run.keep + 1 :]], dim=1)
            scores = torch.cat([kept, scores[:, run.keep :]], dim=1)
        logits: Tensor = net.head(net.norm(x[:, 1:].mean(dim=1)))
        return logits

    @staticmethod
    def _take(tokens: Tensor, order: Tensor) -> Tensor:
        return tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))

    def _blocks(self, blocks: tuple[int, ...], x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        heads, width = self.config.heads, self.config.width
        for index in blocks:
            block = self.network.blocks[index]
            normed, (weight, bias) = block.norm1(x), (block.attn.qkv.weight, block.attn.qkv.bias)
            batch, rows, _ = x.shape
            qk = F.linear(normed, weight[: 2 * width], bias[: 2 * width])
            query, key = qk.reshape(batch, rows, 2, heads, -1).permute(2, 0, 3, 1, 4)
            value = (
                F.linear(normed, weight[2 * width :], bias[2 * width :]).reshape(batch, rows, heads, -1).transpose(1, 2)
            )
            attention = (query @ key.transpose(-2, -1) * (width // heads) ** -0.5).softmax(dim=-1)
            t = self.config.tradeoff(index)
            scores = (1 - t) * scores + t * attention[:, :, 0, 1:].sum(dim=1)
            x = x + block.attn.proj((attention @ value).transpose(1, 2).reshape(batch, rows, width))
            x = x + block.mlp(block.norm2(x))
        return x, scores


def naive_onnx(model: LoadedModel) -> onnx.ModelProto:
    """Export the plain network with torch.onnx's dynamo exporter, without additions."""
    assert isinstance(model.module, EvoDeiT)
    example = torch.zeros(2, 3, model.config.image_size, model.config.image_size)
    shapes = ({0: torch.export.Dim("batch", min=1, max=1 << 16)},)
    program = torch.onnx.export(
        Naive(model.module).eval(), (example,), dynamo=True, opset_version=20, input_names=["images"],
        output_names=["logits"], dynamic_shapes=shapes, verbose=False,
    )  # fmt: skip
    assert program is not None
    return program.model_proto


def main() -> None:
    """Print the table."""
    model = random_model(named(sys.argv[1] if len(sys.argv) > 1 else "evo_deit_small_patch16_224"))
    side = model.config.image_size
    images = np.random.default_rng(0).standard_normal((BATCH, 3, side, side), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = {"plain torch.onnx": naive_onnx(model), "evodeploy": onnx_from_model(model)}
        paths = {name: Path(folder, f"{i}.onnx") for i, name in enumerate(files)}
        runs, rows = [], {}
        for name, proto in files.items():
            write_onnx(proto, paths[name])
            request = BuildRequest(
                paths[name], paths[name].with_suffix(".engine"), "fp16", ((1, 32, 64),), "tensorrt-rtx", ("sm89",)
            )
            record = build_engine(request)
            program = read_program(request.output)
            assert program is not None and record.activation_bytes is not None
            rows[name] = [
                len(proto.graph.node), program.total, program.kernels["gemm"], program.attentions,
                f"{record.activation_bytes / 1e6:.0f} MB",
            ]  # fmt: skip
            runs += [
                open_engine(paths[name], engine, EngineOptions(usable_cores()))
                for engine in ("onnxruntime", "openvino")
            ]
        outputs = [engine.run(images)["logits"] for engine in runs]
        assert all(np.abs(output - outputs[0]).max() < 1e-4 * np.abs(outputs[0]).max() for output in outputs)
        timings = interleaved([engine.run for engine in runs], images, Budget(seconds=10, rounds=20))
    print("| export | nodes | kernels | GEMMs | fused attentions | activations | ONNX Runtime img/s | OpenVINO img/s |")
    print("|---|---|---|---|---|---|---|---|")
    for i, (name, row) in enumerate(rows.items()):
        speeds = [f"{BATCH / timing.median:.1f}" for timing in timings[2 * i : 2 * i + 2]]
        print(f"| {name} | " + " | ".join(map(str, [*row, *speeds])) + " |")
    for offset, engine in enumerate(("ONNX Runtime", "OpenVINO")):
        print(f"\n{engine}: {timings[offset].median / timings[offset + 2].median:.3f} × the plain export")


if __name__ == "__main__":
    main()
