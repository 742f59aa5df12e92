"""The process around a worker of `minibroker worker`: loading the app, signals, lines, health, supervision.

loading.py     finds `module:app`
lines.py       what a worker says, as text or JSON
single.py      one process that works
"""
