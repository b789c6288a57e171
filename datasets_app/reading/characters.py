"""Characters that cannot be stored."""


def clean(text: str) -> str:
    """Replace NUL and unpaired surrogates, which neither databases nor Parquet can store."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
