#!/bin/sh
# A streaming replica in the postgres image, run as the user postgres: copies the primary at the
# first start, follows it at each. PGDATA, PRIMARY_HOST, PRIMARY_PORT, REPLICATION_PASSWORD and
# REPLICA_NAME come from the environment; arguments go to the server.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  # A copy that was broken off leaves files that the next one would refuse.
  find "$PGDATA" -mindepth 1 -delete
  chmod 700 "$PGDATA"
  # --write-recovery-conf makes it a standby and keeps the connection, application_name included.
  PGPASSWORD="$REPLICATION_PASSWORD" pg_basebackup \
    --dbname "host=$PRIMARY_HOST port=$PRIMARY_PORT user=replicator application_name=$REPLICA_NAME" \
    --pgdata "$PGDATA" --write-recovery-conf --wal-method=stream --checkpoint=fast
fi

# With the feedback, a long read on a replica is not cancelled because the primary cleaned up rows.
exec postgres -c hot_standby_feedback=on -c wal_receiver_status_interval=1s "$@"
