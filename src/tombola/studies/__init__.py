"""Studies: experiments as generators, which yield requests for training runs and are sent their outcomes.

A study is independent of devices, files, threads and progress displays. It yields a `RunRequest` and is sent its
`Outcome`, or yields a list of requests and is sent a list; the conductor may train the runs in any order.
"""
