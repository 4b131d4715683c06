"""Finding the nodes at which two artefacts of a network begin to differ, and the nodes to keep in FP32 to repair it.

sources.py     the two models, and the inputs that they are compared on
cutting.py     parts of an ONNX graph between values
emulation.py   an ONNX model that rounds every reduced value, computed in FP32
probing.py     values of a model on images, a few at a time, and each node's own error
tracing.py     from values to nodes: the error that each node adds, and the error that it inherits
repair.py      the fewest nodes to keep in FP32
comparison.py  comparing two models on the same inputs, and proposing a better conversion
report.py      the results, as records and text
picture.py     the results as a drawing along the network's depth
pipeline.py    `evodeploy.debug`
bisection.py   `evodeploy.bisect`: the smallest part of a network that an engine's builder refuses
refusal.py     building parts with TensorRT until the smallest refused part is found
"""
