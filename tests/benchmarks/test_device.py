"""The run that decides on a CUDA device, rehearsed on the CPU."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from benchmarks.device import __main__ as command
from benchmarks.device import beside, rightness, tests
from benchmarks.device.output import cell, print_part, problems
from benchmarks.device.parts import Findings, Part, Place, is_wrong, perform
from benchmarks.device.targets import TARGETS, targets

from benchmarks import stacks
from tombola.runs.outcome import Outcome

CPU = torch.device("cpu")
PLACE = Place(CPU, rehearsal=True, limit=1e6)
ROW = {"what": "copy", "rate": 4.3}


def part_of(*findings: Findings, error: BaseException | None = None, seconds: float = 0.0) -> Part:
    def measure(_: Place) -> Findings:
        if error:
            raise error
        logging.getLogger("tombola.engines").warning("no CUDA graph is used: reason") if not findings else None
        return findings[0] if findings else Findings([ROW])

    return Part("part", "its title", seconds, measure)


def run(**settings: object) -> int:
    with pytest.raises(typer.Exit) as raised:
        command.main(**({"cpu": True, "only": None, "limit": 1e6, "out": None} | settings))  # type: ignore[arg-type]
    return raised.value.exit_code


def test_a_part_gives_its_rows() -> None:
    result = perform(part_of(Findings([ROW])), PLACE)
    assert result["rows"] == [ROW]
    assert not is_wrong(result)
    assert is_wrong(perform(part_of(Findings([ROW], ["it is off"])), PLACE))


@pytest.mark.parametrize("error", [RuntimeError("no kernel image\nmore"), SystemExit("the sides disagree: losses")])
def test_a_part_that_fails_says_so(error: BaseException) -> None:
    result = perform(part_of(error=error), PLACE)
    assert str(error).splitlines()[0] in result["failed"]
    assert "more" not in result["failed"]
    assert any("raise error" in line for line in result["at"])
    assert is_wrong(result)


def test_a_part_is_skipped_without_time_for_it() -> None:
    result = perform(part_of(error=AssertionError(), seconds=20), replace(PLACE, limit=10))
    assert "20 s" in result["skipped"]
    assert not is_wrong(result)


def test_a_warning_that_tombola_logs_is_wrong() -> None:
    assert perform(part_of(), PLACE)["wrong"] == ["no CUDA graph is used: reason"]


def test_results_are_written_after_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "gpu.json"
    seen: list[list[str]] = []

    def measure(_: Place) -> Findings:
        seen.append(list(json.loads(path.read_text())["parts"]) if path.exists() else [])
        return Findings([ROW])

    bad = replace(part_of(error=RuntimeError("bad")), name="bad")
    parts = [Part("first", "", 0, measure), bad, Part("last", "", 0, measure)]
    monkeypatch.setattr(command, "PARTS", parts)
    assert run(out=path) == 1
    assert seen == [[], ["first", "bad"]]
    written = json.loads(path.read_text())
    assert list(written["parts"]) == ["first", "bad", "last"]
    assert written["rehearsal"] is True
    assert written["machine"]["torch"] == torch.__version__
    assert len(written["targets"]) == len(TARGETS)
    monkeypatch.setattr(command, "PARTS", [parts[0]])
    assert run() == 0


def test_a_rehearsal_does_not_replace_the_results_of_a_device(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PARTS", [part_of(Findings([ROW]))])
    monkeypatch.setattr(command, "RESULTS", results)
    assert run() == 0
    assert not results.exists()


def test_an_unknown_part_and_a_missing_device_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(typer.BadParameter, match="agreement"):
        command.main(cpu=True, only=["agrement"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(typer.BadParameter, match="--cpu"):
        command.main(cpu=False)


def test_tables_are_printed_by_the_keys_of_their_rows(capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "title": "[x]",
        "rows": [ROW, {"minutes": 12_345.6, "same": True, "none": None}],
        "wrong": ["it's [off]"],
    }
    print_part("part", result)
    printed = capsys.readouterr().out
    for text in ("[x]", "copy", "4.3", "minutes", "12,346", "yes", "it's [off]"):
        assert text in printed
    assert problems({"skipped": "no time", "wrong": ["a"]}) == ["skipped: no time", "wrong: a"]
    assert [cell(value) for value in (None, False, 1234, 0.012346, "text")] == ["", "no", "1,234", "0.01235", "text"]


def test_targets_are_compared_with_the_best_that_was_measured() -> None:
    speed = [
        {"size": 256, "precision": "fp32", "ratio_to_plain": 120.0, "share_of_bandwidth": 0.4},
        {"size": 256, "precision": "tf32", "ratio_to_plain": 150.0, "share_of_bandwidth": 0.6},
        {"size": 1024, "precision": "fp32", "failed": "out of memory"},
    ]
    release = [
        {"density": 1.0},
        {"precision": "fp32", "all, minutes": 70.0},
        {"precision": "tf32", "all, minutes": 55.0},
    ]
    waits = [{"what": "waits of the host: training", "value": 2, "unit": ""}]
    results = {
        "speed": {"rows": speed},
        "release": {"rows": release},
        "beside": {"rows": waits},
        "hold": {"failed": ""},
    }
    rows = targets(results)
    assert [row["measured"] for row in rows] == [120.0, 0.6, 55.0, 2, None]
    assert [row["reached"] for row in rows] == [True, True, True, False, None]


def test_stacks_agree_and_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rightness.agreement(PLACE).wrong == []
    monkeypatch.setattr(rightness, "BITS", {"dropout": rightness.BITS["dropout"]})
    assert rightness.bits(PLACE).rows == [{"training": "dropout", "again": True, "launched": True, "resumed": True}]


def test_other_bits_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = rightness.train, []

    def drifting(*arguments: object) -> list[Outcome]:
        outcomes = train(*arguments)  # type: ignore[arg-type]
        calls.append(len(arguments))
        if len(calls) == 4:  # the resumed one
            next(iter(outcomes[1].final.values()))[0] += 1e-7
        return outcomes

    monkeypatch.setattr(rightness, "BITS", {"adam": rightness.BITS["adam"]})
    monkeypatch.setattr(rightness, "train", drifting)
    assert rightness.bits(PLACE).wrong == ["adam: resumed differs"]


def test_a_stack_with_other_losses_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    stacked = stacks.stacked
    monkeypatch.setattr(
        stacks, "stacked", lambda runs, *rest: stacked([stacks.made_up_run(seed=9)] * len(runs), *rest)
    )
    wrong = rightness.agreement(PLACE).wrong
    assert any(re.match("stacked training with fp32", line) for line in wrong)
    assert not any(line.startswith("eager") for line in wrong)


def test_a_network_that_cannot_be_stacked_is_wrong_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    some = {name: rightness.NETWORKS[name] for name in ("lenet-5", "vit")}
    monkeypatch.setattr(rightness, "NETWORKS", some)
    row = rightness.network_row

    def refusing(run: stacks.Run, *rest: object) -> object:
        if run.start.network.name == "lenet-5":
            raise RuntimeError("vmap does not support it")
        return row(run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rightness, "network_row", refusing)
    found = rightness.networks(PLACE)
    assert [each["network"] for each in found.rows] == ["vit"]
    assert found.wrong == ["lenet-5: RuntimeError: vmap does not support it"]


def test_graphs_are_not_captured_within() -> None:
    from tombola.engines.stacked import cuda_graph

    before = cuda_graph.WARM_UP_CALLS
    with stacks.without_graphs():
        assert before + 1000 < cuda_graph.WARM_UP_CALLS
    assert before == cuda_graph.WARM_UP_CALLS


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_right"/>
<testcase classname="tests.a" name="test_skipped"><skipped message="no"/></testcase>
<testcase classname="tests.a" name="test_wrong"><failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="" name="tests.b"><error message="collection failure">ImportError</error></testcase>
</testsuite></testsuites>"""


def test_the_report_of_the_tests_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    found = tests.findings(path)
    counts = {row["tests"]: row.get("count") for row in found.rows}
    assert counts == {"passed": 1, "failed": 1, "skipped": 1, "not imported": 1, "not imported: tests.b": None}
    assert found.wrong == ["tests.a::test_wrong: assert 1 == 2"]
    path.write_text("<testsuites/>")
    assert tests.findings(path).wrong == ["no test has passed"]


def test_the_waits_of_the_host_are_counted_by_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def call() -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("another", stacklevel=1)

    (place,) = beside.waits(call)
    assert re.fullmatch(r"test_device\.py:\d+", place)
    assert modes == ["warn", "default"]


@pytest.mark.slow
def test_all_parts_are_rehearsed(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.device", "--cpu", "--out", str(path)], capture_output=True, text=True
    )
    parts = json.loads(path.read_text())["parts"]
    assert list(parts) == command.NAMES
    assert {name: problems(part) for name, part in parts.items() if problems(part)} == {}
    assert ran.returncode == 0
    assert "Targets" in ran.stdout
