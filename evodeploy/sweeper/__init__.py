"""Keep ratios, precisions and engines tried on one checkpoint, and which of them to deploy.

pipeline.py   one sweep, from its checkpoint to its files: `evodeploy.sweep`
request.py    what a sweep is asked for
begin.py      the request checked, and the folder owned, resumed or cleared
state.py      what is known so far, on disk
space.py      what is tried
search.py     keep ratios by stage, where trying all would take too long
measuring.py  each tried once, resumed where it stopped
judging.py    its file exported, its accuracy measured
timing.py     its speed, in turn with a common reference
front.py      which are worth having, and which meets a target
picture.py    accuracy over throughput
result.py     what it found
"""
