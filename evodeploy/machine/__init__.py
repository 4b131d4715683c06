"""The properties of this machine, read from the system and from NVIDIA's driver.

cores.py        how many threads may compute
cpu.py          the processor and its memory
memory.py       the memory of this process
energy.py       energy counters of the processor and the GPU
driver.py       CUDA's driver: whether it works, and the GPU's architecture
nvml.py         NVIDIA's management library: clocks, temperature, power, memory of a GPU
environment.py  all of these together, as a measurement records them
"""
