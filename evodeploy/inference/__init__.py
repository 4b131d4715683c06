"""Images in, labels out.

predictor.py  what application code imports: predict, stream, submit
records.py    what it gets back
answers.py    from an engine's outputs to those records
tables.py     predictions of many images, written as JSON lines, CSV or Parquet
pipeline.py   decoding while others compute, in order and in bounded memory
batcher.py    single images of many callers, run together
"""
