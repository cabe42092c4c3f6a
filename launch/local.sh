#!/usr/bin/env bash
# One process, with all devices of this machine. --print shows the command instead.
#   launch/local.sh [--print] --config=configs/imagenet.py --workdir=runs/imagenet
set -euo pipefail
cd "$(dirname "$0")/.."
show=no
if [[ ${1:-} == --print ]]; then show=yes; shift; fi

# Large pages make a training step up to a quarter faster on CPU.
run=(env GLIBC_TUNABLES=glibc.malloc.hugetlb=1
  "${PYTHON:-.venv/bin/python}" -m alexnet_jax.main --distributed=off "$@")

if [[ $show == yes ]]; then echo "${run[*]@Q}"; exit; fi
exec "${run[@]}"
