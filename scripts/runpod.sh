#!/usr/bin/env bash
# The course on a rented GPU: from RunPod's official PyTorch template (Jupyter) to a training that needs no browser.
#
#   bash scripts/runpod.sh [--vllm]                        environment on the volume, kernel for the notebooks
#   bash scripts/runpod.sh doctor [--vllm] [...]           the same, then `rlvr doctor`: what is missing, what it costs
#   bash scripts/runpod.sh train [--vllm] [--stop] [...]   the same, a pre-flight, then the training, detached
#   bash scripts/runpod.sh status                          is it going, and what did it say last
#   bash scripts/runpod.sh stop                            end the training, keep the pod on; `train` goes on from there
#
# "..." goes to `rlvr train` or `rlvr doctor`: --profile (default llama-8b), --config, --seed, --set. --vllm installs
# vLLM for faster sampling, and once is enough: the environment keeps it. --stop stops the pod however the training ends,
# and when it cannot start while no terminal watches: the volume is kept, an idle GPU is not paid. It can be asked for
# later too, by the same command. After an early end the pod stays on for two minutes, in which `stop` keeps it on.
#
# Every command can be given again at any time. After a restart of the pod the environment is still on the volume and
# only the kernel is registered anew; a training that was cut off goes on from its last checkpoint. Left out: several
# GPUs (see docs/llama-8b.md), and pods whose course does not lie on the volume.
set -euo pipefail
umask 077 # what is written here is nobody else's business

VOLUME=${RP_WORKSPACE:-/workspace} # kept when the pod stops; everything outside is lost
COURSE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
ENVIRONMENT=$VOLUME/rlvr-env
PYTHON=$ENVIRONMENT/bin/python
LOG=$COURSE/runs/training.log
STOP_AT_END=$COURSE/runs/stop-the-pod # there while the pod is to be stopped when the training has ended
TRAINING=$COURSE/runs/training.pid    # the process that runs the training to its end
SOON=${RLVR_SOON:-120} # seconds: who ends sooner did not train, and the pod stays on that long for somebody to read why
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

dependencies() { # of the course, as ranges, one a line
    python3 - "$COURSE/pyproject.toml" <<'PY'
import sys, tomllib

print(*tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"], sep="\n")
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
    if [ -n "$1" ]; then
        # vLLM brings the PyTorch that it was built for and has wishes of its own. One resolution finds what suits both: of
        # the lock it has to keep what decides a run, and the rest of the course follows its ranges.
        : >"$ENVIRONMENT/constraints.txt"
        { echo "$1"; grep -E '^(transformers|tokenizers|trl|peft|datasets|accelerate|safetensors|wandb)==' \
            "$COURSE/requirements.lock"; dependencies; } >"$ENVIRONMENT/requirements.txt"
    else
        pins "$PYTHON" >"$ENVIRONMENT/constraints.txt" # the image's own PyTorch is kept
        grep -vE '^(torch|torchvision|torchaudio|triton)==' "$COURSE/requirements.lock" >"$ENVIRONMENT/requirements.txt"
    fi
    pip --python "$PYTHON" install --quiet -c "$ENVIRONMENT/constraints.txt" -r "$ENVIRONMENT/requirements.txt"
    pip --python "$PYTHON" install --quiet --no-deps --no-build-isolation -e "$COURSE"
    [ -n "$1" ] || pins "$PYTHON" | cmp -s - "$ENVIRONMENT/constraints.txt" ||
        fail "pip replaced PyTorch; remove $ENVIRONMENT and try again."
    [ -z "$1" ] || touch "$ENVIRONMENT/with-vllm"
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
         "WANDB_DATA_DIR": "$WANDB_DATA_DIR", "VLLM_CACHE_ROOT": "$VLLM_CACHE_ROOT",
         "TRITON_CACHE_DIR": "$TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR": "$TORCHINDUCTOR_CACHE_DIR"}}
JSON
    done
    say "Notebooks in $COURSE/notebooks open with the kernel 'RLVR course'."
}

lock() { # hold the lock (9) of a set-up or a training, for $1; it ends with the last process that has it
    exec 9>>"$COURSE/runs/training.lock"
    flock --nonblock 9 || return
    echo "$1" >"$COURSE/runs/training.lock"
}

