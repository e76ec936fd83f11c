#!/usr/bin/env bash
# Trains one run on several nodes with Slurm, one process a GPU:
#   sbatch -N 4 scripts/launch/slurm.sh --config=configs/gpt2.py:124m --mode=train
#
# The work directory has to be in a folder that all nodes share. Slurm sends SIGTERM two minutes
# before the time is up, so all processes save the same step and the job queues itself again.
#SBATCH --job-name=gptjax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -uo pipefail

# One process that ends with an error ends all of them, and Slurm reports it.
srun --kill-on-bad-exit=1 python main.py "$@"
status=$?
if [ "$status" = 143 ]; then # Stopped by SIGTERM, and saved.
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
