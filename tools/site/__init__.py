"""The documentation site: `python -m tools.site` builds it from docs/, the package's docstrings and its models."""
