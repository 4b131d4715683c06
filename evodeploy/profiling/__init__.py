"""Where the time of a run goes, node by node, as the runtimes' own profilers say."""
