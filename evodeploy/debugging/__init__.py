"""Where two artefacts of a network begin to differ, node by node, and what to keep in FP32 so that they do not.

sources.py     the two models, and the inputs they are compared on
cutting.py     parts of an ONNX graph between values
emulation.py   an ONNX model that rounds every reduced value, computed in FP32
probing.py     values of a model on images, a few at a time, and each node's own error
tracing.py     from values to nodes: what each adds, and what it inherits
repair.py      the fewest nodes to keep in FP32
comparison.py  two models compared on the same inputs, and a third that would be better
report.py      what is found, as records and text
picture.py     the same along the network's depth
pipeline.py    `evodeploy.debug`
bisection.py   `evodeploy.bisect`: the smallest part of a network that an engine's builder refuses
refusal.py     parts given to TensorRT, until none is smaller and refused
"""
