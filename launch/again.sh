#!/usr/bin/env bash
# Runs a command again for as long as it ends with 42: told to stop, all is saved, go on when you can.
#   launch/again.sh [--print] COMMAND...
set -uo pipefail
show=no
if [[ ${1:-} == --print ]]; then show=yes; shift; fi
[[ $# -gt 0 ]] || { echo "usage: launch/again.sh [--print] COMMAND..." >&2; exit 2; }

if [[ $show == yes ]]; then echo "until it does not end with 42: ${*@Q}"; exit; fi
code=42
while [[ $code == 42 ]]; do
  code=0
  "$@" || code=$?
done
exit "$code"
