"""Files for releases and contributors name what exists: versions, targets of make, tools, commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import tombola
from tests.support.lowest_versions import lowest_versions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = {
    name
    for line in re.findall(r"^(?:\.PHONY:)(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for name in line.split()
}


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def workflow_jobs() -> list[tuple[str, dict[str, Any]]]:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    return [(f"{path.name}: {name}", job) for path in workflows for name, job in read_yaml(path)["jobs"].items()]


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(job["steps"])


def test_there_is_one_version() -> None:
    assert tombola.__version__ == PROJECT["version"] == read_yaml("CITATION.cff")["version"]


def test_the_citation_has_the_fields_that_its_format_requires() -> None:
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["license"] == PROJECT["license"]


def test_workflows_call_targets_that_exist() -> None:
    called: set[str] = set()
    for _, job in workflow_jobs():
        commands = " ".join(step.get("run", "") for step in steps(job))
        for each in job.get("strategy", {}).get("matrix", {}).get("include", []):
            called |= {each["target"]} if "target" in each else set()
        called |= set(re.findall(r"\bmake ([a-z][a-z-]*)", commands))
    assert {"test", "test-portable", "test-lowest", "test-newest", "build"} <= called <= TARGETS


def test_actions_are_pinned_and_jobs_end() -> None:
    for name, job in workflow_jobs():
        assert job["timeout-minutes"] > 0, name
        used = [step["uses"] for step in steps(job) if "uses" in step]
        assert used, name
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@(release/)?v\d+", each) for each in used), used


def test_only_the_upload_gets_a_token() -> None:
    allowed = [name for name, job in workflow_jobs() if job.get("permissions")]
    assert allowed == ["release.yml: publish"]


def test_contributors_are_told_targets_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) <= TARGETS


@pytest.mark.parametrize("name", ["bug_report.yml", "question.yml"])
def test_issues_ask_for_the_output_of_the_doctor(name: str) -> None:
    template = read_yaml(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= set(template)
    fields = {each["id"]: each for each in template["body"]}
    assert "tombola doctor" in fields["doctor"]["attributes"]["label"]


def test_questions_are_directed_to_the_documentation() -> None:
    (link,) = read_yaml(".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    assert link["url"] == PROJECT["urls"]["Documentation"]


def test_hooks_use_the_versions_of_the_virtual_environment() -> None:
    (local, _) = read_yaml(".pre-commit-config.yaml")["repos"]
    tools = {hook["entry"].split()[0] for hook in local["hooks"]}
    assert tools == {".venv/bin/ruff", ".venv/bin/mypy"}


def test_every_library_has_a_lowest_version() -> None:
    lowest = [Requirement(line) for line in lowest_versions(["torch==2.13.0"])]
    assert {each.name for each in lowest} == {
        requirement.name
        for requirement in map(Requirement, PROJECT["dependencies"])
        if requirement.marker is None or requirement.marker.evaluate()
    }
    assert "torch==2.13.0" in map(str, lowest)


def test_the_versions_of_the_lock_file_are_supported() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    locked = {each.name.lower().replace("_", "-"): each for each in map(Requirement, lines[1:])}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        version = Version(str(locked[requirement.name].specifier).removeprefix("=="))
        assert version in requirement.specifier, requirement.name
