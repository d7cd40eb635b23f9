#!/usr/bin/env bash
# What a node needs of the kernel: one line where io_uring is asked for and refused, epoll where it was
# left open, and service without any of the features that newer kernels bring.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib.sh
. tests/e2e/lib.sh

EPERM=1
ENOMEM=12
EINVAL=22
ENOSYS=38
forbidden() # errno, fero's arguments...
{
    run "$PROGRAMS/forbid" "$1" "$FERO" "${@:2}"
    [ "$STATUS" -ne 77 ] && return
    echo "ok io_uring is refused # SKIP no seccomp here: $ERR"
    exit 0
}

forbidden $EPERM serve demo --ports 0 --io uring
check "forbidden by a filter: which calls, and what to type" \
    fails_with 1 seccomp io_uring_setup "docker run --security-opt"
forbidden $ENOSYS serve demo --ports 0 --io uring
check "hidden by a filter: the same" fails_with 1 seccomp "docker run --security-opt"
forbidden $ENOMEM serve demo --ports 0 --io uring
check "no memory for it: what to raise" fails_with 1 io_uring memory
forbidden $EINVAL serve demo --ports 0 --io uring
check "a kernel that is too old: which one is needed" fails_with 1 "Linux 6.1"
forbidden $EPERM get demo 28 --io uring
check "a client says the same" fails_with 1 seccomp "docker run --security-opt"
run "$FERO" serve demo --ports 0 --io epoll --io-features none
check "epoll has no features" fails_with 2 io-features epoll
run "$FERO" serve demo --ports 0 --io poll
check "another way to speak to the kernel" fails_with 2 --io poll "auto, uring, epoll"

# Both sides without io_uring, as in a container.
unset FERO_IO
printf '#!/bin/sh\nexec "%s" %s "%s" "$@"\n' "$PROGRAMS/forbid" $EPERM "$FERO" >"$folder/fero"
chmod +x "$folder/fero"
allowed=$FERO
FERO=$folder/fero
start_node demo --shards 2 --memory.max 256M
says() { [[ $READY == *"\"io\":\"epoll\""*"io_uring is refused: a seccomp filter"* ]]; }
check "refused: epoll serves, and the node says why" says
run "$FERO" set demo 28 david --seeds "$NODE"
run "$FERO" get demo 28 --seeds "$NODE"
check "refused: set and get" prints david
run "$allowed" get demo 28 --seeds "$NODE" --io epoll
check "a client with io_uring may choose epoll" prints david
run "$FERO" info demo --seeds "$NODE"
check "refused: INFO says so" prints_like '*"io":"epoll"*"io_why":"io_uring is refused: *'
run "$FERO" bench speed -r 20k --keys 1000 --seeds "$NODE" --json
check "refused: 20,000 updates" is_status 0
stop_node TERM
check "refused: and it ends" is_status 0
FERO=$allowed

run bash -c "ulimit -n 4; exec \"$FERO\" serve demo --ports 0"
check "no descriptors: what to type" fails_with 1 "ulimit -n"
run "$FERO" get demo 28 --io uring --seeds 127.0.0.1:1 --timeout 100
if [[ $ERR != *"no node"* ]]; then
    echo "ok features of io_uring # SKIP $ERR"
    exit 0
fi

serves_with() # list of features
{
    start_node demo --shards 2 --memory.max 256M --io uring --io-features "$1"
    run "$FERO" set demo 28 david --seeds "$NODE"
    run "$FERO" get demo 28 --seeds "$NODE"
    check "--io-features $1: set and get" prints david
    run "$FERO" bench speed -r 20k --keys 1000 --seeds "$NODE" --json
    check "--io-features $1: 20,000 updates" is_status 0
    stop_node TERM
    check "--io-features $1: and it ends" is_status 0
}
for feature in defer_taskrun ring_fd msg_ring no_iowait recv_bundle send_zc udp_gro; do
    serves_with "-$feature"
    serves_with "+$feature"
done
serves_with none
serves_with all
