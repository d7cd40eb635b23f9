#!/usr/bin/env bash
# What a node needs of the kernel: one line where io_uring is refused, and service without any of the
# features that newer kernels bring.
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

forbidden $EPERM serve demo --ports 0
check "forbidden by a filter: which calls, and what to type" \
    fails_with 1 seccomp io_uring_setup "docker run --security-opt"
forbidden $ENOSYS serve demo --ports 0
check "hidden by a filter: the same" fails_with 1 seccomp "docker run --security-opt"
forbidden $ENOMEM serve demo --ports 0
check "no memory for it: what to raise" fails_with 1 io_uring memory
forbidden $EINVAL serve demo --ports 0
check "a kernel that is too old: which one is needed" fails_with 1 "Linux 6.1"
forbidden $EPERM get demo 28
check "a client says the same" fails_with 3 seccomp "docker run --security-opt"

run bash -c "ulimit -n 4; exec \"$FERO\" serve demo --ports 0"
check "no descriptors: what to type" fails_with 1 "ulimit -n"

serves_with() # list of features
{
    start_node demo --shards 2 --memory.max 256M --io-features "$1"
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
