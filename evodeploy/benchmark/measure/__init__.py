"""Timings, clocks, energy and memory, and what samples say of a median."""
