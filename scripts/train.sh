#!/usr/bin/env bash
# Train the stages of a recipe with plain fairseq-train, one after the other.
#
#   bash scripts/train.sh RECIPE --data DIR --save DIR [--stage NAME]... [--processes N] [--dry-run] [-- FLAGS...]
#
#   RECIPE       a file of configs/, for example configs/tiny_espeak.sh (or just its name, tiny_espeak)
#   --data DIR   data folder made by `nast-s2x prepare` (default: $DATA)
#   --save DIR   where checkpoints and logs go, one folder for each stage (default: $SAVE)
#   --stage NAME only this stage (may be repeated); default: all stages of the recipe
#   --processes N  data-parallel over N processes on this machine's CPU (default: the recipe's PROCESSES, or 1); a GPU
#                run needs no such thing, fairseq-train uses all GPUs by itself
#   --dry-run    print the commands and run nothing
#   --           everything behind it is passed to fairseq-train and overrides the recipe
#
# The same command again continues where it was interrupted: fairseq restores checkpoint_last.pt, and a stage that has
# run to its end (file `finished` in its folder) is passed over.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fail() { echo "train.sh: $*" >&2; exit 2; }
usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

recipe='' only=() extra=() dry_run=0 processes=''
DATA=${DATA:-} SAVE=${SAVE:-}
while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --data) DATA=${2:?--data needs a folder}; shift ;;
        --save) SAVE=${2:?--save needs a folder}; shift ;;
        --stage) only+=("${2:?--stage needs a name}"); shift ;;
        --processes) processes=${2:?--processes needs a number}; shift ;;
        --dry-run) dry_run=1 ;;
        --) shift; extra=("$@"); break ;;
        -*) fail "unknown option $1 (flags of fairseq-train come after --)" ;;
        *) [[ -z $recipe ]] || fail "one recipe at a time, got $recipe and $1"; recipe=$1 ;;
    esac
    shift
done

[[ -n $recipe ]] || { usage >&2; exit 2; }
[[ -f $recipe ]] || recipe=$root/configs/${recipe%.sh}.sh
[[ -f $recipe ]] || fail "no recipe $recipe; there are: $(cd "$root/configs" && ls ./*.sh | tr '\n' ' ')"
[[ -n $DATA ]] || fail "say where the data folder is: --data DIR (or DATA=DIR)"
[[ -n $SAVE ]] || fail "say where checkpoints go: --save DIR (or SAVE=DIR)"
[[ -f $DATA/config.yaml ]] || fail "$DATA has no config.yaml: make the data folder with nast-s2x prepare"

fairseq_train=${VENV:-$root/.venv}/bin/fairseq-train
[[ -x $fairseq_train ]] || fairseq_train=$(command -v fairseq-train) || fail "fairseq-train not found: run scripts/install.sh train"

# A recipe sets STAGES, COMMON (flags of every stage) and one array STAGE_<name> for each stage; it may use DATA and SAVE.
STAGES=() COMMON=() PROCESSES=1
# shellcheck source=/dev/null
source "$recipe"
((${#STAGES[@]})) || fail "$recipe names no STAGES"
processes=${processes:-$PROCESSES}
[[ $processes =~ ^[1-9][0-9]*$ ]] || fail "--processes takes a number from 1, got $processes"
for stage in ${only[@]+"${only[@]}"}; do
    [[ " ${STAGES[*]} " == *" $stage "* ]] || fail "$recipe has no stage $stage; it has: ${STAGES[*]}"
done

# Runs "$@" as so many ranks as asked for; what rank 0 prints goes to the terminal. gloo, because fairseq's own spawning
# does not work on CPUs. Rank 0 alone writes checkpoints; if one rank fails, all end.
run_ranks() {
    local folder=$1 port rank status=0 ranks=()
    shift
    if ((processes == 1)); then
        "$@" 2>&1 | tee -a "$folder/train.log"
        return
    fi
    port=$("$(dirname "$fairseq_train")/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    local parallel=(--distributed-world-size "$processes" --distributed-no-spawn --distributed-backend gloo
        --distributed-init-method "tcp://127.0.0.1:$port" --ddp-backend legacy_ddp)
    local threads=$(($(nproc) / processes))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
    for ((rank = 1; rank < processes; rank++)); do
        "$@" "${parallel[@]}" --distributed-rank "$rank" >>"$folder/rank$rank.log" 2>&1 &
        ranks+=($!)
    done
    "$@" "${parallel[@]}" --distributed-rank 0 > >(tee -a "$folder/train.log") 2>&1 &
    ranks+=($!)
    trap 'kill "${ranks[@]}" 2>/dev/null || true' EXIT
    for rank in "${ranks[@]}"; do
        # Whichever ends first: the others would wait for one that failed. (bash complains about those it has waited for.)
        wait -n "${ranks[@]}" 2>/dev/null || { status=$?; break; }
    done
    kill "${ranks[@]}" 2>/dev/null || true
    trap - EXIT
    return "$status"
}

# Fails where --continue-once of a stage's command names no file: fairseq would train from scratch without a word.
needs_checkpoint() {
    while (($#)); do
        [[ $1 != --continue-once || -f ${2:-} ]] || fail "stage $stage continues ${2:-}, which is not there: train the stage before it first"
        shift
    done
}

for stage in "${STAGES[@]}"; do
    [[ ${#only[@]} -eq 0 || " ${only[*]} " == *" $stage "* ]] || continue
    folder=$SAVE/$stage
    if [[ -f $folder/finished && $dry_run -eq 0 ]]; then
        echo "== stage $stage is finished; remove $folder/finished to train it further"
        continue
    fi
    declare -n flags="STAGE_$stage"
    command=("$fairseq_train" "$DATA" --user-dir "$root/nast_s2x" --save-dir "$folder"
        "${COMMON[@]}" "${flags[@]}" ${extra[@]+"${extra[@]}"})
    unset -n flags
    echo "== stage $stage"
    printf '%q ' "${command[@]}"
    echo
    ((dry_run)) && continue
    [[ -f $folder/checkpoint_last.pt ]] || needs_checkpoint "${command[@]}"
    mkdir -p "$folder"
    run_ranks "$folder" "${command[@]}"
    touch "$folder/finished"
done
