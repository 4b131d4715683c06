"""Running TensorRT plans of every flavour. `builder` makes the plans."""
