"""One run that shows whether everything is right on a CUDA device, and how fast: `python -m benchmarks.device`."""
