"""Watching a run from elsewhere: live metrics for Prometheus, and word of how it ended.

metrics.py    every metric with its labels and meaning
board.py      what is known of the run that goes on, told by the run itself
journals.py   what only the rows tell: latencies, collections, what the collector has written
exposition.py board and journals as samples of those metrics
endpoint.py   the server that answers a scraper
setup.py      what Prometheus and Grafana need: scrape configuration, alerts, dashboard
targets.py    who is to be told, from the command line, a file or the environment
notify.py     the words, and sending them in time (courier.py, a process of its own)
"""
