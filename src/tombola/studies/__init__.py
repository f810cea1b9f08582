"""Studies ask: the science, as plain generators that request training runs and receive their outcomes.

A study knows nothing of devices, files, threads or progress. It yields one `RunRequest` and is sent its `Outcome`, or
yields a list of them and is sent the list of outcomes; the conductor may answer them in any order.
"""
