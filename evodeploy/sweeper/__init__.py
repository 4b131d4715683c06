"""Tries keep ratios, precisions and engines on one checkpoint, and finds which of them to deploy.

pipeline.py   one sweep, from its checkpoint to its files: `evodeploy.sweep`
request.py    the settings of a sweep
begin.py      the check of the request, and the folder: owned, resumed or cleared
state.py      the results so far, on disk
space.py      the candidates to try
search.py     a search of keep ratios by stage, if trying all would take too long
measuring.py  each candidate tried once, resumed where the last run stopped
judging.py    the export of its file, and its accuracy
timing.py     its speed, in turn with a common reference
front.py      the candidates on the front, and the one that meets a target
picture.py    accuracy over throughput
result.py     the results
"""
