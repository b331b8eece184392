#!/bin/sh
# Lets every user of a GitHub-hosted runner open /dev/kvm, by a udev rule. It changes nothing if this user can already
# open it, as root can. It never fails a job: if KVM cannot be enabled, it prints the reason, and QEMU emulates.
# Usage: kvm.sh [DEVICE [FOLDER OF UDEV RULES]]
set -u
device=${1:-/dev/kvm}
rules=${2:-/etc/udev/rules.d}
rule='KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"'

end() {
    echo "kvm: $*"
    exit 0
}
has() { command -v "$1" >/dev/null; }
is_root() { [ "$(id -u)" -eq 0 ]; }
as_root() { if is_root; then "$@"; else sudo -n "$@"; fi; }
# In a subshell, because a failed redirection would end this shell.
opens() { (: <>"$device") 2>/dev/null; }

[ "$(uname -s)" = Linux ] || end "this is not Linux: nothing to enable"
[ -e "$device" ] || end "there is no $device: this runner has no KVM to enable"
if opens; then end "$device is open to this user already: nothing changed"; fi
has udevadm || end "$device is not open to this user, and there is no udevadm to apply a rule"
if ! is_root; then
    has sudo || end "$device is not open to this user, and there is no sudo to apply a udev rule"
    sudo -n true 2>/dev/null || end "$device is not open to this user, and sudo asks for a password"
fi
printf '%s\n' "$rule" | as_root tee "$rules/99-kvm4all.rules" >/dev/null &&
    as_root udevadm control --reload-rules &&
    as_root udevadm trigger --name-match=kvm &&
    as_root udevadm settle --timeout=10 ||
    end "the udev rule $rules/99-kvm4all.rules could not be applied"
opens || end "$device is still not open to this user after the udev rule"
end "$device is open to every user, by $rules/99-kvm4all.rules"
