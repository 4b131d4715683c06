"""Stage 3: what runs an ONNX file, a plan or a network, behind one interface."""
