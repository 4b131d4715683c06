"""An artefact as a service, on Ray Serve.

    request ──▶ gate ──▶ app: decode ──▶ replica: batches through one engine

settings.py    what a service is told
protocol.py    tensors as the Open Inference Protocol v2 has them, in JSON and in binary
gate.py        who may ask, how much, and how many at once
app.py         endpoints and the page, on anything that computes
replica.py     what computes: an engine behind a queue that runs requests together
service.py     start, update and stop on Ray
page/          the web page
"""
