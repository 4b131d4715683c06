"""Stage 1: checkpoint to network. Needs torch."""
