"""The least time that an engine needs on a GPU, from the GPU's published peaks and the engine's own kernels."""
