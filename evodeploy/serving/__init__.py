"""An artefact as a service: in one process, or on Ray Serve.

    request ──▶ hosts, gate ──▶ app: decode ──▶ worker: batches through one engine

settings.py    what a service is started with
hosts.py       which hosts a request may name
gate.py        who may ask, how much, and how many at once
app.py         the endpoints together, on anything that computes
  images.py    image files to classes
  tensors.py   the Open Inference Protocol's endpoints
  pages.py     the web page, whose files are in page/
  metrics.py   what Prometheus is given
refusals.py    how an error becomes an answer
openapi.py     what the endpoints' description says of bodies and refusals
protocol.py    tensors as the Open Inference Protocol v2 has them, in JSON and in binary
backend.py     what computes, as endpoints see it
worker.py      what computes: an engine behind a queue that runs requests together
  budget.py    how many tokens a batch may keep so that answers are in time: pure functions
  controller.py  the budget of a running worker
service.py     start, update and stop
  connections.py  what a connection may take before its request and after it
  embedded.py  in this process, by uvicorn
  grpc_server.py  and by gRPC, whose methods are in calls.py, and their tensors in messages.py
  ray_serve.py on Ray, whose replicas are workers: replica.py
"""
