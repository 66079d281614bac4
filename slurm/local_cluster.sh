#!/usr/bin/env bash
# A real SLURM of several nodes on one machine, for the tests in tests/slurm and for trying job scripts.
#
#   slurm/local_cluster.sh packages       install what it needs (apt-get; no service is started)
#   slurm/local_cluster.sh start [NODES [PID]]
#                                         2 nodes n1, n2 by default; nothing to do if it is up.
#                                         With PID it is of that process alone and ends with it,
#                                         however that ends
#   slurm/local_cluster.sh status         code 0 if all nodes answer, 3 if there is no cluster
#   slurm/local_cluster.sh cut NODE       take a node off the network, as a broken cable would
#   slurm/local_cluster.sh join NODE      and put it back
#   slurm/local_cluster.sh stop           end the jobs and daemons, remove all traces but the logs
#
# Then `. $AQNET_SLURM_DIR/env.sh`, and sbatch, srun, squeue work as on any cluster.
#
# Needs: Debian 12 (SLURM 22.05), root, and the right to make namespaces (in a container
# CAP_SYS_ADMIN and CAP_NET_ADMIN, such as `docker run --privileged`). Refuses on a machine that
# belongs to a cluster.
#
# How: each node is a network namespace with an address of its own on a bridge, a host name and an
# /etc/hosts of its own, and Debian's slurmd in it (built with multiple-slurmd, `slurmd -N n1`).
# Files are shared by nature. All processes of the cluster, jobs too, live in these namespaces;
# `stop` ends exactly those, and each srun elsewhere that waits for them. Outside $AQNET_SLURM_DIR
# there are only the network namespaces and links $AQNET_SLURM_NAME-* (aqnet-*).
set -euo pipefail

DIR=${AQNET_SLURM_DIR:-/tmp/aqnet-slurm} # short: the path of a socket has 108 characters at most
NET=${AQNET_SLURM_NET:-10.213.7}         # a /24 that is used for nothing else here
CPUS=${AQNET_SLURM_CPUS:-4}              # that each node claims to have, whatever the machine has
NAME=${AQNET_SLURM_NAME:-aqnet}          # of namespaces and links; another one for a second cluster
SMALL=${AQNET_SLURM_SMALL:-32m}          # size of $DIR/small, for tests of a full disk
PACKAGES=(munge slurmctld slurmd slurm-client iproute2 util-linux)
BRIDGE=$NAME-br
PORT=6817

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '  remedy:   %s\n' "$@" >&2; fi
    exit 2
}

# ---- what it needs

require_root() {
    [ "$(id -u)" = 0 ] || fail "the local cluster needs root: slurmd starts jobs for any user" \
        "run as root in a container or virtual machine; jobs for real clusters need no such thing"
}

require_tools() {
    local missing=() tool
    for tool in munged slurmctld slurmd sbatch ip unshare; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) || fail "not installed: ${missing[*]}" \
        "$0 packages (Debian 12: ${PACKAGES[*]})"
}

require_free_machine() {
    [ ! -e /etc/slurm/slurm.conf ] || fail "this machine belongs to a cluster: /etc/slurm/slurm.conf" \
        "run the tests elsewhere, or submit to that cluster"
    unshare --net --uts --mount true 2>/dev/null || fail "no right to make namespaces" \
        "run the container with CAP_SYS_ADMIN and CAP_NET_ADMIN, such as docker run --privileged"
}

