"""Compiled arithmetic on a CPU, one family for training and for inference. Nothing here knows of runs or files."""
