"""What this machine is: cores, processor, NVIDIA driver, GPU counters."""
