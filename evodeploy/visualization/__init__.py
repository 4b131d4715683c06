"""Which tokens each selection kept, as pictures.

evolution.py  what an artefact tells of the tokens of an image
drawing.py    patches left out, and attention as colours
figure.py     these side by side, with headings
card.py       one image with its classes
"""
