"""scripts/runpod.sh, run in a scratch directory laid out like RunPod's PyTorch template, in that template's start order.

Stand-ins on PATH take the places of pip, nvidia-smi and runpodctl; bash, venv, flock and setsid are real. A real pod, with
a real pip and a GPU, was not used.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(
    not (shutil.which("flock") and shutil.which("setsid")), reason="the script is for Linux: flock and setsid are not here"
)

#: The template's start.sh, what matters of it: hooks around Jupyter, set -e, and which variables SSH sessions get.
START = r"""
set -e
execute_script() { if [ -f "$1" ]; then bash "$1"; fi; }
execute_script "$ROOT/pre_start.sh"
printenv | cut -d = -f 1 >"$ROOT/jupyter-variables"  # Jupyter starts here, with all the pod's variables
printenv | grep -E '^RUNPOD_|^PATH=|^_=' | awk -F = '{ print "export " $1 "=\"" $2 "\"" }' >>"$ROOT/rp_environment"
execute_script "$ROOT/post_start.sh"
echo "Start script(s) finished, Pod is ready to use."
"""
#: Stands in for the package: a doctor, and a training that tells a secret, waits for a file, and leaves a result.
PACKAGE = r"""
import os, pathlib, sys, time
root = pathlib.Path(os.environ["ROOT"])
print("rlvr", *sys.argv[1:], "token", os.environ.get("HF_TOKEN", "none"), flush=True)
if sys.argv[1] == "doctor":
    sys.exit((root / "ill").exists())
while not (root / "go-on").exists():
    time.sleep(0.05)
