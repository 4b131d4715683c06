"""ONNX to TensorRT plan, for every flavour of TensorRT."""
