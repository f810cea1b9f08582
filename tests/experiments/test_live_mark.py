"""Whether an experiment is under way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.experiments import simulate
from tests.support.recipes import tiny
from tombola.experiments.live_mark import MARK, LiveMark, is_marked
from tombola.studies.conductor import Listener

HOLD = """import sys
from pathlib import Path
from tombola.experiments.live_mark import LiveMark
mark = LiveMark(Path(sys.argv[1]))
print("marked", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_marked_until_its_process_ends(tmp_path: Path) -> None:
    assert not is_marked(tmp_path)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"marked"
        assert is_marked(tmp_path)
        second = LiveMark(tmp_path)
        second.remove()
        assert is_marked(tmp_path)
        process.kill()
        process.wait()
    assert (tmp_path / MARK).exists()
    assert not is_marked(tmp_path)
    third = LiveMark(tmp_path)
    assert is_marked(tmp_path)
    third.remove()
    assert not (tmp_path / MARK).exists()


def test_a_folder_that_cannot_be_locked_is_not_marked(tmp_path: Path) -> None:
    (tmp_path / MARK).mkdir()
    LiveMark(tmp_path).remove()
    assert not is_marked(tmp_path)


@pytest.mark.parametrize("stop_after", [None, 3])
def test_an_experiment_marks_its_folder_while_it_runs(tmp_path: Path, stop_after: int | None) -> None:
    seen: set[bool] = set()

    class Look(Listener):
        def answered(self, *_: object) -> None:
            seen.add(is_marked(tmp_path / "out"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.experiments.Recorder.started", Look.answered)
        if stop_after is None:
            simulate(tiny(), tmp_path)
        else:
            with pytest.raises(KeyboardInterrupt):
                simulate(tiny(), tmp_path, stop_after)
    assert seen == {True}
    assert not is_marked(tmp_path / "out")
    assert not (tmp_path / "out" / MARK).exists()
