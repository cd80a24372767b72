"""Runs inside an image, as `python3 look.py`: prints as JSON what is installed there, and what is left of the build."""

import importlib.util
import json
import shutil
import struct
from importlib import metadata
from pathlib import Path

COMMANDS = ("pip", "pip3", "gcc", "cc", "g++", "make", "git", "curl", "tuneline")
MODULES = ("pip", "ensurepip", "torch", "tokenizers", "pytest")
LEFT = ("pip", "src", "names", "code", "layer", "opt/tools")
SITE = Path(str(metadata.distribution("tuneline").locate_file("")))


def bytecode() -> dict[Path, Path]:
    """Source -> its compiled form, where there is one."""
    pairs = {source: Path(importlib.util.cache_from_source(str(source))) for source in SITE.rglob("*.py")}
    return {source: cached for source, cached in pairs.items() if cached.exists()}


def holds(source: Path, cached: Path) -> bool:
    """Whether Python takes it: it is stamped with its source's time."""
    return struct.unpack("<I", cached.read_bytes()[8:12])[0] == int(source.stat().st_mtime) & 0xFFFFFFFF


if __name__ == "__main__":
    compiled = bytecode()
    distributions = {(found.name.lower().replace("_", "-"), found.version) for found in metadata.distributions()}
    print(
        json.dumps(
            {
                "distributions": sorted(distributions),
                "commands": [name for name in COMMANDS if shutil.which(name)],
                "modules": [name for name in MODULES if importlib.util.find_spec(name)],
                "left": [name for name in LEFT if Path("/", name).exists()],
                "compiled": len(compiled),
                "stale": [str(source) for source, cached in compiled.items() if not holds(source, cached)],
                "sbom": json.loads(Path("/opt/tuneline/sbom.cdx.json").read_text()),
            }
        )
    )
