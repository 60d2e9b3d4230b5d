# sshd makes every command the leader of a session; elsewhere setsid has to.
haul_group=own
if ! kill -0 "-$$" 2>/dev/null; then
    if command -v setsid >/dev/null 2>&1; then
        haul_group=later
        set -- setsid "$@"
    else
        haul_group=none
    fi
fi
haul_say ready "$$" "$haul_group"
# Until the answer comes nothing has started, so that a client that is gone starts nothing.
IFS= read -r haul_go && [ "$haul_go" = go ] || exit 0
if [ -n "$haul_tty" ]; then
    stty "$haul_tty"
    haul_say started
fi
[ "$haul_stdin" = null ] && exec </dev/null
[ "$haul_stdout" = null ] && exec >/dev/null
case $haul_stderr in
null) exec 2>/dev/null ;;
merge) exec 2>&1 ;;
esac
exec "$@"
