# Becomes the daemon in a root directory that holds what the image holds, and nothing else: a container
# without a container engine. Run in a mount namespace of its own, so nothing of it is left behind.
#
#   enter.sh ROOT PROGRAM CONFIG SECRETS SPOOL_BYTES MEMORY_BYTES USER VARIABLE=VALUE... -- ARGUMENT...
set -eu
root=$1 program=$2 config=$3 secrets=$4 spool=$5 memory=$6 user=$7
shift 7

mount -t tmpfs -o mode=755 image "$root"
mkdir -p "$root/usr/local/bin" "$root/etc/waltide" "$root/etc/ssl/certs" "$root/run/secrets/waltide/source" \
    "$root/var/lib/waltide" "$root/proc" "$root/dev" "$root/tmp"
for library in $(ldd "$program" | grep -o '/[^ ]*'); do
    case $library in
        # The only ones that the image's base has.
        */libc.so.6 | */libm.so.6 | */libgcc_s.so.1 | */ld-linux-*) ;;
        *) echo "the image has no $library" >&2; exit 127 ;;
    esac
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
done
printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
# The base's authorities of certificates, where this machine has its own.
for file in resolv.conf hosts nsswitch.conf ssl/certs/ca-certificates.crt; do
    [ ! -r "/etc/$file" ] || cp -L "/etc/$file" "$root/etc/$file"
done
: >"$root/usr/local/bin/waltide"
mount --bind "$program" "$root/usr/local/bin/waltide"
mount --bind "$config" "$root/etc/waltide"
mount --bind "$secrets" "$root/run/secrets/waltide/source"
mount -t tmpfs -o "mode=770,gid=$user,size=$spool" spool "$root/var/lib/waltide"
mount --rbind /proc "$root/proc"
for device in null zero urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro image "$root"

# The kernel's own limit, where we may set one (the first kind of cgroups, or the second); the test looks at
# the peak in any case.
limit() { # limit DIRECTORY FILE
    mkdir "$1" 2>/dev/null || return 0
    if [ -e "$1/$2" ] && echo "$memory" >"$1/$2" && echo $$ >"$1/cgroup.procs"; then
        echo "memory is limited to $memory bytes" >&2
    else
        rmdir "$1"
    fi
}
limit "/sys/fs/cgroup/memory/waltide-$$" memory.limit_in_bytes
limit "/sys/fs/cgroup/waltide-$$" memory.max

variables=
while [ "$1" != -- ]; do
    variables="$variables $1"
    shift
done
shift
enter="--root=$root --wd=/"
groups=
# In a user namespace of somebody unprivileged there is nobody else to become.
if [ "$user" != 0 ]; then
    enter="$enter --setuid=$user --setgid=$user"
    groups=--clear-groups
fi
# shellcheck disable=SC2086 # lists of words
exec env -i $variables "$(command -v setpriv)" $groups --no-new-privs "$(command -v unshare)" $enter \
    /usr/local/bin/waltide "$@"
