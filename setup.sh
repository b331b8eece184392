#!/bin/sh
# Makes this checkout ready: the Debian packages that are missing, and .venv as uv.lock has it.
# Packages named as arguments are installed too. --no-dev, as the first argument, leaves out the Python packages that
# only tests and linters need. A second run changes nothing and prints nothing. Without root it prints the command that
# installs the missing packages, and goes on without them.
# At the end it prints the command that gives an ordinary user access to Docker and KVM, if one is needed.
# --packages [SUITE] only prints the packages that a machine without any of them needs: a Debian or Ubuntu release of
# that codename, or this machine's.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/sbin # an ordinary user's may lack them
os_release=/etc/os-release
engine_files="/var/run/docker.sock /dev/kvm"

say() { echo "setup: $*" >&2; }
has() { command -v "$1" >/dev/null; }
there() { [ -e "$1" ]; }

# /usr/bin/python3 first: every user can run it, and python3-dev has its headers.
find_python() {
    for name in /usr/bin/python3 python3; do
        python=$("$name" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys._base_executable)' \
            2>/dev/null) && return
    done
    python=
}

python_has_pip() { "$python" -c 'import ensurepip' 2>/dev/null; }
python_has_headers() {
    "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null
}
libvirt_has_headers() { pkg-config --exists libvirt 2>/dev/null; }

# Debian's packages, each left out where what it is for is here already, from wherever: docker.io beside docker-ce,
# say, would throw that out.
packages_without_substitute() {
    case $python in
    '') echo python3 python3-venv python3-dev ;;
    /usr/bin/*)
        python_has_pip || echo python3-venv
        python_has_headers || echo python3-dev
        ;;
    esac
    has gcc || echo gcc
    has pkg-config || echo pkg-config
    libvirt_has_headers || echo libvirt-dev
    has qemu-system-x86_64 || echo qemu-system-x86
    has qemu-img || echo qemu-utils
    has dockerd || echo docker.io
    has docker || echo docker-cli # a package of its own from Debian 13 on
    has iptables || echo iptables
    has mmdebstrap || echo mmdebstrap
    has bwrap || echo bubblewrap
    there /usr/share/keyrings/debian-archive-keyring.gpg || echo debian-archive-keyring
    { has mke2fs && has debugfs; } || echo e2fsprogs
    { has unshare && has setpriv; } || echo util-linux
    has fincore || echo util-linux-extra # the witness of cold starts
    there /etc/ssl/certs/ca-certificates.crt || echo ca-certificates
    # A user for QEMU and a driver: no programs, so dpkg alone can tell.
    for name in $also; do has "$name" || echo "$name"; done
    if has dpkg-query || ! has libvirtd; then echo libvirt-daemon-driver-qemu libvirt-daemon-system; fi
}

# This machine's release, such as bookworm.
this_suite() { sed -n 's/^VERSION_CODENAME="*\([a-z]*\)"*$/\1/p' "$os_release" 2>/dev/null; }

# Leaves out the names on standard input that a suite does not have, because releases split packages differently.
in_suite() {
    suite=$1
    for package in $(cat); do
        case $suite:$package in
        bullseye:docker-cli | bookworm:docker-cli | focal:docker-cli | jammy:docker-cli | noble:docker-cli) ;;
        *) echo "$package" ;;
        esac
    done
}

missing_packages() {
    wanted=$(packages_without_substitute | in_suite "$(this_suite)")
    # shellcheck disable=SC2086,SC2016 # a list of words; dpkg's own variables
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^installed //p')
    for package in $wanted; do
        printf '%s\n' "$installed" | grep -qxF "$package" || echo "$package"
    done
}

apt_has_lists() {
    eval "$(apt-config shell lists Dir::State::Lists/d)"
    for list in "${lists:-/var/lib/apt/lists/}"*_Packages*; do
        [ -e "$list" ] && return
    done
    return 1
}

# On a terminal sudo may ask for the password.
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; elif [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi; }
update() { as_root apt-get -q update; }
install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends --no-remove "$@"
}

# Leaves out a package that apt does not have, with a message: apt-get would install nothing because of it.
known_packages() {
    for package in "$@"; do
        if ! has apt-cache || apt-cache show "$package" >/dev/null 2>&1; then
            echo "$package"
        else
            say "this system's archive has no package $package"
        fi
    done
}

# Brings apt's lists, of which bundles are made too, and the packages named.
install_packages() {
    if ! has apt-get; then
        [ $# -eq 0 ] || say "there is no apt-get here. Install what Debian calls: $*"
        return
    fi
    fresh=
    lists_line=
    apt_has_lists || lists_line="sudo apt-get update"
    # shellcheck disable=SC2046 # a list of words
    [ -n "$lists_line" ] || set -- $(known_packages "$@")
    if [ $# -eq 0 ] && [ -z "$lists_line" ]; then return; fi
    if ! as_root true 2>/dev/null; then
        install_line=${*:+"sudo apt-get install --no-install-recommends $*"}
        say "not root, so please run: $lists_line${lists_line:+${install_line:+ && }}$install_line"
        return
    fi
    case " $* " in
    *" docker.io "*) say "docker.io's package may start a Docker daemon of its own" ;;
    esac
    if [ -n "$lists_line" ]; then
        update || say "apt-get update failed"
        fresh=yes
        # shellcheck disable=SC2046 # a list of words
        set -- $(known_packages "$@")
    fi
    [ $# -eq 0 ] || install "$@" || { [ -z "$fresh" ] && update && install "$@"; } ||
        say "apt-get could not install all of: $*"
}

# Everything that determines the content of .venv. $1: --no-dev, or nothing.
state() {
    pwd -P
    echo "$("$python" -V) $python $extra $1"
    cat setup.sh pyproject.toml uv.lock | cksum
}
# A .venv with the tests' packages serves for --no-dev too.
is_synced() {
    synced=$(cat .venv/.synced 2>/dev/null) || return 1
    [ "$synced" = "$(state "$groups")" ] || [ "$synced" = "$(state "")" ]
}
venv_runs() { .venv/bin/python -c '' 2>/dev/null; }
venv_was_moved() { [ -e .venv/.synced ] && [ "$(head -n 1 .venv/.synced)" != "$(pwd -P)" ]; }

sync_venv() {
    if ! venv_runs || venv_was_moved; then rm -rf .venv; fi
    rm -f .venv/.synced
    if has uv; then
        uv=uv
    else
        uv=.venv/bin/uv
        if ! "$uv" --version >/dev/null 2>&1; then
            "$python" -m venv .venv
            .venv/bin/pip install -q uv
        fi
    fi
    # --inexact: uv itself may be in .venv, and is not in uv.lock.
    # shellcheck disable=SC2086 # words or none
    UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never \
        "$uv" sync --frozen --inexact --python "$python" $extra $groups
    # Every start imports click. Where PYTHONDONTWRITEBYTECODE is set, Python would compile it each time.
    for folder in .venv/lib/python3*/site-packages/click; do
        if [ -d "$folder" ]; then .venv/bin/python -m compileall -q "$folder"; fi
    done
    state "$groups" >.venv/.synced
}

