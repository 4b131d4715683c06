"""Keep ratios, precisions and engines tried on one checkpoint, and which of them to deploy.

space.py    what is tried
run.py      each tried once: exported, evaluated, timed beside a common reference; going on where it stopped
front.py    which are worth having, and which meets a target
picture.py  accuracy over throughput
"""
