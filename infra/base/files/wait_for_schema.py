"""Wait until the migration Job has made MLflow's tables, so that no server races it on an empty database.

The Job migrates the users' tables last: their version is there when all is.
"""

import os
import sys
import time

import psycopg2

QUERY = "select to_regclass('alembic_version_auth') is not null"
deadline = time.monotonic() + float(os.environ.get("SCHEMA_TIMEOUT", "300"))
reason = "the migration Job has not finished"
while time.monotonic() < deadline:
    try:
        with psycopg2.connect(dbname="mlflow", connect_timeout=5) as connection, connection.cursor() as cursor:
            cursor.execute(QUERY)
            if cursor.fetchone() == (True,):
                sys.exit(0)
    except psycopg2.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
    time.sleep(2)
sys.exit(f"wait_for_schema: {reason}; see `kubectl -n tuneline logs job/migrate --all-containers`")
