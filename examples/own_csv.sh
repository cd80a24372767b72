#!/usr/bin/env bash
# From a CSV of your own, whatever its columns are called, to labels for new texts. On two cores about two minutes.
#
#   examples/own_csv.sh                                             # on messages to a support desk, written to own.csv
#   examples/own_csv.sh MY.csv TEXT_COLUMN LABEL_COLUMN NEW.csv     # on yours; NEW.csv has the column of texts too
#   examples/own_csv.sh MY.csv TEXT_COLUMN LABEL_COLUMN NEW.csv train.epochs=5    # and any key of a recipe
#
# All that is kept goes to the current folder: .tuneline/, topics/, labelled.csv, and without arguments own.csv,
# own_test.csv and new.csv.
set -euo pipefail

# The environment that is active, or else the one that `make run` has set up.
command -v tuneline >/dev/null || PATH="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin:$PATH"

if [ $# = 0 ]; then
    # tuneline's sample messages stand in for yours, in columns of other names than text and label. People ask for the same
    # thing in many words, so the test texts are a file of their own, which has words that were never trained on.
    python3 - <<'PYTHON'
import csv
from tuneline.prepare.sample import URI, rows
for file, split in {"own.csv": "train", "own_test.csv": "test"}.items():
    with open(file, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["ticket", "body", "topic"])
        table.writerows([number, row["text"], row["label"]] for number, row in enumerate(rows(URI, split), 4711))
PYTHON
    printf '%s\n' body 'where is my parcel' 'I want my money back' 'the lamp arrived broken' >new.csv
    set -- own.csv body topic new.csv data.test=own_test.csv
elif [ $# -lt 4 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
csv=$1 text=$2 label=$3 new=$4
shift 4

# A recipe that ships, with your keys on top. Columns that no key names are left alone, such as the ticket's number. One file
# is enough: a fifth of its texts is held out for the test, and a tenth for validation.
recipe=(text "data.train=$csv" "data.text_column=$text" "data.label_column=$label" register.name=topics "$@")

# First look at the data, because no training mends it: duplicates, doubtful labels, personal data, texts that are cut.
# What cannot be learned from ends the script here. Open topics/audit.html for the whole of it.
tuneline audit "${recipe[@]}" --out topics --no-open

# Prepare, train, evaluate on texts that were held out, and register the model behind the gate.
tuneline run "${recipe[@]}"

# The champion labels texts that it never saw: a row each, with the label and a probability for every label. A model that
# the gate refused is no champion, and this ends in one line; the run's own last line asks it by its number all the same.
tuneline predict topics@champion "$new" --column "$text" -o labelled.csv
head -n 4 labelled.csv
