"""Where two artefacts of a network begin to differ, node by node, and what to keep in FP32 so that they do not.

emulation.py   an ONNX model that rounds every reduced value, computed in FP32
probing.py     values of a model on images, a few at a time, and each node's own error
repair.py      the fewest nodes to keep in FP32
report.py      what is found, as records and text
picture.py     the same along the network's depth
pipeline.py    `evodeploy.debug`
"""
