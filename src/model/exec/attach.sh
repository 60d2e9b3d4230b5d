haul_say ready "$$" own
IFS= read -r haul_go && [ "$haul_go" = go ] || exit 0
exec 3<"$haul_state/stdout" 4<"$haul_state/stderr" </dev/null
haul_misses=0
while :; do
    # Asked before the reading, so that nothing can come after it.
    haul_over=no
    if [ -s "$haul_state/status" ]; then
        haul_over=yes
    elif ! haul_runs; then
        # The status is written a moment after the end.
        haul_misses=$((haul_misses + 1))
        [ "$haul_misses" -gt 5 ] && haul_over=lost
    fi
    cat <&3
    cat <&4 >&2
    [ "$haul_over" != no ] && break
    [ "$haul_wait" = 0 ] && haul_over=running && break
    sleep 0.2 2>/dev/null || sleep 1
done
case $haul_over in
yes) read -r haul_status <"$haul_state/status" ;;
running)
    echo "haul: $haul_id still runs, as process $haul_pid" >&2
    exit 0
    ;;
*)
    echo "haul: $haul_id has ended without leaving a status: was it killed, or the machine restarted?" >&2
    exit 255
    ;;
esac
[ "$haul_forget" = 1 ] && rm -rf "$haul_state"
exit "$haul_status"
