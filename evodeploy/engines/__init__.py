"""Stage 3: engines that run an ONNX file, a plan or a network, behind one interface."""
