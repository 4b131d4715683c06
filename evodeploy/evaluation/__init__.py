"""How often artefacts are right on labelled images.

pipeline.py    every image once through every artefact, resumed where an interrupted run stopped
journal.py     what is known so far, on disk
statistics.py  intervals, and whether two accuracies differ
report.py      from answers to accuracies
"""
