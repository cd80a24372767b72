#!/bin/sh
# Put MLflow's database back to the newest dump, or to the one that BACKUP names: all of it, or on an error nothing.
set -eu
folder="${BACKUPS:-/backups}"
newest=$(find "$folder" -maxdepth 1 -name 'mlflow-*.dump' | sort | tail -n 1)
dump="${BACKUP:+$folder/$BACKUP}"
dump="${dump:-$newest}"

if [ ! -f "$dump" ]; then
    echo "restore: ${dump:-no dump in $folder}: not found; there are: $(ls "$folder")" >&2
    exit 1
fi
pg_restore --clean --if-exists --no-owner --single-transaction --exit-on-error --dbname="$PGDATABASE" "$dump"
echo "restore: $PGDATABASE is as it was in $dump"