packages() {
    local missing=() package policy=/usr/sbin/policy-rc.d apt
    require_root
    for package in "${PACKAGES[@]}"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "apt-get is not here, but the packages are Debian's" \
        "use a Debian 12 machine or container"
    if [ ! -e $policy ]; then # else the packages' own daemons would start
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    # a mirror that does not answer must not hold up whoever waits: 20 s a try, not 120
    apt=(apt-get -qq -y -o DPkg::Lock::Timeout=60 -o Acquire::Retries=1
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
    fetch() { timeout 300 "${apt[@]}" install --download-only --no-install-recommends "${missing[@]}"; }
    fetch >/dev/null 2>&1 || { timeout 120 "${apt[@]}" update && fetch; } ||
        fail "cannot fetch the Debian packages of SLURM: ${missing[*]}" \
            "give this machine a mirror of Debian 12 (apt-get's words are above), or an image with them"
    "${apt[@]}" install --no-install-recommends "${missing[@]}" ||
        fail "cannot install the Debian packages of SLURM: ${missing[*]}" "apt-get's own words are above"
}

# ---- namespaces: the controller's, and one of each node

spaces() { ip netns list 2>/dev/null | sed -n "s/^\($NAME-[a-z0-9]*\).*/\1/p"; }

# add_space NAME ADDRESS: a namespace with a link to the bridge
add_space() {
    local space=$NAME-$1
    ip netns add "$space"
    ip link add "$space" type veth peer name eth0 netns "$space"
    ip link set "$space" master $BRIDGE up
    ip -n "$space" address add "$2/24" dev eth0
    ip -n "$space" link set lo up
    ip -n "$space" link set eth0 up
    ip -n "$space" route add default via "$NET.254"
}

# inside NAME COMMAND...: with the namespace, the host name and the hosts file of NAME
inside() {
    local name=$1
    shift
    # not `ip netns exec`: it hides the cgroups, without which slurmd does not start
    (cd / && nsenter --net="/run/netns/$NAME-$name" unshare --uts --mount sh -c '
        hostname "$1" && cd "$2" && shift 2 &&
        mount --bind hosts /etc/hosts && mount --bind nsswitch.conf /etc/nsswitch.conf && exec "$@"
        ' sh "$name" "$DIR/etc" "$@" </dev/null >>"$DIR/log/$name.out" 2>&1 9<&-) || {
        tail -n 20 "$DIR/log/$name.out" "$DIR/log/$name.log" >&2 || true
        fail "$1 did not start on $name" "see $DIR/log"
    }
}

# ---- files

write_files() {
    local nodes=$1 i memory
    rm -rf "${DIR:?}"/{etc,log,state,spool,run}
    mkdir -p "$DIR"/{etc,log,state,spool,run,small}
    chmod 755 "$DIR" "$DIR"/*
    {
        printf '127.0.0.1 localhost\n%s ctl\n%s %s\n' "$NET.1" "$NET.254" "$(hostname -s)"
        for i in $(seq "$nodes"); do echo "$NET.$((10 + i)) n$i"; done
    } >"$DIR/etc/hosts"
    # no name server: c10d looks up each peer and would wait for the time limit of the resolver
    printf '%s: files\n' hosts passwd group >"$DIR/etc/nsswitch.conf"
    (umask 077 && head -c 1024 /dev/urandom >"$DIR/etc/munge.key")
    memory=$(awk '/MemTotal/ {print int($2 / 1024) - 512}' /proc/meminfo)
    cat >"$DIR/etc/slurm.conf" <<CONF
ClusterName=$NAME
SlurmctldHost=ctl($NET.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a job that was requeued waits until its old credential has expired; 120 s by default
AuthInfo=socket=$DIR/run/munge.socket,cred_expire=5
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/%n.pid
SlurmctldLogFile=$DIR/log/ctl.log
SlurmdLogFile=$DIR/log/%n.log
# nothing that needs cgroups, a database, MPI or a switch
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
# nodes claim more CPUs than the machine has, and memory is not given out
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=0,batch_sched_delay=0
JobRequeue=1
# a node that was lost is missed after SlurmdTimeout, and serves again when it is back
SlurmdTimeout=20
ReturnToService=2
# between the SIGTERM and the SIGKILL of a job that is cancelled
KillWait=15
# finished jobs stay visible for tests
MinJobAge=3600
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=30 State=UP
CONF
    for i in $(seq "$nodes"); do
        mkdir "$DIR/spool/n$i"
        echo "NodeName=n$i NodeAddr=$NET.$((10 + i)) Port=$((PORT + 1)) CPUs=$CPUS" \
            "RealMemory=$memory State=UNKNOWN" >>"$DIR/etc/slurm.conf"
    done
    printf '# for sbatch, srun, squeue and scontrol\nexport SLURM_CONF=%s\n' \
        "$DIR/etc/slurm.conf" >"$DIR/env.sh"
}

# ---- start, stop

# up_nodes: how many nodes serve, busy or not
up_nodes() {
    timeout 10 sinfo --noheader --Node --responding --states=idle,alloc,mix,comp --format=%N \
        2>/dev/null | sort -u | wc -l
}

# owned: whether the cluster is of a process that lives, and is not $1
owned() {
    local owner
    owner=$(cat "$DIR/owner" 2>/dev/null) && [ "$owner" != "$1" ] && [ -e "/proc/$owner" ]
}

# locked: one start or stop at a time. Daemons must not inherit the lock: 9<&- where they begin
locked() {
    exec 9<"$0"
    flock --timeout 120 9 || fail "another $0 does not come to its end" "fuser $0"
}

# guard PID: stop the cluster of a process once that has ended
guard() {
    tail --pid="$1" --follow /dev/null
    locked
    [ "$(cat "$DIR/owner" 2>/dev/null)" != "$1" ] || stop
}

start() {
    local nodes=${1:-2} owner=${2:-} i
    case $nodes in [1-9] | [1-9][0-9]) ;; *) fail "not a number of nodes from 1 to 99: $nodes" ;; esac
    [ -z "$owner" ] || [ -e "/proc/$owner" ] || fail "not a process: $owner" "$0 start $nodes"
    require_root
    require_tools
    require_free_machine
    export SLURM_CONF=$DIR/etc/slurm.conf
    ! owned "$owner" || fail "the cluster in $DIR is in use by process $(cat "$DIR/owner")" \
        "wait for its end, or start another one: AQNET_SLURM_DIR=... AQNET_SLURM_NAME=... AQNET_SLURM_NET=..."
    if [ -n "$(spaces)" ] && [ "$(cat "$DIR/owner" 2>/dev/null)" = "$owner" ] &&
        [ "$(up_nodes)" = "$nodes" ]; then
        sinfo
        return
    fi
    stop
    ! ip -4 address show | grep -qF " $NET." || fail "the network $NET.0/24 is in use here" \
        "AQNET_SLURM_NET=10.214.7 $0 start"
    write_files "$nodes"
    mount -t tmpfs -o "size=$SMALL" aqnet-small "$DIR/small" # before the nodes: they inherit it
    trap stop EXIT # whatever fails from here on
    ip link add $BRIDGE type bridge
    ip address add "$NET.254/24" dev $BRIDGE
    ip link set $BRIDGE up
    add_space ctl "$NET.1"
    for i in $(seq "$nodes"); do add_space "n$i" "$NET.$((10 + i))"; done
    # --force: $DIR may lie in a folder that others can write to
    inside ctl munged --force --key-file="$DIR/etc/munge.key" --socket="$DIR/run/munge.socket" \
        --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log" \
        --seed-file="$DIR/run/munged.seed"
    inside ctl slurmctld -f "$SLURM_CONF"
    for i in $(seq "$nodes"); do inside "n$i" slurmd -N "n$i" -f "$SLURM_CONF"; done
    for i in $(seq 120); do
        if [ "$(up_nodes)" = "$nodes" ]; then
            trap - EXIT
            if [ -n "$owner" ]; then
                echo "$owner" >"$DIR/owner"
                setsid "$0" guard "$owner" </dev/null >>"$DIR/log/guard.out" 2>&1 9<&- &
            fi
            sinfo
            echo "up: $nodes nodes of $CPUS CPUs; . $DIR/env.sh"
            return
        fi
        sleep 0.5
    done
    tail -n 15 "$DIR"/log/*.log >&2
    fail "the nodes did not come up in 60 s" "see $DIR/log"
}

stop() {
    local space i pids waiting
    require_root
    export SLURM_CONF=$DIR/etc/slurm.conf
    if [ -n "$(spaces)" ]; then
        timeout 10 scancel --user=root >/dev/null 2>&1 || true # jobs end as they would anywhere
        for i in $(seq 40); do
            [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
            sleep 0.5
        done
    fi
    for space in $(spaces); do
        pids=$(ip netns pids "$space")
        [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
        ip netns delete "$space"
        ip link delete "$space" 2>/dev/null || true
    done
    for waiting in /proc/[0-9]*; do # an srun that was started by hand would go on waiting
        if [ "$(cat "$waiting/comm" 2>/dev/null)" = srun ] &&
            grep -qzFx "SLURM_CONF=$SLURM_CONF" "$waiting/environ" 2>/dev/null; then
            kill -KILL "${waiting#/proc/}" 2>/dev/null || true
        fi
    done
    ip link delete $BRIDGE 2>/dev/null || true
    umount --lazy "$DIR/small" 2>/dev/null || true
    rm -f "$DIR/owner" # last: a stop that was interrupted is finished by `guard`
}

status() {
    export SLURM_CONF=$DIR/etc/slurm.conf
    if [ ! -e "$SLURM_CONF" ] || ! command -v sinfo >/dev/null || ! timeout 10 sinfo --Node --long 2>&1; then
        echo "no local cluster; $0 start"
        return 3
    fi
}

# link NODE up|down
link() {
    [ -n "${1:-}" ] && ip link show "$NAME-$1" >/dev/null 2>&1 ||
        fail "not a node of the local cluster: ${1:-}" "$0 status lists them"
    ip link set "$NAME-$1" "$2"
}

case ${1:-} in
    packages | status) "$1" ;;
    stop) locked && stop ;;
    start) locked && start "${2:-}" "${3:-}" ;;
    guard) guard "$2" ;; # for `start` alone
    cut) link "${2:-}" down ;;
    join) link "${2:-}" up ;;
    *)
        sed -n '2,27s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
