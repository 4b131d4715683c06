"""Load tests of a server: requests are sent at times that do not depend on its answers.

target.py    the requests to send, and a connection that sends them
pictures.py  the images to send
calls.py     the same over gRPC
arrivals.py  the times at which requests are sent
records.py   the results
page.py      the results as a page
run.py       `load_test`
"""
