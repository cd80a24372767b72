"""Give MLflow a user who is no administrator, such as the pipelines': `add_user.py NAME`, the password on stdin.

Runs in the server's own pod, which has the administrator's password:
`kubectl -n tuneline exec -i deployment/mlflow -c mlflow -- python /etc/mlflow/add_user.py NAME < FILE`
"""

import os
import sys

from mlflow.exceptions import MlflowException
from mlflow.server.auth.client import AuthServiceClient

os.environ["MLFLOW_TRACKING_USERNAME"] = os.environ["MLFLOW_AUTH_ADMIN_USERNAME"]
os.environ["MLFLOW_TRACKING_PASSWORD"] = os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
name, password = sys.argv[1], sys.stdin.read().strip()
try:
    AuthServiceClient(os.environ.get("MLFLOW_ADDRESS", "http://localhost:5000")).create_user(name, password)
except MlflowException as error:
    sys.exit(f"add_user: {name}: {error.message}")
print(f"add_user: {name} may read everything, and owns the experiments and models that it makes")
