"""Images wherever people have them: one listing for all commands.

places.py        a path, a glob or braces to files
tars.py          webdataset tars, by an index of offsets
parquet.py       rows of Parquet files
hugging_face.py  what the `datasets` library saved
sources.py       any of them to a `Dataset`: names, where each image is, and its label
labels.py        files of labels, also ImageNet's own
classes.py       the data's classes to the model's
labelled.py      all of it for an evaluation

What is held of an image is its name and its place, never its bytes.
"""
