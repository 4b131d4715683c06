"""Facts about files and about this machine, found without running a network."""
