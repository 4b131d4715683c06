"""An artefact as a service, on Ray Serve.

    request ──▶ hosts, gate ──▶ app: decode ──▶ replica: batches through one engine

settings.py    what a service is started with
hosts.py       which hosts a request may name
gate.py        who may ask, how much, and how many at once
app.py         the endpoints together, on anything that computes
  images.py    image files to classes
  tensors.py   the Open Inference Protocol's endpoints
  pages.py     the web page, whose files are in page/
refusals.py    how an error becomes an answer
openapi.py     what the endpoints' description says of bodies and refusals
protocol.py    tensors as the Open Inference Protocol v2 has them, in JSON and in binary
backend.py     what computes, as endpoints see it
replica.py     what computes: an engine behind a queue that runs requests together
service.py     start, update and stop on Ray
"""
