#!/usr/bin/env bash
# A study on Slurm: a Ray cluster on the nodes of one allocation, for as long as the chain runs.
#
#   sbatch deploy/slurm.sh            from the checkout's folder, on a disk that all nodes see, after `make setup`
#
# machine.yaml says `address: auto`, `gpu: true`, `workers: 1`, `jobs: 0` (a network on each GPU, as many at once as fit)
# and a storage that all nodes see. Out of time the job is queued again and goes on from its last checkpoints; so does
# one that Slurm preempts and queues again, and a later `sbatch` of the same study. `scancel` ends it.
#SBATCH --job-name=coppice
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=slurm-%j.log
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
export PATH="$PWD/.venv/bin:$PATH" DO_NOT_TRACK=true RAY_USAGE_STATS_ENABLED=0
port=$((20000 + SLURM_JOB_ID % 10000)) # two studies may share a node
wait_seconds=${WAIT_SECONDS:-300}

# A token for this job's cluster alone, in a file that only its owner reads. It is on the shared disk for all nodes.
secrets=$(mktemp -d "$PWD/.ray-$SLURM_JOB_ID-XXXXXX")
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$secrets/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$secrets/token"

steps=()
chain=
# shellcheck disable=SC2317 # traps call these
ended() { # within so many seconds, all processes of a group
  for _ in $(seq "$1"); do
    kill -0 -- "-$2" 2> /dev/null || return 0
    sleep 1
  done
  return 1
}
# shellcheck disable=SC2317
finish() {
  trap - EXIT
  trap '' TERM INT USR1 # a second signal would leave the token there
  if [ -n "$chain" ]; then # with the stage at work, before Ray is taken from under it
    kill -TERM -- "-$chain" 2> /dev/null || true
    ended 60 "$chain" || kill -KILL -- "-$chain" 2> /dev/null || true
  fi
  for pid in "${steps[@]}"; do kill -TERM "$pid" 2> /dev/null || true; done
  for _ in $(seq 45); do # Ray drains a node for 30 s
    [ -n "$(jobs -rp)" ] || break
    sleep 1
  done
  for pid in "${steps[@]}"; do kill -KILL "$pid" 2> /dev/null || true; done
  wait || true
  rm -rf "$secrets"
}
trap finish EXIT
trap 'exit 143' TERM INT
# shellcheck disable=SC2317
requeue() {
  echo "slurm.sh: out of time; queued again, the chain will go on from its checkpoints"
  finish
  scontrol requeue "$SLURM_JOB_ID" || true # last: Slurm kills what still runs
  exit 143
}
trap requeue USR1

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
per_node=(--nodes=1 --ntasks=1 --overlap "--cpus-per-task=${SLURM_CPUS_PER_TASK:-1}")
address=$(srun "${per_node[@]}" --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port
common=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --disable-usage-stats --block)
export RAY_ADDRESS=$address

wait_for() { # so many nodes
  local alive='import ray; ray.init(logging_level="ERROR"); print(sum(node["Alive"] for node in ray.nodes()))'
  local deadline=$((SECONDS + wait_seconds))
  until [ "$(python -c "$alive" 2> /dev/null || echo 0)" -ge "$1" ]; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "slurm.sh: fewer than $1 of ${nodes[*]} joined within $wait_seconds s" >&2
      exit 1
    fi
    sleep 2
  done
}

# The dashboard listens on the head node alone: ssh -L 8265:localhost:8265 HEAD
srun "${per_node[@]}" --nodelist="$head" ray start --head --node-ip-address="${address%:*}" --port="$port" \
  --dashboard-host=127.0.0.1 "${common[@]}" &
steps+=($!)
wait_for 1
for node in "${nodes[@]:1}"; do
  srun "${per_node[@]}" --nodelist="$node" ray start --address="$address" "${common[@]}" &
  steps+=($!)
done
wait_for "${#nodes[@]}"
echo "slurm.sh: Ray on ${#nodes[@]} nodes, head $head ($address)"

setsid python -m stages.repro &
chain=$!
code=0
wait "$chain" || code=$?
chain=
exit "$code"
