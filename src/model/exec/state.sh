
haul_say() { printf 'haul-exec %s %s\n' "$haul_nonce" "$*"; }
haul_refuse() { haul_say "$@"; exit 0; }
haul_state=$HOME/.local/state/haul/exec/$haul_id
{ read -r haul_pid haul_group haul_start haul_boot <"$haul_state/pid"; } 2>/dev/null || haul_refuse state-absent
case $haul_pid in '' | *[!0-9]*) haul_refuse state-absent ;; esac
# Pids are given out again: it has to be the process that was started.
haul_runs() {
    kill -0 "$haul_pid" 2>/dev/null || return 1
    [ "$haul_start" = - ] && return 0
    { read -r haul_now </proc/sys/kernel/random/boot_id; } 2>/dev/null
    [ "$haul_boot" = - ] || [ "$haul_boot" = "$haul_now" ] || return 1
    { read -r haul_line <"/proc/$haul_pid/stat"; } 2>/dev/null || return 1
    haul_rest=${haul_line##*) }
    haul_began=$(set -- $haul_rest; shift 19; echo "$1")
    [ "$haul_began" = "$haul_start" ]
}
