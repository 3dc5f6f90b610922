"""The archive in a browser, for reading only: `bench serve`.

    server.py   the socket, the life of the process
    access.py   who may ask: Host, token, cookie, origin; the headers of every answer
    app.py      which path is which page
    jobs.py     what takes long runs in a process of its own (worker.py), bounded and killed in time
    runs.py     the list of runs, and one run's trials
    trial.py    one trial: its findings, its provenance, the end of its log
    live.py     a run that goes on, from the journals of its open trials

Starlette and uvicorn are imported nowhere else.
"""
