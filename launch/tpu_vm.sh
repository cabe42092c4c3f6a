#!/usr/bin/env bash
# A slice of a Cloud TPU pod, all its hosts at once, through gcloud. --print shows the commands instead.
#   export TPU=alexnet ZONE=us-west4-a TYPE=v5litepod-16 IMAGE=v2-alpha-tpuv5-lite
#   launch/tpu_vm.sh [--print] create
#   launch/tpu_vm.sh [--print] setup
#   launch/tpu_vm.sh [--print] run --config=configs/imagenet.py --workdir=/mnt/shared/runs/imagenet
#   launch/tpu_vm.sh [--print] logs | status | stop
#   launch/tpu_vm.sh [--print] delete --yes
set -euo pipefail
cd "$(dirname "$0")/.."
show=no
if [[ ${1:-} == --print ]]; then show=yes; shift; fi
verb=${1:-}
shift || true

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
refuse() { echo "error: $1" >&2; exit 2; }

# Prints a command, or runs it.
go() { if [[ $show == yes ]]; then echo "${*@Q}"; else "$@"; fi; }
# The same command on one host, or on all.
on() { go gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$2"; }

case $verb in create | setup | run | logs | status | stop | delete) ;; *) usage ;; esac
for name in TPU ZONE; do [[ -n ${!name:-} ]] || refuse "set $name, as in: export $name=..."; done

case $verb in
  create)
    for name in TYPE IMAGE; do [[ -n ${!name:-} ]] || refuse "set $name, as in: export $name=..."; done
    go gcloud compute tpus tpu-vm create "$TPU" --zone="$ZONE" --accelerator-type="$TYPE" --version="$IMAGE"
    ;;
  setup)
    # What is committed, no more; Python 3.12 by uv, as the images' own is too old.
    archive=${TMPDIR:-/tmp}/alexnet_jax.tar.gz
    go git archive --format=tar.gz --prefix=alexnet_jax/ --output="$archive" HEAD
    go gcloud compute tpus tpu-vm scp "$archive" "$TPU:" --zone="$ZONE" --worker=all
    on all 'tar xzf alexnet_jax.tar.gz && cd alexnet_jax && pip install --quiet uv &&
      ~/.local/bin/uv venv --quiet --seed --python 3.12 .venv &&
      .venv/bin/python -m pip install --quiet -r requirements-tpu.txt && .venv/bin/python -c "import jax"'
    ;;
  run)
    [[ $# -gt 0 ]] || usage
    # In braces: the shell left behind for "cd" would keep the connection open.
    on all "cd alexnet_jax && { nohup setsid launch/again.sh .venv/bin/python -m alexnet_jax.main ${*@Q} \
      >> alexnet.log 2>&1 < /dev/null & }"
    ;;
  logs) on 0 'tail --lines=100 --follow alexnet_jax/alexnet.log' ;;
  status)
    go gcloud compute tpus tpu-vm describe "$TPU" --zone="$ZONE" --format='value(state,health)'
    on all 'pgrep --full --list-full [a]lexnet_jax.main || echo not running; tail --lines=1 alexnet_jax/alexnet.log'
    ;;
  stop)
    # First what would start it again; all processes save at the same step, whichever is told.
    on all 'pkill --full [l]aunch/again.sh; pkill --full [a]lexnet_jax.main; true'
    ;;
  delete)
    [[ ${1:-} == --yes ]] || refuse "this deletes $TPU and its disks: say delete --yes"
    go gcloud compute tpus tpu-vm delete "$TPU" --zone="$ZONE" --quiet
    ;;
esac
