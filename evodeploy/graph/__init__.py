"""Stage 2a: ONNX to ONNX. Passes change a model and return `Changed`; `ranges` and `flops` measure a model."""
