#!/usr/bin/env bash
# Run the course on a rented GPU, with RunPod's official PyTorch template (Jupyter), up to training in the background.
#
#   bash scripts/runpod.sh [--vllm]                        make the environment and the kernel for the notebooks
#   bash scripts/runpod.sh doctor [--vllm] [...]           the same, then `rlvr doctor`: checks and costs
#   bash scripts/runpod.sh train [--vllm] [--stop] [...]   the same, checks, then training in the background
#   bash scripts/runpod.sh status                          show whether training is running, and its last output
#   bash scripts/runpod.sh stop                            stop training and keep the pod on (`train` continues it)
#
# "..." is passed to `rlvr train` or `rlvr doctor`: --profile (default llama-8b), --config, --seed, --set. --vllm installs
# vLLM for faster sampling. The environment keeps it, so you need it only once. --stop stops the pod when training ends
# for any reason, or if it fails to start without a terminal. The volume is kept, and you don't pay for an idle GPU. You can
# add --stop later with the same command. After an early end the pod stays on for two minutes, so that you can run `stop`.
#
# You can repeat every command at any time. After a restart of the pod the environment is still on the volume, and only the
# kernel is registered again. Interrupted training continues from its last checkpoint. Not supported: several GPUs (see
# docs/llama-8b.md), and pods where the course is not on the volume.
set -euo pipefail
umask 077 # other users cannot read the files

VOLUME=${RP_WORKSPACE:-/workspace} # kept when the pod stops, unlike everything else
COURSE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
ENVIRONMENT=$VOLUME/rlvr-env
PYTHON=$ENVIRONMENT/bin/python
LOG=$COURSE/runs/training.log
STOP_AT_END=$COURSE/runs/stop-the-pod # exists if the pod must stop after training
TRAINING=$COURSE/runs/training.pid    # process id of the training
SOON=${RLVR_SOON:-120} # seconds: if training ends earlier, the pod stays on this long, so that you can read why
POD_VARIABLES=${RP_ENVIRONMENT:-/etc/rp_environment} # where the template keeps the pod's variables for SSH sessions

say() { printf '%s\n' "$*"; }
fail() {
    printf 'runpod.sh: %s\n' "$*" >&2
    exit 1
}

