"""Triton kernels of the stacked engine. Import them only where `triton_support.triton_usable` says so."""
