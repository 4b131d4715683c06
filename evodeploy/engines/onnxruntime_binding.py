"""ONNX Runtime on tensors at fixed addresses, which its CUDA graphs need."""

from __future__ import annotations

from typing import Any

from evodeploy.engines.base import Array
from evodeploy.specs import TensorSpec


class BoundBatch:
    """One batch size, whose input and outputs are allocated once on `device`, which is cpu or cuda."""

    def __init__(
        self,
        session: Any,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        batch: int,
        device: str,
        index: int,
    ) -> None:
        import onnxruntime as ort

        def allocated(spec: TensorSpec) -> Any:
            shape = [batch, *(size or 1 for size in spec.shape[1:])]
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, spec.dtype, device, index)

        self._session, self._input = session, allocated(inputs[0])
        self._outputs = {spec.name: allocated(spec) for spec in outputs}
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(inputs[0].name, self._input)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(batch))  # a separate graph for each batch size

    def run(self, images: Array) -> dict[str, Array]:
        """Return the outputs by name, as copies that the caller may keep."""
        self._input.update_inplace(images)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return {name: value.numpy().copy() for name, value in self._outputs.items()}