is_free() { flock --nonblock --conflict-exit-code 9 "$COURSE/runs/training.lock" true; }

training() { # prints the number of our training's process; fails where none is going
    local pid state
    { read -r pid <"$TRAINING"; } 2>/dev/null || return
    # The file outlives a pod that was cut off, and its number may be somebody else's by now.
    { mapfile -d '' -t state <"/proc/$pid/cmdline"; } 2>/dev/null || return
    [ "${state[*]:1:2}" = "$COURSE/scripts/runpod.sh detached" ] && kill -0 -- "-$pid" 2>/dev/null && echo "$pid"
}

check_driver() { # for vLLM, whose wheels are CUDA 13 builds from 0.26 on: before anything is installed
    local cuda
    cuda=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\)\..*/\1/p' | head -n 1)
    [ -z "$cuda" ] || [ "$cuda" -ge 13 ] ||
        fail "vLLM needs a driver for CUDA 13.0 or newer, and this pod's is for CUDA $cuda: take another host, or leave --vllm out."
}

set_up() { # $1: "yes" for vLLM
    local vllm=
    check_image
    if [ "$1" = yes ] || [ -e "$ENVIRONMENT/with-vllm" ]; then
        check_driver
        vllm=$(sed -n 's/^gpu = \["\(vllm[^"]*\)"\]$/\1/p' "$COURSE/pyproject.toml")
    fi
    make_environment "$vllm"
    register_kernel
    say "In a terminal: source $ENVIRONMENT/bin/activate, then rlvr, wandb and accelerate are commands."
}

check_gpu() {
    nvidia-smi --query-gpu=name,memory.total --format=csv,noheader ||
        fail "no GPU answers here, and this profile needs one: start the pod with a GPU."
}

check_stop() { # can the pod be stopped from here?
    [ -n "${RUNPOD_POD_ID:-}" ] && command -v runpodctl >/dev/null ||
        fail "--stop needs runpodctl and RUNPOD_POD_ID, and they are not here: leave --stop out."
}

start_training() { # "$@" goes to `rlvr train`
    local try
    "$PYTHON" -m rlvr_utils doctor "$@" || fail "the pre-flight found what is listed above; nothing was started."
    # A session of its own: closing the browser, the terminal or the laptop ends nothing. It holds the lock (9) to its end.
    rm -f "$TRAINING"
    setsid nohup bash "$COURSE/scripts/runpod.sh" detached "$@" >>"$LOG" 2>&1 </dev/null &
    for try in {1..100}; do
        [ ! -e "$TRAINING" ] || break
        sleep 0.1
    done
    say "Training goes on without you. Watch it: bash scripts/runpod.sh status, or tail -f $LOG, or notebook 04."
}

detached() { # runs the training to its end; a resumed run continues by itself
    local status=0
    trap : TERM HUP INT # whoever ends the training ends its process, and then this goes on to its own end
    trap at_the_end EXIT
    echo $$ >"$TRAINING"
    say "--- $(date -u '+%F %T') UTC: rlvr train $*"
    # A key that some library prints in a message must not stay on the volume.
    "$PYTHON" -m rlvr_utils train "$@" 2>&1 | sed -uE 's/hf_[A-Za-z0-9]{8,}|[0-9a-f]{40,}/***/g' || status=$?
    say "--- $(date -u '+%F %T') UTC: ended with status $status; results are in $COURSE/runs."
}

at_the_end() { # nothing here may fail: the disk may be full, and this very line not be written
    set +e
    trap '' PIPE
    trap - EXIT
    timeout 60 sync
    stop_pod
    rm -f "$TRAINING"
}

nothing_started() { # a set-up or pre-flight that failed where nobody sees it must not keep the pod on
    local status=$?
    set +e
    trap '' PIPE
    trap - EXIT
    [ "$status" = 0 ] || [ -t 1 ] || stop_pod
    [ "$status" = 0 ] || rm -f "$STOP_AT_END"
    exit "$status"
}

