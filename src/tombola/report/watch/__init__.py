"""The report of an experiment in a browser, renewed while the experiment runs."""
