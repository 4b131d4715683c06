"""Timings, clocks, energy and memory, and the statistics of medians."""
