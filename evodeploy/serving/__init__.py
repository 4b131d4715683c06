"""An artefact as a service, on Ray Serve.

    request ──▶ app ──▶ replica: decode, then batches through one engine

settings.py    what a service is told
protocol.py    tensors as the Open Inference Protocol v2 has them, in JSON and in binary
app.py         endpoints, limits and the page, on anything that computes
replica.py     what computes: an engine whose requests Ray Serve batches
service.py     start, update and stop on Ray
page/          the web page
"""
