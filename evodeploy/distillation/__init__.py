"""Self-distillation: a network learns, from pictures without labels, to give its dense answers with fewer tokens.

The teacher's targets (teaching.py) and the student's answers at drawn keep ratios (recipe.py, network.py) are compared
(losses.py) in the loop (loop.py, optimizer.py), whose state can be resumed (state.py); averaged weights are the result,
evaluated on images that were not trained on (evaluation.py, report.py). `pipeline.distill` does all of it.
"""
