#!/bin/sh
# Installs into /opt/tuneline in a build stage, and links what that added or changed below /layer/NAME, from where an
# image takes it as a layer of its own.
#
#   layer.sh torch                            torch, of the flavour that TORCH names
#   layer.sh extras EXTRAS [NO_DEPS ...]      the dependencies of these extras, and distributions without their own
#   layer.sh code                             tuneline itself, and the bill of materials
set -eu

pip() { /opt/tools/bin/pip --python /opt/tuneline/bin/python "$@"; }
install() { pip install --quiet --constraint constraints.txt "$@"; }

torch() {
    version=$(sed -n 's/^torch==//p' constraints.txt)
    case "$TORCH" in
        # === takes the version as it is written, so never a build that is marked +cpu
        cuda) install --no-deps "torch===$version" ;;
        cpu) install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==$version" ;;
        *) echo "TORCH=$TORCH: allowed: cpu, cuda" >&2 && exit 2 ;;
    esac
}

extras() {
    install "$(echo /names/*.whl)[$1]"
    shift
    [ $# = 0 ] || install --no-deps "$@"
}

code() {
    pip install --quiet --no-deps --force-reinstall /code/*.whl
    /opt/tools/bin/cyclonedx-py environment --output-reproducible --of JSON -o /tmp/python.json /opt/tuneline/bin/python
    /opt/tools/bin/python /opt/tools/sbom.py /tmp/python.json /opt/tuneline/sbom.cdx.json
}

mark=$(mktemp)
"$@"
name=$1
[ "$name" != extras ] || name=dependencies
rm -f /opt/tuneline/bin/tuneline  # the command is of the submitter's machine, and its code is not here
# The libraries' own tests: 46 MB of pandas alone, 83 of torch.
find /opt/tuneline/lib -type d \( -name tests -o -path '*/torch/test' \) -prune -exec rm -rf {} +
mkdir -p "/layer/$name"
cd /
find opt/tuneline \( -type f -o -type l \) -cnewer "$mark" -exec cp -al --parents -t "/layer/$name" {} +
