#!/bin/sh
# Makes the user that the server runs as, and its home.
#   user.sh ROOT
# 2000:0 is what vLLM's own image has. Group 0 may write too, so that any user id of that group
# will do, as OpenShift gives them.
set -eu
root=${1%/}
uid=2000
home=/home/vllm

cut -d: -f3 "$root/etc/passwd" | grep -qx "$uid" ||
    echo "vllm:x:$uid:0:vLLM:$home:/usr/sbin/nologin" >>"$root/etc/passwd"
mkdir -p "$root$home/.cache"
chown -R "$uid:0" "$root$home"
chmod -R g=u "$root$home"
