"""Stage 3: ONNX file to engine file: precision converted, built by TensorRT, checked and recorded."""
