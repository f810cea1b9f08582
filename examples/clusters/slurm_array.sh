#!/bin/bash
# An experiment in parts, as a Slurm job array without Ray: the parts share a store, and a last job writes the results.
#
#     bash slurm_array.sh PARTS RECIPE [OPTION...]        for example: bash slurm_array.sh 10 digits --out results/digits
#
# The current folder, or what --store names, must be on a file system that all nodes share, or in a bucket. The options
# are those of `tombola run`. At most as many parts as the recipe has replicates. A part that was killed is started again
# by the same command; what is stored is not trained again.

#SBATCH --job-name=tombola
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue

set -euo pipefail

submit() { # PARTS OPTION...
    local script=$0 parts=$1 array
    shift
    array=$(sbatch --parsable --array="1-$parts" "$script" train "$@")
    # After the parts, however they ended: the last job trains what they have not.
    sbatch --dependency="afterany:${array%%;*}" "$script" train "$@"
}

train() { # OPTION...
    local part=()
    if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
        part=(--part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
    fi
    exec tombola run "$@" --workers "$SLURM_CPUS_PER_TASK" "${part[@]}"
}

if [ "${1:-}" = train ]; then
    train "${@:2}"
else
    submit "$@"
fi
