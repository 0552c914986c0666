"""Format counts and sizes as text for pages, tables and messages."""


def format_object_count(count: int) -> str:
    """Format a number of objects: "1 object", "2 objects", "1,000 objects"."""
    return f"{count:,} object{'' if count == 1 else 's'}"


def format_bytes(count: int) -> str:
    """Format a number of bytes in kB, MB or GB: "12.3 kB", "4.5 MB", "1.20 GB"."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
