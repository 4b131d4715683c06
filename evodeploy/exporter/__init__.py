"""Stage 2: export a network to ONNX, in the precision asked for. Needs torch or onnx."""
