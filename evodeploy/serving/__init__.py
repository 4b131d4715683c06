"""Serving an artefact over HTTP and gRPC: in one process, or on Ray Serve.

    request ──▶ hosts, gate ──▶ app: decode ──▶ worker: batches through one engine

settings.py    the settings of a service
hosts.py       which hosts a request may name
gate.py        authentication, and limits on the size and number of requests
app.py         all endpoints together, on any backend
  images.py    image files to classes
  tensors.py   the endpoints of the Open Inference Protocol
  pages.py     the web page, whose files are in page/
  metrics.py   metrics for Prometheus
refusals.py    the conversion of errors to answers
openapi.py     bodies and refusals in the OpenAPI description of the endpoints
protocol.py    tensors of the Open Inference Protocol v2, in JSON and in binary
backend.py     the interface of a worker to the endpoints
worker.py      the worker: an engine behind a queue that runs requests together
  budget.py    how many tokens a batch may keep so that answers are in time: pure functions
  controller.py  the budget of a running worker
service.py     start, update and stop
  connections.py  limits on a connection before and after its request
  embedded.py  in this process, with uvicorn
  grpc_server.py  and over gRPC, with its methods in calls.py and its tensors in messages.py
  ray_serve.py on Ray, whose replicas (replica.py) are workers
"""
