# The keeper: one per process that uses the stack. It starts servers and sees to it that none of
# them, and nothing on disk, outlives the process at the other end of its standard input.
#
#   $1    where the keeper makes its directory; its path is the one line printed on stdout
#   stdin the homes of programs to start, one a line: HOME/run is run, its output goes to
#         HOME/log, its exit status to HOME/exit
#
# End of input means that our process has gone, be it by return, panic, SIGKILL or Ctrl-C (which
# never reaches us: we are a process group of our own, and so are the servers we start).

root=$(mktemp -d "$1/waltide-stack.XXXXXX") || exit 1
chmod 755 "$root"
printf '%s\n' "$root"
exec >/dev/null 2>&1

# "pid parent" of every process; without a fork where /proc is there.
processes() {
    if [ -r /proc/self/stat ]; then
        for stat in /proc/[0-9]*/stat; do
            read -r line <"$stat" || continue
            rest=${line##*) }
            rest=${rest#* }
            printf '%s %s\n' "${line%% *}" "${rest%% *}"
        done
    else
        ps -A -o pid= -o ppid=
    fi
}

# Stops each descendant as it is found, so that none can beget another, then kills them all.
# Killing by process group would miss Postgres: each of its backends makes a session of its own.
kill_descendants() {
    family=" $$ "
    grown=yes
    while [ -n "$grown" ]; do
        grown=
        processes >"$root/processes"
        while read -r pid parent; do
            case $family in *" $pid "*) continue ;; esac
            case $family in *" $parent "*)
                kill -STOP "$pid"
                family="$family$pid "
                grown=yes
                ;;
            esac
        done <"$root/processes"
    done
    for pid in $family; do
        [ "$pid" = "$$" ] || kill -KILL "$pid"
    done
    wait
}

# A killed postmaster leaves its System V segment behind; the seventh line of its pid file names it.
remove_shared_memory() {
    for file in "$root"/*/data/postmaster.pid; do
        [ -r "$file" ] || continue
        segment=$(sed -n '7s/^ *[0-9]* *//p' "$file")
        [ -z "$segment" ] || perl -e 'shmctl($ARGV[0], 0, 0)' "$segment"
    done
}

clean_up() {
    trap '' HUP INT TERM
    kill_descendants
    remove_shared_memory
    tries=0
    while [ -e "$root" ] && [ "$tries" -lt 200 ]; do
        rm -rf "$root" || sleep 0.05
        tries=$((tries + 1))
    done
    exit 0
}
trap clean_up HUP INT TERM

while read -r home; do
    (
        # Whoever dies between us and a server hides that server from us. When our process dies
        # while a server is frozen, the kernel hangs up on the whole group, so this is no theory.
        trap '' HUP INT QUIT TERM
        sh "$home/run" >>"$home/log" 2>&1
        printf '%s\n' "$?" >"$home/exit.new"
        mv "$home/exit.new" "$home/exit"
    ) </dev/null &
done
clean_up
