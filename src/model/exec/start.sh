
haul_say() { printf 'haul-exec %s %s\n' "$haul_nonce" "$*"; }
haul_refuse() { haul_say "$@"; exit 0; }
if [ "$haul_chdir" = 1 ]; then
    case $haul_directory in /*) ;; *) haul_directory=./$haul_directory ;; esac
    cd "$haul_directory" 2>/dev/null || {
        [ -d "$haul_directory" ] && haul_refuse directory-denied
        [ -e "$haul_directory" ] && haul_refuse directory-file
        haul_refuse directory-absent
    }
fi
# The search is the one of execvp, so that what cannot start is known before anything has.
haul_found=absent
haul_try() {
    [ -f "$1" ] || return 1
    [ -x "$1" ] && haul_found=yes || haul_found=denied
    [ "$haul_found" = yes ]
}
case $haul_program in
*/*)
    haul_try "$haul_program"
    [ -d "$haul_program" ] && haul_found=denied
    ;;
*)
    [ "$haul_path_given" = 1 ] || haul_path=$PATH
    set -f
    haul_ifs=$IFS
    IFS=:
    for haul_part in $haul_path; do
        haul_try "${haul_part:-.}/$haul_program" && break
    done
    IFS=$haul_ifs
    set +f
    # BusyBox may run what lies in no directory.
    [ "$haul_found$haul_path_given" = absent0 ] && command -v "$haul_program" >/dev/null 2>&1 && haul_found=yes
    ;;
esac
[ "$haul_found" = yes ] || haul_refuse "program-$haul_found"
