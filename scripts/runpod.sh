#!/usr/bin/env bash
# The course on a rented GPU: from RunPod's official PyTorch template (Jupyter) to a training that needs no browser.
#
#   bash scripts/runpod.sh [--vllm]                        environment on the volume, kernel for the notebooks
#   bash scripts/runpod.sh train [--vllm] [--stop] [...]   the same, a pre-flight, then the training, detached
#   bash scripts/runpod.sh status                          is it going, and what did it say last
#
# "..." goes to `rlvr train`: --profile (default llama-8b), --config, --seed, --set. --vllm installs vLLM for faster
# sampling. --stop stops the pod when the training has ended, well or not: the volume is kept, an idle GPU is not paid.
#
# Every command can be given again at any time. After a restart of the pod the environment is still on the volume and
# only the kernel is registered anew; a training that was cut off goes on from its last checkpoint. Left out: several
# GPUs (see `accelerate launch` in the README), and pods whose course does not lie on the volume.
set -euo pipefail
umask 077 # what is written here is nobody else's business

VOLUME=${RP_WORKSPACE:-/workspace} # kept when the pod stops; everything outside is lost
COURSE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
ENVIRONMENT=$VOLUME/rlvr-env
PYTHON=$ENVIRONMENT/bin/python
LOG=$COURSE/runs/training.log
POD_VARIABLES=${RP_ENVIRONMENT:-/etc/rp_environment} # where the template keeps the pod's variables for SSH sessions

say() { printf '%s\n' "$*"; }
fail() {
    printf 'runpod.sh: %s\n' "$*" >&2
    exit 1
}

