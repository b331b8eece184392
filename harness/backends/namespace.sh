# Inside the new namespaces: makes the instance's root from tree and layer, enters it, becomes /init.
#   $1 tree   $2 layer (has upper/, work/, root/)   $3 doorbell   $4 words: net proc userxattr chroot
set -e
tree=$1 layer=$2 bell=$3 words=" $4 "
root=$layer/root
asked() { case "$words" in *" $1 "*) ;; *) return 1 ;; esac; }

options=lowerdir=$tree,upperdir=$layer/upper,workdir=$layer/work
# An unprivileged mount keeps the overlay's marks in user.* attributes: trusted.* ones need privileges.
if asked userxattr; then options=$options,userxattr; fi
mount -t overlay -o "$options" overlay "$root"
for device in null zero random urandom; do mount -o bind "/dev/$device" "$root/dev/$device"; done
mount -o bind "$bell" "$root/run/doorbell"
# /proc of a PID namespace that is not ours cannot be mounted anew, only shown.
if asked proc; then mount -t proc proc "$root/proc"; else mount -o rbind /proc "$root/proc"; fi
if asked net; then ip link set lo up; fi
cd "$root"
if asked chroot; then exec chroot . /init; fi
# chroot can be left by whoever has CAP_SYS_CHROOT inside; a root that was pivoted to has nothing behind it.
pivot_root . .
umount -l .
exec setpriv --nnp /init
