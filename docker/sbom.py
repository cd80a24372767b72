"""Adds the Debian packages to a CycloneDX document of the Python ones: scanners find half of their news in the base.

sbom.py PYTHON.json OUT.json
"""

import json
import platform
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

FORMAT = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"


def debian() -> list[dict[str, str]]:
    """A component of every installed Debian package."""
    listed = subprocess.run(["dpkg-query", "-W", "-f", FORMAT], capture_output=True, text=True, check=True).stdout
    release = platform.freedesktop_os_release()["VERSION_ID"]
    rows = [line.split("\t") for line in listed.splitlines()]
    return [
        {
            "type": "library",
            "bom-ref": f"deb-{name}-{architecture}",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}&distro=debian-{release}",
        }
        for name, version, architecture, status in rows
        if status == "installed"
    ]


def main(python: Path, out: Path) -> None:
    """Write the document of both."""
    document = json.loads(python.read_text(encoding="utf-8"))
    document["components"] += debian()
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
