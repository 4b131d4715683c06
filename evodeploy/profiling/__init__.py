"""The time of a run, node by node, from the runtimes' own profilers."""
