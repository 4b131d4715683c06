"""Stage 1: load a checkpoint as a network. Needs torch."""
