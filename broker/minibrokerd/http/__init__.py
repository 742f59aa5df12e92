"""The HTTP port: what a browser, curl or Prometheus asks the broker; no client of queues comes here.

    options.py     what `serve` was asked for, and the sockets, bound before the log opens
    port.py        uvicorn in the broker's own loop; its failure is a line in the log, never the broker's end
    subject.py     the broker as it is seen from here
    gate.py        who asks, from where, and whether he may: the only place that decides it
    routes.py      the table of all paths, each with what it needs
    families.py    the table of all metrics; exposition.py writes them in the format that was asked for,
    portion.py     what they say of some queues
    talkers.py     totals of sessions and consumers, in a bounded number of lines
    requests.py    one request of the API; shapes.py has what it takes and gives, openapi.py describes that
    queues.py messages.py deadletters.py sessions.py recent.py survey.py live.py   who answers
    near.py        clients in this process: what changes something goes their way
    pages.py       the page: templates/ and static/; signing.py lets a browser in

Nothing here is imported before the broker listens, so that it starts as fast, and as small, without HTTP.
"""