pathlib.Path("runs/result").write_text("learned")
sys.exit((root / "crash").exists())
"""
TOKEN = "hf_" + "SecretSecretSecretSecret"


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Pod:
    """The scratch pod: a volume that is kept, and a container disk (home, hooks) that a restart wipes."""

    def __init__(self, root: Path):
        self.root, self.volume, self.course = root, root / "workspace", root / "workspace" / "rlvr-course"
        self.commands, self.image = root / "bin", root / "image-packages"
        for folder in (self.course / "scripts", self.course / "rlvr_utils", self.commands, root / "home"):
            folder.mkdir(parents=True)
        for name in ("requirements.lock", "pyproject.toml", "scripts/runpod.sh"):
            shutil.copy(REPO / name, self.course / name)
        (self.course / "rlvr_utils" / "__init__.py").touch()
        (self.course / "rlvr_utils" / "__main__.py").write_text(PACKAGE)
        self.install("torch", "2.8.0+cu128")
        executable(self.commands / "python3", f'exec "{sys._base_executable}" "$@"')
        executable(
            self.commands / "pip",
            f'echo "$@" >>"{root}/pip.log"; while [ -f "{root}/pip-waits" ]; do sleep 0.05; '
            f'done; [ ! -f "{root}/pip-fails" ]',
        )
        executable(self.commands / "nvidia-smi", 'echo "NVIDIA H100 80GB HBM3, 81559 MiB"')
        executable(self.commands / "runpodctl", f'echo "$@" >>"{root}/runpodctl.log"')

    def install(self, name: str, version: str) -> None:
        """What the image brings, as Python sees it: a module and its metadata."""
        shutil.rmtree(self.image, ignore_errors=True)
        (self.image / name).mkdir(parents=True)
        (self.image / name / "__init__.py").touch()
        about = self.image / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.commands}:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "ROOT": str(self.root),
            "RP_WORKSPACE": str(self.volume),
            "RP_ENVIRONMENT": str(self.root / "rp_environment"),
            "PYTHONPATH": str(self.image),
            "RUNPOD_POD_ID": "pod123",
            "HF_TOKEN": TOKEN,
            "RLVR_SOON": "0",
            "HF_HOME": str(self.volume / ".cache" / "huggingface"),
        }

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        script = self.course / "scripts" / "runpod.sh"
        return subprocess.run(
            ["bash", str(script), *words],
            env=self.environment | variables,
            text=True,
            timeout=300,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def start(self, hook: str) -> str:
        """Start the pod as the template does, with ``hook`` as its /post_start.sh."""
        (self.root / "post_start.sh").write_text(hook)
        made = subprocess.run(
            ["bash", "-c", START],
            env=self.environment,
            text=True,
            timeout=300,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return made.stdout

    def restart(self) -> None:
        """Lose what a stopped pod loses."""
        shutil.rmtree(self.root / "home")
        (self.root / "home").mkdir()
        (self.root / "rp_environment").unlink()

    def wait_until_free(self) -> None:
        """Until nothing holds the lock any more."""
        subprocess.run(["flock", "--timeout", "60", self.course / "runs" / "training.lock", "true"], check=True)

    def read(self, name: str) -> str:
        return (self.root / name).read_text() if (self.root / name).is_file() else ""

    def in_the_background(self, *words: str) -> subprocess.Popen:
        """A call in another terminal, as far as its set-up, where it waits until ``pip-waits`` is gone."""
        (self.root / "pip-waits").touch()
        script = str(self.course / "scripts" / "runpod.sh")
        call = subprocess.Popen(
            ["bash", script, *words], env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        until = time.monotonic() + 60
        while not self.read("pip.log") and time.monotonic() < until:
            time.sleep(0.05)
        return call

    def is_stopped(self, seconds: float = 60) -> bool:
        """Whether the pod has been stopped, by then."""
        until = time.monotonic() + seconds
        while not self.read("runpodctl.log") and time.monotonic() < until:
            time.sleep(0.05)
        return self.read("runpodctl.log") == "stop pod pod123\n"

    @property
    def log(self) -> str:
        return self.read("workspace/rlvr-course/runs/training.log")

    def wait_for(self, sign: str, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while sign not in self.log:
            assert time.monotonic() < until, f"no {sign!r} in the log: {self.log}"
            time.sleep(0.05)

    def wait_until_nothing_runs(self, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while (self.course / "runs" / "training.pid").exists() and time.monotonic() < until:
            time.sleep(0.05)


@pytest.fixture
def pod(tmp_path: Path):
    pod = Pod(tmp_path)
    yield pod
    (tmp_path / "go-on").touch()  # let a training that still waits come to its end
    if pod.log:
        pod.wait_for("ended with status")


def test_a_start_makes_the_environment_once_and_the_kernel_each_time(pod: Pod) -> None:
    hook = f'bash "{pod.course}/scripts/runpod.sh" || true'
    first = pod.start(hook)
    assert "Making the environment" in first and "Pod is ready to use" in first
    installed = pod.read("pip.log")
    pod.restart()
    second = pod.start(hook)
    assert "is ready." in second and "Making" not in second and pod.read("pip.log") == installed, "nothing twice"
    for name in ("rlvr", "python3"):
        kernel = json.loads(pod.read(f"home/.local/share/jupyter/kernels/{name}/kernel.json"))
        assert kernel["argv"][0] == str(pod.volume / "rlvr-env" / "bin" / "python")
        assert kernel["env"]["HF_HOME"] == str(pod.volume / ".cache" / "huggingface")


def test_the_images_own_pytorch_is_kept(pod: Pod) -> None:
    assert pod.run().returncode == 0
    lock, package = pod.read("pip.log").splitlines()
    assert "--no-deps" in package and str(pod.course) in package
    wanted = (pod.volume / "rlvr-env" / "requirements.txt").read_text().splitlines()
    assert f"-r {pod.volume}/rlvr-env/requirements.txt" in lock
    assert not [line for line in wanted if line.startswith("torch==")] and "trl==1.16.0" in wanted
    assert (pod.volume / "rlvr-env" / "constraints.txt").read_text() == "torch==2.8.0+cu128\n"
    seen = subprocess.run(
        [pod.volume / "rlvr-env/bin/python", "-c", "import torch; print(torch.__file__)"],
        text=True,
        env=pod.environment,
        capture_output=True,
        check=True,
    )
    assert str(pod.image) in seen.stdout


def test_vllm_comes_first_brings_its_own_and_is_remembered(pod: Pod) -> None:
    assert pod.run("--vllm").returncode == 0
    installed, wanted = pod.read("pip.log"), (pod.volume / "rlvr-env" / "requirements.txt").read_text().splitlines()
    assert len(installed.splitlines()) == 2, "one resolution, and the course itself"
    assert {"vllm>=0.28,<=0.30", "trl==1.16.0", "torch>=2.8", "trl>=1.16,<1.17", "jupyterlab>=4.4"} <= set(wanted)
    assert not [line for line in wanted if line.startswith(("lark", "protobuf", "setuptools"))], "vLLM's own wishes"
    assert (pod.volume / "rlvr-env" / "constraints.txt").read_text() == "", "PyTorch is the one that vLLM was built for"
    assert "is ready." in pod.run().stdout and pod.read("pip.log") == installed


def test_an_environment_that_was_cut_off_or_made_for_another_image_is_made_again(pod: Pod) -> None:
    (pod.root / "pip-fails").touch()
    assert pod.run().returncode != 0
    (pod.root / "pip-fails").unlink()
    assert "Making the environment" in pod.run().stdout
    pod.install("torch", "2.9.0+cu128")
    assert "Making the environment" in pod.run().stdout
    assert "is ready." in pod.run().stdout


def test_training_outlives_the_terminal_starts_once_and_stops_the_pod(pod: Pod) -> None:
    started = pod.run("train", "--stop", "--set", "max_steps=7")
    assert started.returncode == 0 and "NVIDIA H100" in started.stdout and "running in the background" in started.stdout
    assert "rlvr doctor --profile llama-8b --set max_steps=7" in started.stdout
    pod.wait_for("rlvr train --profile llama-8b --set max_steps=7 token")
    again = pod.run("train", "--stop")
    assert again.returncode == 0 and "already running" in again.stdout and pod.log.count("rlvr train --p") == 2
    assert "Training is running. The pod stops" in pod.run("status").stdout and not pod.read("runpodctl.log")
    (pod.root / "go-on").touch()
    pod.wait_for("ended with status 0")
    until = time.monotonic() + 60
    while not pod.read("runpodctl.log") and time.monotonic() < until:
        time.sleep(0.05)
    assert pod.read("runpodctl.log") == "stop pod pod123\n"
    assert pod.read("workspace/rlvr-course/runs/result") == "learned"


def test_a_crash_is_told_and_stops_the_pod_only_if_asked(pod: Pod) -> None:
    for file in ("go-on", "crash"):
        (pod.root / file).touch()
    (pod.course / "my.yaml").write_text("profile: llama-8b\n")
    assert pod.run("train", "--config", "my.yaml").returncode == 0
    pod.wait_for("ended with status 1")
    assert "rlvr train --config my.yaml" in pod.log and "--profile" not in pod.log
    assert "No training is running." in pod.run("status").stdout
    assert pod.read("runpodctl.log") == ""


def test_a_going_training_keeps_its_environment_and_may_be_told_to_stop_the_pod(pod: Pod) -> None:
    assert pod.run("train", "--vllm").returncode == 0
    pod.wait_for("rlvr train --profile llama-8b token")
    installed, mark = pod.read("pip.log"), pod.volume / "rlvr-env" / "mark"
    mark.touch()
    (pod.course / "requirements.lock").write_text("trl==9.9\n")  # as after a git pull
    for words in ((), ("--vllm",), ("train",), ("doctor",), ("train", "--stop")):
        said = pod.run(*words)
        assert said.returncode == 0 and "already running" in said.stdout
    assert mark.exists() and pod.read("pip.log") == installed
    (pod.root / "go-on").touch()
    pod.wait_for("ended with status 0")
    until = time.monotonic() + 60
    while not pod.read("runpodctl.log") and time.monotonic() < until:
        time.sleep(0.05)
    assert pod.read("runpodctl.log") == "stop pod pod123\n", "the last call asked for it"


def test_a_training_can_be_ended_without_the_pod(pod: Pod) -> None:
    assert "No training is running." in pod.run("stop").stdout
    assert pod.run("train", "--stop").returncode == 0
    pod.wait_for("rlvr train --profile llama-8b token")
    assert "continues from its last checkpoint" in pod.run("stop").stdout
    until = time.monotonic() + 60
    while "No training" not in pod.run("status").stdout and time.monotonic() < until:
        time.sleep(0.05)
    assert "No training is running." in pod.run("status").stdout and not pod.read("runpodctl.log")
    (pod.course / "runs" / "training.log").unlink()  # nothing more will come


def test_a_pod_is_stopped_after_an_early_end_too_unless_somebody_says_stop_meanwhile(pod: Pod) -> None:
    (pod.root / "go-on").touch()
    assert pod.run("train", "--stop", RLVR_SOON="2").returncode == 0
    pod.wait_for("stays on for 2 s")
    assert pod.is_stopped()
    (pod.root / "runpodctl.log").unlink()
    pod.wait_until_free()
    assert pod.run("train", "--stop", RLVR_SOON="600").returncode == 0
    pod.wait_for("stays on for 600 s")
    assert "Training is stopped" in pod.run("stop").stdout
    assert "No training is running." in pod.run("status").stdout and not pod.read("runpodctl.log")
    (pod.commands / "runpodctl").unlink()
    missing = pod.run("train", "--stop")
    assert missing.returncode == 1 and "--stop needs runpodctl" in missing.stdout


@pytest.mark.parametrize("end", ["crash", "full disk", "killed"])
def test_a_pod_is_stopped_in_every_end(pod: Pod, end: str) -> None:
    if end == "crash":
        (pod.root / "crash").touch()
    if end == "full disk":
        (pod.course / "runs").mkdir()
        (pod.course / "runs" / "training.log").symlink_to("/dev/full")
    assert pod.run("train", "--stop").returncode == 0
    if end == "killed":
        pod.wait_for("rlvr train --profile llama-8b token")
        subprocess.run(["pkill", "-KILL", "-g", pod.read("workspace/rlvr-course/runs/training.pid").strip(), "python"])
    (pod.root / "go-on").touch()
    assert pod.is_stopped()
    pod.wait_until_free()


def test_a_signal_to_its_shell_alone_does_not_stop_the_pod_under_a_training(pod: Pod) -> None:
    assert pod.run("train", "--stop").returncode == 0
    pod.wait_for("rlvr train --profile llama-8b token")
    os.kill(int(pod.read("workspace/rlvr-course/runs/training.pid")), signal.SIGTERM)
    assert not pod.is_stopped(1) and "Training is running." in pod.run("status").stdout
    (pod.root / "go-on").touch()
    assert pod.is_stopped()


@pytest.mark.parametrize("held_by", ["setup", "doctor", "train"])
def test_stop_kills_nothing_but_our_own_training(pod: Pod, held_by: str) -> None:
    """A number in the file is somebody else's after a restart of the pod: here that of an innocent process group."""
    innocent = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        (pod.course / "runs").mkdir()
        (pod.course / "runs" / "training.pid").write_text(f"{innocent.pid}\n")
        assert "No training is running." in pod.run("stop").stdout and innocent.poll() is None
        setting_up = pod.in_the_background(held_by)
        assert f"`{held_by}` is setting up" in pod.run("status").stdout
        assert "only a setup or check" in pod.run("stop").stdout
        assert innocent.poll() is None and setting_up.poll() is None
        (pod.root / "pip-waits").unlink()
        assert setting_up.wait(60) == 0
    finally:
        innocent.kill()


