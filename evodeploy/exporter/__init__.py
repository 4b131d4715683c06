"""Stage 2: network to ONNX, and its precision. Needs torch or onnx."""
