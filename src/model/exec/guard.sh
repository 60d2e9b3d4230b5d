
trap '' HUP INT QUIT TERM PIPE USR1 USR2
haul_say() { printf 'haul-guard %s %s\n' "$haul_nonce" "$*"; }
haul_lives() { kill -0 "$haul_target" 2>/dev/null; }
# Waits up to $1 tenths of a second; true when nothing is left.
haul_wait() {
    haul_left=$1
    while [ "$haul_left" -gt 0 ]; do
        haul_lives || return 0
        if sleep 0.1 2>/dev/null; then
            haul_left=$((haul_left - 1))
        else
            sleep 1
            haul_left=$((haul_left - 10))
        fi
    done
    ! haul_lives
}
# Asks by the signal $1, then by TERM, and kills after $2 tenths of a second.
haul_end() {
    if [ "$1" != 15 ]; then
        kill "-$1" "$haul_target" 2>/dev/null
        haul_wait 3 && return
    fi
    kill -15 "$haul_target" 2>/dev/null
    haul_wait "$2" && return
    kill -9 "$haul_target" 2>/dev/null
    haul_wait 50
}
haul_say ready
while IFS=' ' read -r haul_order haul_1 haul_2 haul_3; do
    case $haul_order in
    watch)
        haul_leader=$haul_1
        haul_target=$haul_2
        haul_grace=$haul_3
        haul_lives && haul_say ok || haul_say gone
        ;;
    group) kill "-$haul_1" "$haul_target" 2>/dev/null && haul_say ok || haul_say gone ;;
    leader) kill "-$haul_1" "$haul_leader" 2>/dev/null && haul_say ok || haul_say gone ;;
    end)
        (
            haul_end "$haul_1" "$haul_2"
            haul_say ended
        ) &
        haul_say ok
        ;;
    esac
done
# The client is gone or is done. A program that has ended by itself leaves behind what it
# wanted to; one that still runs has nobody left to run for.
[ -n "$haul_leader" ] && kill -0 "$haul_leader" 2>/dev/null && haul_end 15 "$haul_grace"
exit 0
