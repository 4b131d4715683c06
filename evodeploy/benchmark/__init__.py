"""Stage 4: measure and compare."""
