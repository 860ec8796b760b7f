#!/bin/sh
# Is a daemon that the kernel kills when it takes more than so many MiB, cache of files and all:
#
#   LIMITED=target/release/waltide LIMIT_MIB=64 WALTIDE_LARGE_MEGABYTES=2000 \
#   WALTIDE_BINARY=$PWD/tests/it/streaming/limited.sh cargo test --locked --workspace --test it -- streaming::large
#
# It takes root and a memory controller (cgroups, the first kind or the second).
set -eu
bytes=$((${LIMIT_MIB:-64} << 20))
first=/sys/fs/cgroup/memory/waltide-limited-$$ second=/sys/fs/cgroup/waltide-limited-$$
if mkdir "$first" 2>/dev/null && [ -e "$first/memory.limit_in_bytes" ]; then
    group=$first file=memory.limit_in_bytes
elif mkdir "$second" 2>/dev/null && [ -e "$second/memory.max" ]; then
    group=$second file=memory.max
else
    echo "limited: no memory can be limited here" >&2
    exit 1
fi
echo "$bytes" >"$group/$file"
echo $$ >"$group/cgroup.procs"
exec "$LIMITED" "$@"
