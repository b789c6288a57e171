"""Find files inside an installed package without importing it, so that none of its code runs."""

from importlib.util import find_spec
from pathlib import Path


def package_file(package: str, *parts: str) -> Path:
    """Return the path of a file or folder in a package; FileNotFoundError names the package to install."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The package {package} is not installed. Install it with: pip install {package}")
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"The installed package {package} has no {'/'.join(parts)}. Reinstall {package}.")
    return path
