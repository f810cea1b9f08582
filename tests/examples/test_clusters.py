"""The files for batch systems and clouds in examples/clusters."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import typer

from tests.support.command_line import tombola
from tests.support.recipes import tiny
from tests.support.result_files import result_files
from tests.support.slurm import Slurm
from tombola.cli import app

FOLDER = Path(__file__).parents[2] / "examples" / "clusters"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
OPTIONS = ["--engine", "eager", "--no-report"]


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    """In a folder that has the recipe `tiny.toml`."""
    recipe = tiny(training__length="20it", search__levels=1, controls__reinit=1)
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(recipe.resolved()))
    return Slurm.install(tmp_path)


def local_results(folder: Path) -> dict[str, bytes]:
    places = ["--out", str(folder / "local"), "--store", str(folder / "local.store")]
    ran = tombola("run", str(folder / "tiny.toml"), *places, "--workers", "1", *OPTIONS)
    assert ran.exit_code == 0, ran.stderr
    return result_files(folder / "local")


def test_the_parts_of_a_job_array_and_the_job_after_them_give_the_results_of_one_process(slurm: Slurm) -> None:
    ran = slurm.run(FOLDER / "slurm_array.sh", "2", "tiny.toml", "--out", "out", *OPTIONS)
    assert ran.returncode == 0, ran.stderr
    array, last = slurm.calls("sbatch")
    assert "--array=1-2" in array.split()
    assert "--dependency=afterany:17" in last.split()
    for task in "12":
        assert f"3 runs trained, 0 from the store. This is part {task}/2" in slurm.output(task)
    assert "all 6 runs came from the store" in slurm.output("whole")
    assert result_files(slurm.folder / "out") == local_results(slurm.folder)


def test_a_ray_cluster_inside_an_allocation_gives_the_results_of_one_process(slurm: Slurm) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    ran = slurm.run(
        FOLDER / "slurm_ray.sh",
        *("tiny.toml", "--out", "out", *OPTIONS),
        SLURM_JOB_ID="4711",
        SLURM_JOB_NODELIST="node[1-2]",
        SLURM_CPUS_PER_TASK="1",
        RAY_START_OPTIONS="--object-store-memory=80000000",
    )
    logs = [path.read_text() for path in slurm.folder.glob("ray-4711-*.log")]
    assert ran.returncode == 0, (ran.stderr, logs)
    head, worker = slurm.calls("srun")
    assert "--nodelist=localhost ray start" in head
    assert "--head --port=24711" in head
    assert "--nodelist=127.0.0.1 ray start" in worker
    assert "--address=localhost:24711" in worker
    assert "6 runs trained" in ran.stdout
    assert result_files(slurm.folder / "out") == local_results(slurm.folder)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_and_say_what_they_need(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text()
    assert re.search(r"^#SBATCH --time=", text, re.M)
    assert re.search(r"^#SBATCH --cpus-per-task=", text, re.M)
    assert "set -euo pipefail" in text


def commands(path: Path) -> list[list[str]]:
    """The arguments of the calls of tombola in a file, with a recipe's name for those of the user."""
    text = path.read_text()
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return [shlex.split(line) for line in re.findall(r"tombola (run [^\n\"`]*--[^\n\"`]*)", text)]


VARIABLES = {'"$@"': "digits", '"$SLURM_CPUS_PER_TASK"': "8", '"${part[@]}"': "--part 1/8"}
FILES = [path for path in sorted(FOLDER.iterdir()) if path.name != "Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_their_commands_are_commands_with_such_options(path: Path) -> None:
    run: Any = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    assert commands(path)
    for _, *arguments in commands(path):
        assert "$" not in "".join(arguments)
        run.make_context("run", arguments)  # raises for other options


def documents(name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_the_file_for_amazon_is_what_the_cluster_launcher_expects() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    (cluster,) = documents("ray_cluster.yaml")
    full = util.prepare_config(cluster)
    util.validate_config(full)
    workers = full["available_node_types"]["spot_worker"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert workers["max_workers"] == full["max_workers"]
    assert full["available_node_types"][full["head_node_type"]]["resources"] == {"CPU": 0}
    assert any("--autoscaling-config" in command for command in full["head_start_ray_commands"])
    assert any("$RAY_HEAD_IP" in command for command in full["worker_start_ray_commands"])


def test_the_file_for_kubernetes_has_what_kuberay_requires() -> None:
    claim, job = documents("kuberay.yaml")
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    pods = [head["template"]["spec"], workers["template"]["spec"]]
    images = [container["image"] for pod in pods for container in pod["containers"]]
    assert len(images) == 2
    assert len(set(images)) == 1
    assert head["rayStartParams"] == {"num-cpus": "0"}  # strings, as in a command
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert workers["groupName"]
    for pod in pods:
        limits = pod["containers"][0]["resources"]["limits"]
        assert limits["memory"].endswith("Gi")
        assert int(limits["cpu"]) >= 2
    (mount,) = pods[0]["containers"][0]["volumeMounts"]
    (volume,) = pods[0]["volumes"]
    assert mount["name"] == volume["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert f"--out {mount['mountPath']}/" in job["spec"]["entrypoint"]


def test_all_files_name_the_same_version_of_ray() -> None:
    texts = [(FOLDER / name).read_text() for name in ("Dockerfile", "kuberay.yaml", "ray_cluster.yaml")]
    versions = [re.findall(r"(?:ray:|ray==|rayVersion: \")(\d+\.\d+\.\d+)", text) for text in texts]
    assert all(versions)
    assert len({version for each in versions for version in each}) == 1


def test_every_file_is_documented() -> None:
    text = (FOLDER.parents[1] / "docs/how-to/clusters.md").read_text()
    for path in FOLDER.iterdir():
        assert f"../examples/clusters/{path.name}" in text
