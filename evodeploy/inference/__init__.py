"""Images in, labels out.

predictor.py  what application code imports: predict, stream, submit
records.py    what it gets back
answers.py    from an engine's outputs to those records
tokens.py     where the tokens lie that a selection kept
pipeline.py   decoding beside computing, in order and in bounded memory
batcher.py    single images of many callers, run together
"""
