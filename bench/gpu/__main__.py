"""Run the GPU bench, or gather the wheels for a machine without network.

python -m bench.gpu                          check and time; at most eight minutes
python -m bench.gpu --device cpu --small     the same with small sizes, on any machine
python -m bench.gpu gather FOLDER            download what such a machine lacks
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench.gpu.run import run
from bench.gpu.wheels import gather

PARTS = ["check", "train", "serve"]
WHEELS = Path(__file__).parent / "wheels"


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    if arguments[:1] == ["gather"]:
        gather(WHEELS, *(arguments[1:] or ["3.12"]))
        return 0
    options = _parse(arguments)
    out = options.out or Path(os.environ.get("OUT") or "var/bench-gpu")
    return run(options.device, options.small, options.minutes, out, options.wheels, options.parts)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="small models, few steps")
    parser.add_argument("--minutes", type=float, default=8.0, help="end everything after this time")
    parser.add_argument("--out", type=Path, help="folder of results.md, results.json and log.txt; default: $OUT")
    parser.add_argument("--wheels", type=Path, default=WHEELS, help="folder of gathered wheels")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="default: all")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
