#!/bin/sh
# Prepares a primary for streaming replicas and for pgweir's monitor. Runs once, in the
# postgres image's initialisation (/docker-entrypoint-initdb.d), or by hand with PGHOST, PGPORT and so on set.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
  --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-postgres}" \
  --set replication_password="$REPLICATION_PASSWORD" --set monitor_password="$MONITOR_PASSWORD" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
CREATE ROLE pgweir_monitor LOGIN IN ROLE pg_monitor PASSWORD :'monitor_password';
SQL

# The image's own pg_hba.conf lets no replication in from outside.
echo 'host replication replicator all scram-sha-256' >> "$PGDATA/pg_hba.conf"