def test_a_stop_asked_for_during_the_set_up_is_kept(pod: Pod) -> None:
    setting_up = pod.in_the_background("train")
    asked = pod.run("train", "--stop")
    assert asked.returncode == 0 and "`train` is setting up. The pod stops when it ends." in asked.stdout
    for file in ("pip-waits", "go-on"):
        (pod.root / file).unlink() if file == "pip-waits" else (pod.root / file).touch()
    assert setting_up.wait(60) == 0 and pod.is_stopped()


def test_a_training_is_not_taken_for_started_where_only_a_set_up_is_going(pod: Pod) -> None:
    setting_up = pod.in_the_background("doctor")
    refused = pod.run("train", "--stop")
    assert refused.returncode == 1 and "Run this command again" in refused.stdout
    (pod.root / "pip-waits").unlink()
    assert setting_up.wait(60) == 0 and not (pod.course / "runs" / "stop-the-pod").exists()


@pytest.mark.parametrize("watched", [True, False])
def test_a_training_that_cannot_start_stops_a_pod_that_nobody_watches(pod: Pod, watched: bool) -> None:
    (pod.root / "ill").touch()
    call = ["bash", str(pod.course / "scripts" / "runpod.sh"), "train", "--stop"]
    terminal, theirs = os.openpty()
    said = subprocess.run(
        call, env=pod.environment, stdout=theirs if watched else subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=120
    )
    os.close(theirs)
    os.close(terminal)
    assert said.returncode == 1 and pod.is_stopped(1) == (not watched)
    assert not (pod.course / "runs" / "stop-the-pod").exists()


