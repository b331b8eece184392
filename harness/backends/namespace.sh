# Inside the new namespaces: makes the instance's root from tree and layer, enters it, becomes /init.
#   $1 the mounts to make, as an fstab(5)   $2 the root they make   $3 words: net chroot
set -e
asked() { case " $words " in *" $1 "*) ;; *) return 1 ;; esac; }
words=$3

# All in one call: each program that a shell starts costs as much as all of these mounts together.
if asked net; then ip link set lo up & up=$!; fi
mount -a -T "$1"
if asked net; then wait $up; fi
cd "$2"
if asked chroot; then exec chroot . /init; fi
# chroot can be left by whoever has CAP_SYS_CHROOT inside; a root that was pivoted to has nothing behind it.
pivot_root . .
umount -l .
exec /init
