"""Slurm's commands, which start processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMANDS = {
    "tombola": f'exec {sys.executable} -m tombola "$@"',
    "ray": f'exec {sys.executable} -c "from ray.scripts.scripts import main; main()" "$@"',
    # Two nodes, which are both this machine.
    "scontrol": "printf 'localhost\\n127.0.0.1\\n'",
    "srun": """
echo "$@" >> "$FAKE_SLURM/srun"
while [[ "$1" == -* ]]; do shift; done
exec "$@"
""",
    # Tasks of an array run at the same time; other jobs when they are submitted, after those they depend on.
    "sbatch": """
echo "$@" >> "$FAKE_SLURM/sbatch"
export SLURM_CPUS_PER_TASK=1
while [[ "$1" == -* ]]; do
    case "$1" in --array=1-*) count=${1#--array=1-} ;; esac
    shift
done
if [ -z "${count:-}" ]; then bash "$@" > "$FAKE_SLURM/whole.out"; fi
for ((task = 1; task <= ${count:-0}; task++)); do
    SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$count bash "$@" > "$FAKE_SLURM/$task.out" &
done
wait
echo "17;cluster"
""",
}


@dataclass(frozen=True)
class Slurm:
    """Its commands, and what they were given."""

    folder: Path

    @classmethod
    def install(cls, folder: Path) -> Slurm:
        for name, lines in COMMANDS.items():
            command = folder / "bin" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(f"#!/bin/bash\n{lines}\n")
            command.chmod(0o755)
        return cls(folder)

    def run(self, script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script that finds these commands."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "FAKE_SLURM": str(self.folder)} | variables
        command = ["bash", str(script), *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)

    def calls(self, command: str) -> list[str]:
        """The arguments of all calls of `command`, one line each."""
        return (self.folder / command).read_text().splitlines()

    def output(self, job: str) -> str:
        """What a task of an array, or the job "whole", has printed."""
        return (self.folder / f"{job}.out").read_text()
