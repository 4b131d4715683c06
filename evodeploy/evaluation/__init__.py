"""The accuracy of artefacts on labelled images.

pipeline.py    every image once through every artefact, resumed where an interrupted run stopped
contenders.py  the artefacts that one evaluation compares
journal.py     the answers so far, on disk
statistics.py  confidence intervals, and a test of whether two accuracies differ
report.py      from answers to accuracies
"""
