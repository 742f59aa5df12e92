"""The pure part of the server: commands and times go in, effects come out; no I/O, no clock.

core.py        the whole of it, as one value that the shell steps
model/         what there is; it changes only by what is in verbs/
durable/       what of it is in the log, in memory no more, or written again
verbs/         what is done to it
replay.py returning.py     from the records of a log back to it, and what a start holds back
"""
