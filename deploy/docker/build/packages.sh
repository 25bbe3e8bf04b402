#!/bin/sh
# Installs Debian packages: in Dockerfile.cpu, and in .ci/run, which is how it is tested.
#   packages.sh NAME...
set -eu
export DEBIAN_FRONTEND=noninteractive
export RUNLEVEL=1 # a package that brings a service does not start it
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo --preserve-env=DEBIAN_FRONTEND,RUNLEVEL"
$sudo apt-get update -qq
$sudo apt-get install -qq --yes --no-install-recommends "$@"
