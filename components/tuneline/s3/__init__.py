"""Objects of S3 as sources: what a URI names, and its bytes, verified. Needs boto3 (the extra s3)."""
