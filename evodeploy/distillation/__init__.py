"""Self-distillation: a network learns, from images without labels, to reproduce its dense outputs with fewer tokens.

The training loop (loop.py, optimizer.py) compares (losses.py) the teacher's targets (teaching.py) with the student's
outputs at randomly drawn keep ratios (recipe.py, network.py). Its state can be resumed (state.py). The result is the
averaged weights, evaluated on images that were not trained on (evaluation.py, report.py). `pipeline.distill` runs all
of this.
"""
