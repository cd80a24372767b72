#!/bin/sh
# One dump of MLflow's database: written aside, read back, then renamed; the oldest beyond BACKUPS_KEPT go.
set -eu
umask 077
folder="${BACKUPS:-/backups}"
kept="${BACKUPS_KEPT:-14}"
name="mlflow-$(date -u +%Y%m%dT%H%M%SZ).dump"
part="$folder/.part"

pg_dump --format=custom --no-owner --file="$part"
pg_restore --list "$part" >/dev/null
mv "$part" "$folder/$name"
echo "backup: $folder/$name, $(wc -c <"$folder/$name") bytes"

find "$folder" -maxdepth 1 -name 'mlflow-*.dump' | sort -r | tail -n "+$((kept + 1))" | while read -r old; do
    rm -- "$old"
    echo "backup: removed $old"
done
