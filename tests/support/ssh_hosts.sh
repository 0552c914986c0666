#!/usr/bin/env bash
# Two machines that ssh reaches, on this one: tests/support/ssh_hosts.sh FOLDER COMMAND... runs COMMAND on a third, the laptop.
#
# Needs root, Debian's openssh-server and rsync, and util-linux. 127.0.0.2 and 127.0.0.3 listen on port 2222. Each has its
# own name, process tree (`ray stop` ends every Ray process that it sees), /tmp/ray, and home below FOLDER; all share a
# network of their own, so that no port and no ssh setting of the real machine is touched. FOLDER/NAME.pid holds the
# process whose end is the end of that machine: `kill -9` is pulling the plug. When COMMAND ends, everything ends.
set -euo pipefail

script=$(readlink -f "$0")

outside() {
  exec unshare --mount --uts --net --pid --fork --mount-proc --kill-child "$script" laptop "$@"
}

laptop() {
  folder=$1
  shift
  ip link set lo up
  mkdir -p "$folder/keys" /tmp/ray /run/sshd
  ssh-keygen -q -t ed25519 -N '' -f "$folder/keys/host"
  ssh-keygen -q -t ed25519 -N '' -f "$folder/keys/user"
  "$script" boot "$folder" head 127.0.0.2
  "$script" boot "$folder" worker 127.0.0.3
  own_files laptop
  "$@"
}

# A machine's own name, home of root, which its own /etc/passwd names (ssh asks there, not $HOME), and /tmp/ray.
own_files() {
  home=$folder/$1
  mkdir -p "$home"/{.ssh,ray}
  printf 'Port 2222\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n' >"$home/.ssh/config"
  sed "s|^\(root:.*:\)[^:]*\(:[^:]*\)$|\1$home\2|" /etc/passwd >"$home/passwd"
  echo "$1" >/proc/sys/kernel/hostname
  mount --bind "$home/passwd" /etc/passwd
  mount --bind "$home/ray" /tmp/ray
  export HOME=$home
}

boot() {
  folder=$1
  cat >"$folder/$2.sshd" <<EOF
ListenAddress $3:2222
HostKey $folder/keys/host
AuthorizedKeysFile $folder/keys/user.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
EOF
  setsid unshare --mount --uts --pid --fork --mount-proc --kill-child "$script" machine "$folder" "$2" \
    >>"$folder/$2.log" 2>&1 &
  echo $! >"$folder/$2.pid"
  for _ in $(seq 50); do
    (exec 3<>"/dev/tcp/$3/2222") 2>/dev/null && return
    sleep 0.1
  done
  cat "$folder/$2.log" >&2
  exit 1
}

machine() {
  folder=$1
  own_files "$2"
  exec /usr/sbin/sshd -D -e -f "$folder/$2.sshd"
}

case "$1" in
  laptop | boot | machine) "$@" ;;
  *) outside "$@" ;;
esac
