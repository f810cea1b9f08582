#!/bin/bash
# An experiment on several nodes of a Slurm cluster: a Ray cluster inside the allocation.
#
#     sbatch slurm_ray.sh RECIPE [OPTION...]              for example: sbatch slurm_ray.sh digits --out results/digits
#
# The options are those of `tombola run`. Only the first node, which runs the command, needs the store and the results
# folder. For GPUs add `#SBATCH --gpus-per-node=4`, or the like: Ray finds them.

#SBATCH --job-name=tombola
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=04:00:00

set -euo pipefail

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000)) # another job may have the first node too
export RAY_ADDRESS="${nodes[0]}:$port" RAY_USAGE_STATS_ENABLED=0
# Whoever reaches a Ray cluster may run code as you, unless it asks for a token; Ray does since 2.52.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | sha256sum | cut -d " " -f 1)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

start_ray() { # NODE OPTION...: until the job ends
    srun --nodes=1 --ntasks=1 --nodelist="$1" ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" \
        ${RAY_START_OPTIONS:-} "${@:2}" >"ray-$SLURM_JOB_ID-$1.log" 2>&1 &
}

wait_for_head() {
    until ray status --address "$RAY_ADDRESS" >/dev/null 2>&1; do
        if ! kill -0 "$head" 2>/dev/null; then
            echo "Ray has not started: see ray-$SLURM_JOB_ID-${nodes[0]}.log" >&2
            exit 1
        fi
        sleep 1
    done
}

trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

start_ray "${nodes[0]}" --head --port="$port" --include-dashboard=false
head=$!
wait_for_head
for node in "${nodes[@]:1}"; do
    start_ray "$node" --address="$RAY_ADDRESS"
done

# Workers that come later train too.
tombola run "$@" --cluster auto
