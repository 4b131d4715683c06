"""Which tokens each selection keeps, as pictures.

pipeline.py   images in, figures out
evolution.py  the tokens of an image that each selection keeps
drawing.py    patches left out, and attention as colours
figure.py     these side by side, with headings
strips.py     one image at several keep ratios
card.py       one image with its classes
"""
