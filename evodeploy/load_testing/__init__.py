"""How a server answers under load: requests at times that do not depend on its answers.

target.py    what is asked, and one connection that asks
pictures.py  the pictures that are sent
calls.py     the same by gRPC
arrivals.py  when it is asked
records.py   what was answered
page.py      the same as a page
run.py       `load_test`
"""
