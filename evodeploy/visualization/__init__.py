"""Figures of the tokens that each selection keeps.

pipeline.py   images in, figures out
evolution.py  the tokens of an image that each selection keeps
drawing.py    an image with patches that were left out, or with attention as colours
figure.py     these next to each other, with headings
strips.py     one image at several keep ratios
card.py       one image with its classes
"""
