#!/usr/bin/env bash
# Trains one run with Open MPI; PROCESSES of them, on the hosts of HOSTFILE if it is set:
#   PROCESSES=4 scripts/launch/mpirun.sh --config=configs/char.py --mode=train
#
# Open MPI only starts the processes: JAX's runtime finds process 0 by itself, and moves the data.
# The work directory has to be in a folder that all hosts share.
set -euo pipefail

options=(-n "${PROCESSES:-2}" --bind-to none)
if [ -n "${HOSTFILE:-}" ]; then
  options+=(--hostfile "$HOSTFILE")
else
  options+=(--oversubscribe) # More processes than cores, on one machine.
fi
if [ "$(id -u)" = 0 ]; then
  options+=(--allow-run-as-root)
fi
exec mpirun "${options[@]}" python main.py "$@"
