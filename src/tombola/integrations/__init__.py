"""Callbacks and loggers for other frameworks. Each needs an extra, and is imported only on request."""
