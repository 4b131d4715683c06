"""Images from any data source: one listing for all commands.

places.py        a path, a glob or braces to files
tars.py          webdataset tars, by an index of offsets
parquet.py       rows of Parquet files
hugging_face.py  data sets that the `datasets` library saved
sources.py       any of them to a `Dataset`: names, places and labels of images
labels.py        files of labels, including ImageNet's own
classes.py       the data's classes to the model's
labelled.py      all of this together, for an evaluation

Of an image only its name and its place are held, never its bytes.
"""
