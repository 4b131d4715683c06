"""Prediction: images in, labels out.

predictor.py  the class that applications use: predict, stream, submit
records.py    the records that it returns
answers.py    from an engine's outputs to those records
tables.py     predictions of many images, written as JSON lines, CSV or Parquet
pipeline.py   decoding while other images are computed, in order and in bounded memory
batcher.py    single images of many callers, run together
"""
