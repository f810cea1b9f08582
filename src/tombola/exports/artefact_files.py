"""The file names of artefacts, which the command line knows without importing what makes the files."""

from __future__ import annotations

FILES = {
    "ticket": "ticket.safetensors",
    "compact": "compact.safetensors",
    "exported": "compact.pt2",
    "onnx": "compact.onnx",
    "int8": "compact-int8.onnx",
    "sparse": "sparse.safetensors",
    "csr": "csr.npz",
    "two-four": "two-four.safetensors",
}
"""The file of each of the `ARTEFACTS`."""
