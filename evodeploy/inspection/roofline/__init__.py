"""Lower bounds for the time of an engine on a GPU, from the GPU's published peaks and the engine's own kernels."""