check_place() {
    [ -d "$VOLUME" ] || fail "There is no volume at $VOLUME. Add one when you create the pod."
    case $COURSE/ in
    "$(cd "$VOLUME" && pwd -P)"/*) ;;
    *) fail "The course is in $COURSE, which is lost when the pod stops. Clone it into $VOLUME." ;;
    esac
}

use_the_volume() { # caches survive a restart, so 16 GB are downloaded only once
    local cache=$VOLUME/.cache
    export HF_HOME=${HF_HOME:-$cache/huggingface} PIP_CACHE_DIR=${PIP_CACHE_DIR:-$cache/pip}
    export WANDB_CACHE_DIR=$cache/wandb WANDB_DATA_DIR=$cache/wandb-data
    export VLLM_CACHE_ROOT=$cache/vllm TRITON_CACHE_DIR=$cache/triton TORCHINDUCTOR_CACHE_DIR=$cache/inductor
    mkdir -p "$HF_HOME" "$PIP_CACHE_DIR"
}

pins() { # print "name==version" of the PyTorch packages of interpreter $1, which must not be replaced
    "$1" - <<'PY'
from importlib import metadata

for name in ("torch", "torchvision", "torchaudio", "triton", "vllm"):
    try:
        print(f"{name}=={metadata.version(name)}")
    except metadata.PackageNotFoundError:
        continue
PY
}

dependencies() { # print the course's dependencies as ranges, one per line
    python3 - "$COURSE/pyproject.toml" <<'PY'
import sys, tomllib

print(*tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"], sep="\n")
PY
}

check_image() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "python3 is older than 3.11. Choose a template with Ubuntu 24.04, such as runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404."
    pins python3 | grep -qE '^torch==(2\.([89]|[1-9][0-9])|[3-9])' ||
        fail "The image has no PyTorch 2.8 or newer. Choose one of RunPod's PyTorch templates that has it."
}

stamp() { # changes if the inputs of the environment change
    echo "$ENVIRONMENT/made-from-$({
        cat "$COURSE/requirements.lock" "$COURSE/pyproject.toml"
        echo "$COURSE $1"
        python3 --version
        pins python3
    } | cksum | cut -d ' ' -f 1)"
}

make_environment() { # $1: the vLLM requirement, or empty
    local made
    made=$(stamp "$1")
    if [ -e "$made" ] && "$PYTHON" -c 'import torch'; then
        say "The environment in $ENVIRONMENT is ready."
        return
    fi
    say "Making the environment in $ENVIRONMENT. This takes some minutes, only once."
    python3 -m venv --clear --without-pip --system-site-packages "$ENVIRONMENT"
    if [ -n "$1" ]; then
        # vLLM needs its own PyTorch and has its own dependencies. One resolution finds versions for both: packages that
        # affect results keep their locked versions, and all others follow the course's ranges.
        : >"$ENVIRONMENT/constraints.txt"
        { echo "$1"; grep -E '^(transformers|tokenizers|trl|peft|datasets|accelerate|safetensors|wandb)==' \
            "$COURSE/requirements.lock"; dependencies; } >"$ENVIRONMENT/requirements.txt"
    else
        pins "$PYTHON" >"$ENVIRONMENT/constraints.txt" # keep the image's PyTorch
        grep -vE '^(torch|torchvision|torchaudio|triton)==' "$COURSE/requirements.lock" >"$ENVIRONMENT/requirements.txt"
    fi
    pip --python "$PYTHON" install --quiet -c "$ENVIRONMENT/constraints.txt" -r "$ENVIRONMENT/requirements.txt"
    pip --python "$PYTHON" install --quiet --no-deps --no-build-isolation -e "$COURSE"
    [ -n "$1" ] || pins "$PYTHON" | cmp -s - "$ENVIRONMENT/constraints.txt" ||
        fail "pip replaced PyTorch. Remove $ENVIRONMENT and try again."
    [ -z "$1" ] || touch "$ENVIRONMENT/with-vllm"
    touch "$made" # written last, so that an incomplete environment is made again
}

register_kernel() { # needed at every start, because the container's disk, where Jupyter looks, is not kept
    local name folder
    for name in rlvr python3; do # also as python3, so that notebooks open with it directly
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

lock() { # take the lock (9) for $1. It is released with the last process that holds it
    exec 9>>"$COURSE/runs/training.lock"
    flock --nonblock 9 || return
    echo "$1" >"$COURSE/runs/training.lock"
}

is_free() { flock --nonblock --conflict-exit-code 9 "$COURSE/runs/training.lock" true; }

training() { # print the process id of our training, or fail if none is running
    local pid state
    { read -r pid <"$TRAINING"; } 2>/dev/null || return
    # The file survives a crash of the pod, so its id may belong to another process now.
    { mapfile -d '' -t state <"/proc/$pid/cmdline"; } 2>/dev/null || return
    [ "${state[*]:1:2}" = "$COURSE/scripts/runpod.sh detached" ] && kill -0 -- "-$pid" 2>/dev/null && echo "$pid"
}

check_driver() { # vLLM's wheels are CUDA 13 builds since 0.26, so check before installing
    local cuda
    cuda=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\)\..*/\1/p' | head -n 1)
    [ -z "$cuda" ] || [ "$cuda" -ge 13 ] ||
        fail "vLLM needs a driver for CUDA 13.0 or newer, but this pod's supports CUDA $cuda. Use another host, or omit --vllm."
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
    say "To use rlvr, wandb and accelerate in a terminal: source $ENVIRONMENT/bin/activate"
}

check_gpu() {
    nvidia-smi --query-gpu=name,memory.total --format=csv,noheader ||
        fail "This profile needs a GPU, but nvidia-smi finds none. Start the pod with a GPU."
}

check_stop() { # check that the pod can be stopped from here
    [ -n "${RUNPOD_POD_ID:-}" ] && command -v runpodctl >/dev/null ||
        fail "--stop needs runpodctl and RUNPOD_POD_ID, which are missing. Omit --stop."
}

start_training() { # "$@" is passed to `rlvr train`
    local try
    "$PYTHON" -m rlvr_utils doctor "$@" || fail "The checks above failed, so training was not started. Fix them and run this command again."
    # In its own session, training survives closing the browser, the terminal or the laptop. It holds the lock (9) to its end.
    rm -f "$TRAINING"
    setsid nohup bash "$COURSE/scripts/runpod.sh" detached "$@" >>"$LOG" 2>&1 </dev/null &
    for try in {1..100}; do
        [ ! -e "$TRAINING" ] || break
        sleep 0.1
    done
    say "Training is running in the background. To watch it: bash scripts/runpod.sh status, tail -f $LOG, or notebook 04."
}

