#!/usr/bin/env bash
# Makes this machine a SLURM cluster of one node with two CPUs, for tests: installs Debian's packages, writes a
# configuration and starts the daemons without systemd. Needs root. It replaces /etc/slurm/slurm.conf.
#
#     tests/slurm/install_slurm.sh [start]    install and start (nothing happens where a cluster answers)
#     tests/slurm/install_slurm.sh stop       stop the daemons that it started
set -euo pipefail

STATE=/var/lib/parallax-slurm # logs, process ids, the controller's memory
HOST=$(hostname -s)

stop() {
    for name in slurmd slurmctld munged; do
        if [ -f "$STATE/$name.pid" ]; then
            kill "$(cat "$STATE/$name.pid")" 2>/dev/null || true
            rm -f "$STATE/$name.pid"
        fi
    done
}

install() {
    if command -v slurmctld slurmd sbatch munged >/dev/null; then return; fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -qy --no-install-recommends slurmctld slurmd slurm-client munge
}

configure() {
    mkdir -p "$STATE/controller" "$STATE/node" /etc/slurm /run/munge
    chown munge: /run/munge
    chmod 755 /run/munge
    cat >/etc/slurm/slurm.conf <<EOF
# Written by tests/slurm/install_slurm.sh: one node, no accounting, no cgroups.
ClusterName=parallax
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
StateSaveLocation=$STATE/controller
SlurmdSpoolDir=$STATE/node
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=3600
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=$HOST Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
EOF
}

start() {
    if ! munge -n >/dev/null 2>&1; then
        runuser -u munge -- munged --force
        cp /run/munge/munged.pid "$STATE/munged.pid"
    fi
    slurmctld
    slurmd -N "$HOST" 2>/dev/null || slurmd
    for _ in $(seq 60); do
        if sinfo -h -o %T 2>/dev/null | grep -qE 'idle|mixed|allocated'; then return; fi
        sleep 0.5
    done
    echo "SLURM does not start; see $STATE/slurmctld.log and slurmd.log" >&2
    exit 1
}

case "${1:-start}" in
stop) stop ;;
start)
    if command -v sinfo >/dev/null && sinfo >/dev/null 2>&1; then exit 0; fi
    if [ "$(id -u)" != 0 ]; then
        echo "only root can install and start SLURM" >&2
        exit 1
    fi
    install
    configure
    stop
    start
    ;;
*)
    echo "usage: $0 [start|stop]" >&2
    exit 2
    ;;
esac