# The groups, separated by commas, that would give this user access: each owns an existing socket or device that this
# session cannot use. The group root is left out, and so is a group that cannot use the file either.
list_groups_to_join() {
    joined=
    for file in $engine_files; do
        if [ -r "$file" ] && [ -w "$file" ]; then continue; fi
        described=$(stat -L -c '%a %G' "$file" 2>/dev/null) || continue # such as "660 kvm"
        group=${described#* }
        case ${described% *} in *[67]?) ;; *) continue ;; esac
        case $group in root | UNKNOWN) continue ;; esac
        case ",$joined," in *",$group,"*) ;; *) joined=$joined${joined:+,}$group ;; esac
    done
    echo "$joined"
}

# Prints how this user gets access. One who joined a group after this session began only has to log in again.
print_group_remedy() {
    [ "$(id -u)" -ne 0 ] || return 0
    user=$(id -un)
    missing= joined=
    for group in $(list_groups_to_join | sed 's/,/ /g'); do
        case " $(id -Gn "$user") " in
        *" $group "*) joined=$joined${joined:+, }$group ;;
        *) missing=$missing${missing:+,}$group ;;
        esac
    done
    [ -z "$joined" ] || say "please log in again: this session is older than $user's membership of $joined"
    [ -z "$missing" ] || say "to use Docker or KVM, please run this, then log in again: sudo usermod -aG $missing $user"
}

if [ "${1-}" = --packages ]; then
    has() { false; }
    there() { false; }
    libvirt_has_headers() { false; }
    python=
    also=
    suite=${2:-$(this_suite)}
    # shellcheck disable=SC2046 # a list of words
    echo $(packages_without_substitute | in_suite "$suite")
    exit
fi
groups=
if [ "${1-}" = --no-dev ]; then
    groups=--no-dev
    shift
fi
also=$*
find_python
# shellcheck disable=SC2046 # a list of words
install_packages $(missing_packages)
[ -n "$python" ] || find_python
if [ -z "$python" ]; then
    say "there is no Python 3.11 or newer here"
    exit 1
fi
extra=
if libvirt_has_headers && python_has_headers && has gcc; then
    extra="--extra libvirt"
else
    say "libvirt's targets are left out: their Python package cannot be built without libvirt-dev, python3-dev and gcc"
fi
if ! [ -x .venv/bin/weighbridge ] || ! venv_runs || ! is_synced; then
    sync_venv
fi
print_group_remedy
