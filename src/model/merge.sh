# Merges stored chunks into the merged file of a run, and writes the record as it goes.
#
# Set before this text: temp, run, merged_file, prefix, record, record_head, record_tail,
# chunks, chunk_size, last_size, total_size, merged, batch.
#
# Everything private to the run stands in the directory $run. Once another run has renamed
# that directory, nothing here finds its files any more, and the script ends.
set -fu
umask 077
LC_ALL=C
export LC_ALL
state=$run/merge.state
tick=0

# The state is overwritten in place: that works on a full disk too.
tell() {
    [ -e "$state" ] && printf '%-99s\n' "$1" 1<>"$state"
}

finish() {
    tell "$1"
    exit 0
}

fail() {
    tell "failed $1"
    exit 1
}

cd "$temp" || exit 2
[ -e "$run/merge.sh" ] || exit 3
[ -e "$state" ] || printf '%-99s\n' starting >"$state" || exit 2
tell "running $$ 0" || exit 2
[ "$((4294967296 * 2))" = 8589934592 ] || fail arithmetic

# sizes FILE… prints each file's size in bytes, one a line, without reading the file.
# The state has 100 bytes, which shows what works here.
if [ "$(stat -c %s "$state" 2>/dev/null)" = 100 ]; then
    sizes() { stat -c %s "$@"; }
elif [ "$(stat -f %z "$state" 2>/dev/null)" = 100 ]; then
    sizes() { stat -f %z "$@"; }
else
    listed_size() {
        set -- $(ls -ln "$1")
        printf '%s\n' "${5-none}"
    }
    sizes() { for file; do listed_size "$file"; done; }
fi
[ "$(sizes "$state")" = 100 ] || fail sizes

# flush FILE… puts the files on the disk. A sync that takes no names syncs everything.
if sync "$state" 2>/dev/null; then
    flush() { sync "$@"; }
else
    flush() { sync; }
fi

pause=0.2
pause_tenths=2
nap() {
    sleep "$pause" 2>/dev/null && return
    pause=1
    pause_tenths=10
    sleep 1
}

# Whether the merged file is open at byte $1. Where the system does not tell, whether the
# file reaches that far.
stands_at() {
    position=
    while read -r key value; do
        [ "$key" = pos: ] && position=$value
    done 2>/dev/null </proc/self/fdinfo/3
    if [ -n "$position" ]; then
        [ "$position" = "$1" ]
    else
        reach=$(sizes "$merged_file") && [ "$reach" -ge "$1" ]
    fi
}

# The client is gone when its beat has stood still for 15 seconds of waiting.
beat=
idle_tenths=0
client_lives() {
    last=$beat
    while read -r key value; do
        [ "$key" = beat: ] && beat=$value
    done 2>/dev/null <"$run/lock"
    [ "$beat" = "$last" ] || idle_tenths=0
    [ "$idle_tenths" -lt 150 ]
}

# remove_chunks FIRST LAST: the names go into the private directory first, where a late
# removal can hit no chunk of another run.
remove_chunks() {
    from=$1
    to=$2
    number=$from
    set --
    while [ "$number" -le "$to" ]; do
        [ ! -e "./$prefix$number" ] || set -- "$@" "./$prefix$number"
        number=$((number + 1))
    done
    [ "$#" = 0 ] || mv -f "$@" "$run/" || return 1
    number=$from
    set --
    while [ "$number" -le "$to" ]; do
        [ ! -e "$run/$prefix$number" ] || set -- "$@" "$run/$prefix$number"
        number=$((number + 1))
    done
    [ "$#" = 0 ] || rm -f "$@"
}

true 3<>"$merged_file" || fail open
exec 3<>"$merged_file"
offset=$total_size
[ "$merged" = "$chunks" ] || offset=$((merged * chunk_size))
reach=$(sizes "$merged_file") || fail size
[ "$reach" -ge "$offset" ] || fail "size $reach"
if [ "$merged" != "$chunks" ]; then
    # Chunks have a multiple of 64 bytes.
    dd bs=64 seek="$((offset / 64))" count=0 conv=notrunc </dev/null >&3 2>/dev/null || fail seek
    stands_at "$offset" || fail seek
fi

# What an earlier merge recorded and did not get to remove.
first=$((merged - 63))
[ "$first" -gt 0 ] || first=1
remove_chunks "$first" "$merged" || fail remove

gone=no
while [ "$merged" != "$chunks" ]; do
    [ -e "$run/merge.sh" ] || exit 3
    [ ! -e "$run/merge.stop" ] || finish stopped
    tick=$((tick + 1))
    tell "running $$ $tick"

    next=$merged
    set --
    while [ "$#" -lt "$batch" ] && [ "$next" != "$chunks" ] && [ -f "./$prefix$((next + 1))" ]; do
        next=$((next + 1))
        set -- "$@" "./$prefix$next"
    done
    if [ "$#" = 0 ]; then
        [ "$gone" = no ] || finish left
        nap
        idle_tenths=$((idle_tenths + pause_tenths))
        client_lives || gone=yes
        continue
    fi

    number=$merged
    found=$(sizes "$@") || fail size
    for size in $found; do
        number=$((number + 1))
        wanted=$chunk_size
        [ "$number" != "$chunks" ] || wanted=$last_size
        [ "$size" = "$wanted" ] || fail "chunk $number"
    done
    [ "$number" = "$next" ] || fail size

    end=$total_size
    [ "$next" = "$chunks" ] || end=$((next * chunk_size))
    cat "$@" >&3 || fail cat
    stands_at "$end" || fail cat

    printf '%s\nsize: %s\nchunk: %s\n%s\nend: %s\n' \
        "$record_head" "$end" "$next" "$record_tail" "$next" >"$run/record" || fail record
    written=
    while read -r key value; do
        [ "$key" = end: ] && written=$value
    done <"$run/record"
    [ "$written" = "$next" ] || fail record
    flush "$merged_file" "$run/record" || fail sync
    mv -f "$run/record" "./$record" || fail record
    remove_chunks "$((merged + 1))" "$next" || fail remove
    merged=$next
done
[ "$(sizes "$merged_file")" = "$total_size" ] || fail size
finish done
