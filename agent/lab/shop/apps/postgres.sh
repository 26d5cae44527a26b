#!/bin/sh
# A throw-away PostgreSQL in a folder of its own. PostgreSQL refuses to run as root, so its two
# programs run as the user that Debian's package made, from a place which that user can enter.
set -eu
cd /
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
data=$(runuser -u postgres -- mktemp -d /tmp/tulle-shop-postgres.XXXXXX)
child=
# shellcheck disable=SC2064 # the folder's name is known now
trap "[ -z \"\$child\" ] || { kill -INT \$child 2>/dev/null; wait \$child || true; }; rm -rf '$data'" EXIT
trap 'exit 0' INT TERM
runuser -u postgres -- "$bin/initdb" -D "$data/db" -A trust --no-sync --no-locale -E UTF8 \
	>"$data/initdb.log" 2>&1 || {
	cat "$data/initdb.log"
	exit 1
}
printf 'host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n' >>"$data/db/pg_hba.conf"
setpriv --reuid postgres --regid postgres --init-groups "$bin/postgres" -D "$data/db" -k "$data" \
	-c listen_addresses='*' -c fsync=off -c shared_buffers=16MB -c log_connections=on &
child=$!
wait "$child"
