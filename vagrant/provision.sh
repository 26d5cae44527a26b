#!/bin/sh
# In the virtual machine, as root: what the README says, word for word, on a fresh clone.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y git make python3
rm -rf /opt/tulle
git clone --quiet /tmp/tulle.bundle /opt/tulle
make -C /opt/tulle run
