#!/usr/bin/env bash
# Data in a private bucket, of AWS or of a store that speaks S3: audited, trained on, and known again by its version.
#
#   examples/private_s3.sh s3://BUCKET/KEY.csv                     # or s3://BUCKET/PREFIX/, or 's3://BUCKET/PREFIX*.csv'
#   examples/private_s3.sh s3://BUCKET/PREFIX/ data.text_column=body train.epochs=5    # and any key of a recipe
#   examples/private_s3.sh s3://BUCKET/KEY.csv model.name=s3://BUCKET/models/ours      # a checkpoint from there too
#
# Who you are is never in the recipe, nor in anything that is kept. boto3 finds it where it always does:
#
#   AWS_PROFILE=team                                               # a profile of ~/.aws, single sign-on included
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN    # or keys; on AWS's own machines a role needs neither
#   AWS_DEFAULT_REGION=eu-central-1
#   AWS_ENDPOINT_URL=https://s3.example.internal                   # a store that is not AWS
#   AWS_CA_BUNDLE=/etc/ssl/certs/corporate.pem                     # whose certificate only your company knows
#
# They need s3:ListBucket on the bucket and s3:GetObject on its objects, and nothing that writes.
set -euo pipefail

# The environment that is active, or else the one that `make run` has set up.
command -v tuneline >/dev/null || PATH="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin:$PATH"

case "${1:-}" in
    s3://*) ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
recipe=(text "data.train=$1" register.name=from-s3 "${@:2}")

# Reads the bucket as a training will, each object against its checksum, and trains nothing. Where access is denied, a key
# is unknown or a token has expired, it ends here in one line that says which, with exit status 2:
#   error: data.train: s3://BUCKET/KEY.csv: access denied; the credentials in use need s3:ListBucket and s3:GetObject for it
tuneline audit "${recipe[@]}" --out from-s3 --no-open

# What names the data from now on: the address, its version (an object's VersionId or ETag, a hash over those of several),
# and SHA-256 hashes of the rows. The same is kept with the run, in MLflow.
python3 - <<'PYTHON'
import json
with open("from-s3/manifest.json", encoding="utf-8") as stream:
    manifest = json.load(stream)
print(json.dumps({key: manifest[key] for key in ("sources", "versions", "sha256")}, indent=2))
PYTHON

# The same words train on it. An object that changes between the two is another version; one that changes while it is read
# is refused. On a cluster the pods get the keys from a Secret that the profile names (docs/cluster.md, secrets).
tuneline run "${recipe[@]}"
