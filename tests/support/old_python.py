"""A Python that says it is of another version."""

import sys
from pathlib import Path

_SCRIPT = """\
#!/bin/sh
if [ "$1" = -V ]; then echo "Python {dotted}"; exit; fi
[ "$1" = -c ] && shift
exec {python} -c 'import sys; sys.version_info = {version}; exec(sys.argv.pop(1))' "$@"
"""


def write_python(path: Path, version: tuple[int, int, int]) -> Path:
    """An executable that runs `-c CODE` as Python of that `version`, and nothing else."""
    dotted = ".".join(map(str, version))
    path.write_text(_SCRIPT.format(dotted=dotted, python=sys.executable, version=version))
    path.chmod(0o755)
    return path