def test_a_training_starts_from_any_directory(pod: Pod) -> None:
    (pod.root / "go-on").touch()
    subprocess.run(
        ["bash", "rlvr-course/scripts/runpod.sh", "train"],
        cwd=pod.volume,
        env=pod.environment,
        timeout=120,
        stdout=subprocess.DEVNULL,
    )
    pod.wait_for("ended with status 0")


def test_a_file_of_settings_means_the_8b_unless_it_names_a_profile(pod: Pod) -> None:
    (pod.course / "my.yaml").write_text("learning_rate: 2e-5\n")
    assert (
        "rlvr doctor --profile llama-8b --config my.yaml --dollars-per-hour 2"
        in pod.run("doctor", "--config", "my.yaml", "--dollars-per-hour", "2").stdout
    )
    (pod.course / "my.yaml").write_text("profile: small-gpu\n")
    assert "rlvr doctor --config=my.yaml" in pod.run("doctor", "--config=my.yaml").stdout


def test_no_secret_is_written_anywhere(pod: Pod) -> None:
    (pod.root / "go-on").touch()
    assert pod.run("train").returncode == 0
    pod.wait_for("ended with status 0")
    assert "token ***" in pod.log
    pod.wait_until_nothing_runs()
    files = [file for file in pod.root.rglob("*") if file.is_file() and file.stat().st_size < 10**6]
    assert [str(file) for file in files if TOKEN in file.read_text(errors="ignore")] == []
    assert (pod.course / "runs" / "training.log").stat().st_mode & 0o077 == 0, "nobody else may read it"


