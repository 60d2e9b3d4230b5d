haul_base=$HOME/.local/state/haul/exec
haul_state=$haul_base/$haul_id
haul_say ready "$$" own
IFS= read -r haul_go && [ "$haul_go" = go ] || exit 0
(umask 077 && mkdir -p "$haul_base" && mkdir "$haul_state" && : >"$haul_state/pid") 2>/dev/null ||
    haul_refuse state-denied
if [ "$haul_stdin" = null ]; then
    haul_input=/dev/null
else
    haul_input=$haul_state/stdin
    (umask 077 && cat >"$haul_input")
    # What the link cut off is not run on half of its input.
    [ "$(($(wc -c <"$haul_input")))" = "$haul_stdin_bytes" ] || {
        rm -rf "$haul_state"
        haul_refuse state-input
    }
fi
(umask 077 && : >"$haul_state/stdout" && : >"$haul_state/stderr") || haul_refuse state-denied
haul_stdout_file=$haul_state/stdout
[ "$haul_stdout" = null ] && haul_stdout_file=/dev/null
haul_stderr_file=$haul_state/stderr
[ "$haul_stderr" = null ] && haul_stderr_file=/dev/null
[ "$haul_stderr" = merge ] && haul_stderr_file=$haul_stdout_file
haul_setsid=
command -v setsid >/dev/null 2>&1 && haul_setsid=setsid
# Nobody reads what the shell says of a signal, and writing to nobody would end it.
exec 2>/dev/null
# In the foreground: what a shell puts into the background ignores SIGINT for ever.
$haul_setsid sh -c '
    haul_state=$1 haul_nonce=$2 haul_stdin=$3 haul_stdout=$4 haul_stderr=$5
    shift 5
    kill -0 "-$$" 2>/dev/null && group=own || group=none
    start=
    boot=
    if { read -r line <"/proc/$$/stat"; } 2>/dev/null; then
        rest=${line##*) }
        start=$(set -- $rest; shift 19; echo "$1")
        { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    fi
    printf "%s %s %s %s\n" "$$" "$group" "${start:--}" "${boot:--}" >"$haul_state/pid"
    printf "haul-exec %s detached %s\n" "$haul_nonce" "$$"
    exec "$@" <"$haul_stdin" >>"$haul_stdout" 2>>"$haul_stderr"
' sh "$haul_state" "$haul_nonce" "$haul_input" "$haul_stdout_file" "$haul_stderr_file" "$@"
haul_status=$?
umask 077
printf '%s\n' "$haul_status" >"$haul_state/status.new" && mv "$haul_state/status.new" "$haul_state/status"