stop_pod() { # where that was asked for
    local pause
    [ -e "$STOP_AT_END" ] || return
    if [ "$SECONDS" -lt "$SOON" ]; then
        say "It ended so soon that the pod stays on for $SOON s: bash scripts/runpod.sh stop keeps it on."
        sleep "$SOON"
    fi
    for pause in 0 20 60 300 900 3600; do
        sleep "$pause"
        [ -e "$STOP_AT_END" ] || return # somebody came and changed their mind
        if timeout 120 runpodctl stop pod "$RUNPOD_POD_ID"; then return; fi # it may hang as well as fail
        say "The pod could not be stopped from here: stop it on RunPod's page, it is still being paid for."
    done
}

status() {
    local end=
    [ ! -e "$STOP_AT_END" ] || end=' The pod stops when it has ended.'
    if training >/dev/null; then
        say "A training is going.$end"
    elif is_free; then
        say "No training is going."
    else
        say "No training is going yet: \`$(cat "$COURSE/runs/training.lock")\` is setting up.$end"
    fi
    [ ! -f "$LOG" ] || tail -n 5 "$LOG"
}

end_training() {
    local pid
    rm -f "$STOP_AT_END"
    if pid=$(training); then
        kill -TERM -- "-$pid"
        # What the training started is in its group. It has the lock for as long as any of it is there.
        flock --timeout 30 "$COURSE/runs/training.lock" true || kill -KILL -- "-$pid" || true
        say "The training is ended. The same train command goes on from its last checkpoint; the pod stays on."
    elif is_free; then
        say "No training is going."
    else
        say "No training is going, only a set-up or pre-flight: end that with Ctrl-C where it runs. The pod stays on."
    fi
}

with_profile() { # prints the options with the profile that is meant where none is named, one a line
    local word previous= named=no
    for word in "$@"; do
        case $word in --profile | --profile=*) named=yes ;; --config=*) previous=--config word=${word#*=} ;; esac
        if [ "$previous" = --config ] && grep -qs '^profile:' "$word"; then named=yes; fi
        previous=$word
    done
    [ "$named" = yes ] || printf '%s\n' --profile llama-8b
    [ $# = 0 ] || printf '%s\n' "$@"
}

main() {
    local command=setup vllm=no stop=no rest=()
    case ${1:-} in setup | doctor | train | status | stop | detached) command=$1 && shift ;; esac
    cd "$COURSE"
    mkdir -p runs
    if [ -z "${RUNPOD_POD_ID:-}" ] && [ -f "$POD_VARIABLES" ]; then . "$POD_VARIABLES"; fi
    if [ "$command" = detached ]; then
        detached "$@"
        return
    fi
    for word in "$@"; do
        case $word in
        --vllm) vllm=yes ;;
        --stop) stop=yes ;;
        --help | -h | help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            return
            ;;
        *) rest+=("$word") ;;
        esac
    done
    case $command in
    status) status && return ;;
    stop) end_training && return ;;
    setup) [ ${#rest[@]} = 0 ] || fail "'${rest[0]}' is not known: see bash scripts/runpod.sh --help." ;;
    esac
    check_place
    use_the_volume
    [ "$stop" = no ] || check_stop
    if ! lock "$command"; then
        training >/dev/null || [ "$(cat runs/training.lock)" = train ] ||
            fail "a set-up or pre-flight is going in another terminal: give this command again when that has ended."
        [ "$stop" = no ] || touch "$STOP_AT_END"
        say "A training (or its set-up) is going already, and its environment is left as it is:"
        status
        return
    fi
    rm -f "$STOP_AT_END" # of an earlier training; from here on it may be asked for in another terminal
    if [ "$command" = train ]; then
        [ "$stop" = no ] || touch "$STOP_AT_END"
        trap nothing_started EXIT
        check_gpu
    fi
    mapfile -t rest < <(with_profile "${rest[@]}")
    say "Stay until this says that the training goes on without you: setting up takes some minutes the first time."
    set_up "$vllm"
    case $command in
    doctor) "$PYTHON" -m rlvr_utils doctor "${rest[@]}" ;;
    train) start_training "${rest[@]}" ;;
    esac
}

main "$@"
