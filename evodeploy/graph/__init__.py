"""Stage 2a: ONNX to ONNX: attention, precision, quantization, and what is counted or measured of a graph."""
