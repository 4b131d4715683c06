"""Stage 3: ONNX file to engine file. The precision is converted, TensorRT builds, the result is recorded."""