check_place() {
    [ -d "$VOLUME" ] || fail "there is no volume at $VOLUME: give the pod one when you create it."
    case $COURSE/ in
    "$(cd "$VOLUME" && pwd -P)"/*) ;;
    *) fail "the course lies in $COURSE, which is lost when the pod stops: clone it into $VOLUME." ;;
    esac
}

use_the_volume() { # caches survive a restart: no second download of 16 GB
    local cache=$VOLUME/.cache
    export HF_HOME=${HF_HOME:-$cache/huggingface} PIP_CACHE_DIR=${PIP_CACHE_DIR:-$cache/pip}
    export WANDB_CACHE_DIR=$cache/wandb WANDB_DATA_DIR=$cache/wandb-data
    export VLLM_CACHE_ROOT=$cache/vllm TRITON_CACHE_DIR=$cache/triton TORCHINDUCTOR_CACHE_DIR=$cache/inductor
    mkdir -p "$HF_HOME" "$PIP_CACHE_DIR"
}

pins() { # "name==version" of the PyTorch family as interpreter $1 sees it: what must not be replaced
    "$1" - <<'PY'
from importlib import metadata

for name in ("torch", "torchvision", "torchaudio", "triton", "vllm"):
    try:
        print(f"{name}=={metadata.version(name)}")
    except metadata.PackageNotFoundError:
        continue
PY
}

check_image() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "python3 is older than 3.11: choose a template with Ubuntu 24.04, such as runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404."
    pins python3 | grep -qE '^torch==(2\.([89]|[1-9][0-9])|[3-9])' ||
        fail "the image has no PyTorch 2.8 or newer: choose one of RunPod's PyTorch templates that has."
}

stamp() { # changes with whatever the environment is made from
    echo "$ENVIRONMENT/made-from-$({
        cat "$COURSE/requirements.lock" "$COURSE/pyproject.toml"
        echo "$COURSE $1"
        python3 --version
        pins python3
    } | cksum | cut -d ' ' -f 1)"
}

make_environment() { # $1: the vLLM to install, or nothing
    local made
    made=$(stamp "$1")
    if [ -e "$made" ] && "$PYTHON" -c 'import torch'; then
        say "The environment in $ENVIRONMENT is ready."
        return
    fi
    say "Making the environment in $ENVIRONMENT: some minutes, once."
    python3 -m venv --clear --without-pip --system-site-packages "$ENVIRONMENT"
    # vLLM comes first, because it brings the PyTorch that it was built for; without it the image's own is kept.
    [ -z "$1" ] || pip --python "$PYTHON" install --quiet "$1"
    pins "$PYTHON" >"$ENVIRONMENT/constraints.txt"
    grep -vE '^(torch|torchvision|torchaudio|triton)==' "$COURSE/requirements.lock" >"$ENVIRONMENT/requirements.txt"
    pip --python "$PYTHON" install --quiet -c "$ENVIRONMENT/constraints.txt" -r "$ENVIRONMENT/requirements.txt"
    pip --python "$PYTHON" install --quiet --no-deps --no-build-isolation -e "$COURSE"
    pins "$PYTHON" | cmp -s - "$ENVIRONMENT/constraints.txt" || fail "pip replaced PyTorch; remove $ENVIRONMENT and try again."
    touch "$made" # last: an environment that was cut off is made again
}

register_kernel() { # at every start: the container's disk, where Jupyter looks, does not survive
    local name folder
    for name in rlvr python3; do # under python3 too, so that the notebooks open in it without being asked
        folder=${JUPYTER_DATA_DIR:-$HOME/.local/share/jupyter}/kernels/$name
        mkdir -p "$folder"
        cat >"$folder/kernel.json" <<JSON
{"argv": ["$PYTHON", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
 "display_name": "RLVR course", "language": "python",
 "env": {"HF_HOME": "$HF_HOME", "PIP_CACHE_DIR": "$PIP_CACHE_DIR", "WANDB_CACHE_DIR": "$WANDB_CACHE_DIR",
         "WANDB_DATA_DIR": "$WANDB_DATA_DIR", "VLLM_CACHE_ROOT": "$VLLM_CACHE_ROOT"}}
JSON
    done
    say "Notebooks in $COURSE/notebooks open with the kernel 'RLVR course'."
}

set_up() { # $1: "yes" for vLLM
    local vllm=
    check_place
    use_the_volume
    check_image
    [ "$1" = no ] || vllm=$(sed -n 's/^gpu = \["\(vllm[^"]*\)"\]$/\1/p' "$COURSE/pyproject.toml")
    make_environment "$vllm"
    register_kernel
}

start_training() { # $1: "yes" to stop the pod at the end; the rest goes to `rlvr train`
    local stop=$1
    shift
    nvidia-smi --query-gpu=name,memory.total --format=csv,noheader ||
        fail "no GPU answers here, and this profile needs one: start the pod with a GPU."
    exec 9>"$COURSE/runs/training.lock"
    if ! flock --nonblock 9; then
        say "A training is going already:"
        status
        return
    fi
    "$PYTHON" -m rlvr_utils doctor "$@" || fail "the pre-flight found what is listed above; nothing was started."
    # A session of its own: closing the browser, the terminal or the laptop ends nothing. It holds the lock (9) to its end.
    setsid nohup bash "${BASH_SOURCE[0]}" detached "$stop" "$@" >>"$LOG" 2>&1 </dev/null &
    say "Training goes on without you. Watch it: tail -f $LOG, or notebook 04."
}

detached() { # runs the training to its end; a resumed run continues by itself
    local stop=$1 status=0
    shift
    say "--- $(date -u '+%F %T') UTC: rlvr train $*"
    # A key that some library prints in a message must not stay on the volume.
    "$PYTHON" -m rlvr_utils train "$@" 2>&1 | sed -uE 's/hf_[A-Za-z0-9]{8,}|[0-9a-f]{40,}/***/g' || status=$?
    say "--- $(date -u '+%F %T') UTC: ended with status $status; results are in $COURSE/runs."
    sync
    [ "$stop" = no ] || stop_pod
}

stop_pod() {
    if [ -z "${RUNPOD_POD_ID:-}" ] || ! runpodctl stop pod "$RUNPOD_POD_ID"; then
        say "The pod could not be stopped from here: stop it on RunPod's page, it is still being paid for."
    fi
}

status() {
    if flock --nonblock --conflict-exit-code 9 "$COURSE/runs/training.lock" true; then
        say "No training is going."
    else
        say "A training is going."
    fi
    [ ! -f "$LOG" ] || tail -n 5 "$LOG"
}

main() {
    local command=setup vllm=no stop=no rest=()
    case ${1:-} in setup | train | status | detached) command=$1 && shift ;; esac
    cd "$COURSE"
    mkdir -p runs
    if [ -z "${RUNPOD_POD_ID:-}" ] && [ -f "$POD_VARIABLES" ]; then . "$POD_VARIABLES"; fi
    if [ "$command" = detached ]; then
        detached "$@"
        return
    fi
    for word in "$@"; do
        case $word in --vllm) vllm=yes ;; --stop) stop=yes ;; *) rest+=("$word") ;; esac
    done
    [ "$command" = train ] || [ ${#rest[@]} = 0 ] || fail "'${rest[0]}' is not known: see the first lines of this file."
    case " ${rest[*]} " in *" --profile"* | *" --config"*) ;; *) rest=(--profile llama-8b "${rest[@]}") ;; esac
    if [ "$command" = status ]; then
        status
        return
    fi
    set_up "$vllm"
    if [ "$command" = train ]; then start_training "$stop" "${rest[@]}"; fi
}

main "$@"