def test_what_is_wrong_is_said_before_anything_starts(pod: Pod) -> None:
    (pod.root / "ill").touch()
    ill = pod.run("train")
    assert ill.returncode == 1 and "training was not started" in ill.stdout and not pod.log
    executable(pod.commands / "nvidia-smi", "exit 9")
    assert "nvidia-smi finds none" in pod.run("train").stdout
    assert "no command 'trian'" in pod.run("trian").stdout
    assert "status    " in pod.run("train", "--help").stdout and not pod.log
    pod.install("torch", "2.6.0+cu124")
    assert "no PyTorch 2.8 or newer" in pod.run().stdout
    assert "There is no volume at" in pod.run(RP_WORKSPACE=str(pod.root / "none")).stdout
    elsewhere = pod.run(RP_WORKSPACE=str(pod.root / "home"))
    assert elsewhere.returncode == 1 and "is lost when the pod stops" in elsewhere.stdout


def test_an_ssh_session_finds_the_pods_number(pod: Pod) -> None:
    (pod.root / "go-on").touch()
    (pod.root / "rp_environment").write_text(f'export RUNPOD_POD_ID="pod456"\nexport PATH="{os.environ["PATH"]}"\n')
    (pod.root / "rp_environment").write_text('export RUNPOD_POD_ID="pod456"\n')
    assert pod.run("train", "--stop", RUNPOD_POD_ID="").returncode == 0
    pod.wait_for("ended with status 0")
    until = time.monotonic() + 60
    while not pod.read("runpodctl.log") and time.monotonic() < until:
        time.sleep(0.05)
    assert pod.read("runpodctl.log") == "stop pod pod456\n"


@pytest.mark.parametrize(("cuda", "fits"), [("12.8", False), ("13.0", True), ("14.1", True)])
def test_vllm_is_not_installed_under_a_driver_that_is_too_old(pod: Pod, cuda: str, fits: bool) -> None:
    executable(pod.commands / "nvidia-smi", f'echo "| NVIDIA-SMI 570.1  Driver Version: 570.1  CUDA Version: {cuda}  |"')
    done = pod.run("--vllm")
    assert (done.returncode == 0) is fits
    if not fits:
        assert "driver for CUDA 13.0 or newer" in done.stdout and not (pod.volume / "rlvr-env" / "bin").exists()
    assert pod.run().returncode == 0, "without vLLM every driver will do"
