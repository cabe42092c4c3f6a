#!/usr/bin/env bash
# One process per rank under Open MPI 4 or 5; start it on the host of rank 0, the first of the hosts.
#   launch/mpi.sh [--print] -np 16 --hostfile hosts -- --config=configs/imagenet.py --workdir=/shared/runs/imagenet
# What stands before -- is mpirun's. --print shows the command instead.
set -euo pipefail
cd "$(dirname "$0")/.."
show=no
if [[ ${1:-} == --print ]]; then show=yes; shift; fi

mpi=()
while [[ $# -gt 0 && $1 != -- ]]; do mpi+=("$1"); shift; done
if [[ $# -eq 0 || ${#mpi[@]} -eq 0 ]]; then
  echo "usage: launch/mpi.sh [--print] -np N --hostfile FILE -- --config=FILE --workdir=DIR" >&2
  exit 2
fi
shift

# In flags, as Open MPI 5 no longer says where its launcher is, and JAX does not know it before 0.12.
address=${JAX_COORDINATOR_ADDRESS:-$(hostname):${JAX_COORDINATOR_PORT:-61440}}
# shellcheck disable=SC2016  # every rank expands it
ranks='exec "$@" --num_processes="$OMPI_COMM_WORLD_SIZE" --process_id="$OMPI_COMM_WORLD_RANK" --local_device_ids="$OMPI_COMM_WORLD_LOCAL_RANK"'
# Ranks may use all cores that their host gives them. Told to stop, mpirun tells them, kills after so many seconds (not
# after one) those who have not yet saved, and ends with a code of its own.
export OMPI_MCA_odls_base_sigkill_timeout="${OMPI_MCA_odls_base_sigkill_timeout:-30}"
export PRTE_MCA_odls_base_sigkill_timeout="$OMPI_MCA_odls_base_sigkill_timeout"
run=(mpirun --bind-to none "${mpi[@]}" ${ALEXNET_DATA_DIR:+-x ALEXNET_DATA_DIR} sh -c "$ranks" rank
  "${PYTHON:-.venv/bin/python}" -m alexnet_jax.main "--coordinator_address=$address" "$@")

if [[ $show == yes ]]; then echo "${run[*]@Q}"; exit; fi
exec "${run[@]}"