detached() { # run the training to its end (`rlvr train` resumes by itself)
    local status=0
    trap : TERM HUP INT # signals end the training process, and this script still runs to its end
    trap at_the_end EXIT
    echo $$ >"$TRAINING"
    say "--- $(date -u '+%F %T') UTC: rlvr train $*"
    # Mask keys that a library may print, so that they are not stored on the volume.
    "$PYTHON" -m rlvr_utils train "$@" 2>&1 | sed -uE 's/hf_[A-Za-z0-9]{8,}|[0-9a-f]{40,}/***/g' || status=$?
    say "--- $(date -u '+%F %T') UTC: ended with status $status, results are in $COURSE/runs."
}

at_the_end() { # must not fail, even if the disk is full
    set +e
    trap '' PIPE
    trap - EXIT
    timeout 60 sync
    stop_pod
    rm -f "$TRAINING"
}

nothing_started() { # a setup or check that fails without a terminal must not keep the pod on
    local status=$?
    set +e
    trap '' PIPE
    trap - EXIT
    [ "$status" = 0 ] || [ -t 1 ] || stop_pod
    [ "$status" = 0 ] || rm -f "$STOP_AT_END"
    exit "$status"
}

stop_pod() { # if --stop was given
    local pause
    [ -e "$STOP_AT_END" ] || return
    if [ "$SECONDS" -lt "$SOON" ]; then
        say "Training ended early, so the pod stays on for $SOON s. To keep it on: bash scripts/runpod.sh stop"
        sleep "$SOON"
    fi
    for pause in 0 20 60 300 900 3600; do
        sleep "$pause"
        [ -e "$STOP_AT_END" ] || return # `stop` was run in the meantime
        if timeout 120 runpodctl stop pod "$RUNPOD_POD_ID"; then return; fi # runpodctl may fail or hang
        say "The pod could not be stopped and still costs money. Stop it on RunPod's page."
    done
}

status() {
    local end=
    [ ! -e "$STOP_AT_END" ] || end=' The pod stops when it ends.'
    if training >/dev/null; then
        say "Training is running.$end"
    elif is_free; then
        say "No training is running."
    else
        say "No training is running yet: \`$(cat "$COURSE/runs/training.lock")\` is setting up.$end"
    fi
    [ ! -f "$LOG" ] || tail -n 5 "$LOG"
}

end_training() {
    local pid
    rm -f "$STOP_AT_END"
    if pid=$(training); then
        kill -TERM -- "-$pid"
        # All child processes are in this group and hold the lock until they end.
        flock --timeout 30 "$COURSE/runs/training.lock" true || kill -KILL -- "-$pid" || true
        say "Training is stopped. The same train command continues from its last checkpoint. The pod stays on."
    elif is_free; then
        say "No training is running."
    else
        say "No training is running, only a setup or check. Stop it with Ctrl-C in its terminal. The pod stays on."
    fi
}

with_profile() { # print the options, with the default profile if none is given, one per line
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
    setup) [ ${#rest[@]} = 0 ] || fail "There is no command '${rest[0]}'. See bash scripts/runpod.sh --help." ;;
    esac
    check_place
    use_the_volume
    [ "$stop" = no ] || check_stop
    if ! lock "$command"; then
        training >/dev/null || [ "$(cat runs/training.lock)" = train ] ||
            fail "Another terminal is running a setup or check. Run this command again when it has ended."
        [ "$stop" = no ] || touch "$STOP_AT_END"
        say "Training (or its setup) is already running, and its environment is unchanged:"
        status
        return
    fi
    rm -f "$STOP_AT_END" # from an earlier training. From here on another terminal may add it
    if [ "$command" = train ]; then
        [ "$stop" = no ] || touch "$STOP_AT_END"
        trap nothing_started EXIT
        check_gpu
    fi
    mapfile -t rest < <(with_profile "${rest[@]}")
    say "Wait until this prints that training is running in the background. The first setup takes some minutes."
    set_up "$vllm"
    case $command in
    doctor) "$PYTHON" -m rlvr_utils doctor "${rest[@]}" ;;
    train) start_training "${rest[@]}" ;;
    esac
}

main "$@"
