"""A Python interpreter that reports another version."""

import sys
from pathlib import Path

_SCRIPT = """\
#!/bin/sh
if [ "$1" = -V ]; then echo "Python {dotted}"; exit; fi
[ "$1" = -c ] && shift
exec {python} -c 'import sys; sys.version_info = {version}; exec(sys.argv.pop(1))' "$@"
"""


def write_python(path: Path, version: tuple[int, int, int]) -> Path:
    """Write an executable that runs only `-c CODE`, and reports the Python version `version`."""
    dotted = ".".join(map(str, version))
    path.write_text(_SCRIPT.format(dotted=dotted, python=sys.executable, version=version))
    path.chmod(0o755)
    return path
