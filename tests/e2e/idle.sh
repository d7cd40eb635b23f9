#!/usr/bin/env bash
# A node with nothing to do uses no CPU, whether it has connections or not.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

# CPU time of a process, in ticks.
ticks() # pid
{
    local line
    read -r line <"/proc/$1/stat"
    # "pid (name) state ...": user and system time are the 14th and 15th field.
    # shellcheck disable=SC2086
    set -- ${line##*) }
    echo $((${12} + ${13}))
}

links=100
pids=() names=() before=()
node() # options...
{
    start_node demo --shards 2 --memory.max 256M "$@"
    pids+=("$NODE_PID")
}

node && names+=("alone")
node --idle && names+=("alone, with --idle")
mkfifo "$folder/hold"
exec {hold}<>"$folder/hold"
for options in "" "--idle"; do
    # shellcheck disable=SC2086
    node $options && names+=("with $links idle links${options:+ and }$options")
    mkfifo "$folder/crowd$options"
    "$PROGRAMS/crowd" "$NODE" $links <"$folder/hold" >"$folder/crowd$options" {hold}>&- &
    read -r -t 60 OUT <"$folder/crowd$options"
    check "$links links are open" [ "$OUT" = "$links open" ]
done

# One measurement of all, long enough that a tick is half a per cent.
for pid in "${pids[@]}"; do before+=("$(ticks "$pid")"); done
begin_ms=$(now_ms)
sleep 2
took_ms=$(($(now_ms) - begin_ms))
per_s=$(getconf CLK_TCK)
for i in "${!pids[@]}"; do
    used=$(($(ticks "${pids[i]}") - before[i]))
    check "under 1 % of a core: ${names[i]} ($used ticks of $((took_ms * per_s / 1000)))" \
        [ $((used * 100 * 1000)) -lt $((took_ms * per_s)) ]
done

exec {hold}>&-
for pid in "${pids[@]}"; do
    kill -TERM "$pid"
    wait "$pid"
    STATUS=$?
    check "and it ends" is_status 0
done
wait
