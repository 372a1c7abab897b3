#!/usr/bin/env bash
# Train under Slurm, in as many jobs as it takes:
#
#   sbatch launch/slurm.sh [--training.epochs 20 ...]
#
# Two minutes before the time limit the trainers are told to save. The job then goes back into the queue under its own
# number, and goes on from there when it is its turn again. Besides:
#
#   scancel --signal=USR1 --batch JOB    save, and back into the queue, now
#   scancel --signal=TERM --batch JOB    save, and end
#   scancel JOB                          end at once; what the last checkpoint holds is not lost

#SBATCH --job-name=accel_trainer
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue

# ---- settings --------------------------------------------------------------------------------------------------------

config=configs/bhm.yaml
run_dir=runs                          # on a disk that all nodes share
run_name=bhm
processes=${SLURM_GPUS_ON_NODE:-1}    # on each node
most_restarts=100                     # a run that is interrupted more often than this wants to be looked at
# source .venv/bin/activate

# ---- the job ---------------------------------------------------------------------------------------------------------

set -euo pipefail

nodes=${SLURM_JOB_NUM_NODES:-1}
status=$run_dir/$run_name/status.json

# Launchers hide exit codes, so the run's own words are what counts. They are compared with what an earlier start left:
# the clocks of this node and of the file server may differ.
before=$(cat "$status" 2>/dev/null || true)

read -r first_node < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# torchrun kills what it started 30 s after it was told to end, unless this says otherwise; a large state takes longer.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# torchrun also for one process: accelerate launch does not wait for it, and Slurm kills what outlives its launcher.
launch=(
    torchrun "--nnodes=$nodes" "--nproc_per_node=$processes"
    "--master_addr=$first_node" "--master_port=$((10000 + SLURM_JOB_ID % 20000))"
    -m accel_trainer.train --config "$config" "$@"
    --run.dir "$run_dir" --run.name "$run_name" --run.expect_processes "$((nodes * processes))"
)

trainers=
told=
cancelled=

# Tell the trainers to save. Not through srun, which answers SIGTERM by killing them; and once: torchrun that is told
# twice no longer waits for them.
# shellcheck disable=SC2317  # called by the traps
tell() {
    if [[ -n $trainers && -z $told ]]; then
        told=yes
        scancel --signal=TERM "$SLURM_JOB_ID" || echo "slurm.sh: the trainers could not be told" >&2
    fi
}
trap tell USR1
trap 'cancelled=yes; tell' TERM

# shellcheck disable=SC2016  # the number of the node is known only there
srun "--nodes=$nodes" "--ntasks=$nodes" --ntasks-per-node=1 \
    bash -c 'exec "$1" "--node_rank=$SLURM_NODEID" "${@:2}"' launch "${launch[@]}" &
trainers=$!
# A signal ends the wait, not the trainers.
while kill -0 "$trainers" 2>/dev/null; do
    wait "$trainers" || true
done
trainers=

after=$(cat "$status" 2>/dev/null || true)
if [[ $after == "$before" ]]; then
    echo "slurm.sh: the trainers ended before they could say why in $status" >&2
    exit 1
fi
two_words='import json, sys; said = json.loads(sys.argv[1]); print(said["status"], said["exit_code"])'
read -r outcome code < <(python -c "$two_words" "$after")
if [[ $code == None ]]; then
    echo "slurm.sh: the trainers were killed; $status still says $outcome" >&2
    exit 1
fi
if [[ $outcome == preempted && -z $cancelled ]]; then
    if ((${SLURM_RESTART_COUNT:-0} < most_restarts)); then
        # Incomplete: not if the job was cancelled meanwhile.
        scontrol requeue Incomplete "$SLURM_JOB_ID" || echo "slurm.sh: could not be put back into the queue" >&2
    else
        echo "slurm.sh: interrupted $most_restarts times; not put back into the queue" >&2
    fi
fi
exit "$code"
