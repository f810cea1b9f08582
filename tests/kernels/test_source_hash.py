from __future__ import annotations

import subprocess
import sys


def test_a_process_that_has_imported_nothing_can_hash() -> None:
    """Importing a kernel module hashes it, within a hash that imports it."""
    code = "from tombola.engines.sparse.speeds import versions; print(versions())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "kernels " in found.stdout
