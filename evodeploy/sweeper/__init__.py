"""Keep ratios, precisions and engines tried on one checkpoint, and which of them to deploy.

pipeline.py   one sweep, from its checkpoint to its files
space.py      what is tried
measuring.py  each tried once: exported, evaluated, timed beside a common reference; resumed where it stopped
front.py      which are worth having, and which meets a target
picture.py    accuracy over throughput
"""
