"""What this machine is and does: all that is read of its system and of NVIDIA's driver.

cores.py        how many threads may compute
cpu.py          the processor and its memory
memory.py       the memory of this process
energy.py       counters of energy, the processor's and the GPU's
driver.py       CUDA's driver: whether it works, and the GPU's architecture
nvml.py         NVIDIA's management library: clocks, temperature, power, memory of a GPU
environment.py  all of it together, as a measurement records it
"""
