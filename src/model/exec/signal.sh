[ -s "$haul_state/status" ] && haul_refuse ended
haul_runs || haul_refuse ended
haul_target=$haul_pid
[ "$haul_group" = own ] && [ "$haul_to_leader" = 0 ] && haul_target=-$haul_pid
kill "-$haul_signal" "$haul_target" 2>/dev/null && haul_say sent || haul_say denied
