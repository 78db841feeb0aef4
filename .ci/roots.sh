# shellcheck shell=sh
# Roots of Debian's releases below $BUILD/matrix. A script of this folder sources this file first, from the top of the work
# tree, and goes on as root, with mounts and processes of its own: the kernel takes them away when the script ends, however it
# ends, and nobody else ever sees a /dev below $BUILD. The mirror and its proxies are those of this machine's apt.
PATH=$PATH:/usr/sbin:/sbin
export PATH

if [ "$(id -u)" != 0 ]; then
  echo "Only root can make and enter the roots of Debian's releases." >&2
  exit 1
fi

if [ "${1-}" != --apart ]; then
  .ci/setup matrix
  exec unshare --mount --pid --fork --kill-child ".ci/${0##*/}" --apart "$@"
fi
shift

mkdir -p "${BUILD:=build}/matrix/archives"
roots=$(cd "$BUILD/matrix" && pwd)
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")

mirror() {
  apt-get --print-uris update 2>/dev/null |
    sed -En "s,^'(.*)/dists/($codename|stable|testing|unstable|sid)/InRelease'.*,\1,p" | head -n 1
}

# inside ROOT COMMAND…: with nothing of this environment but the proxies. Not by chroot, where nobody may make the
# user namespaces that some specs need.
inside() {
  root=$1
  shift
  # shellcheck disable=SC2016 # for that shell
  unshare --mount sh -c 'cd "$0" && pivot_root . . && umount -l . && exec "$@"' "$root" \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 http_proxy="${http_proxy-}" \
    https_proxy="${https_proxy-}" SPEC="${SPEC-}" SPEC_PATIENCE="${SPEC_PATIENCE:-4}" "$@"
}

# strap RELEASE ROOT [ARCHITECTURE]: a new root, whose apt is set up as that of this machine is
strap() {
  from=$(mirror)
  if [ ! "$from" ]; then
    echo "This machine's apt knows no mirror of Debian." >&2
    return 1
  fi
  rm -rf --one-file-system "$2"
  mkdir "$2"
  debootstrap ${3:+"--arch=$3"} --variant=minbase --cache-dir="$roots/archives" "$1" "$2" "$from" || return
  apt-config dump Acquire >"$2/etc/apt/apt.conf.d/90host"
}

# mount_into ROOT: what programs there expect
mount_into() {
  mount --bind "$1" "$1" || return
  for what in dev proc sys; do mount --rbind "/$what" "$1/$what" || return; done
  mount -t proc proc "$1/proc" || return
  mount --bind "$roots/archives" "$1/var/cache/apt/archives" || return
  cp /etc/hosts /etc/resolv.conf "$1/etc/"
}
