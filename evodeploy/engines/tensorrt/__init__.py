"""TensorRT plans run, for every flavour of TensorRT: `builder` makes them."""
