"""The 128 bytes before ``DICM`` (PS3.10 7.1): anybody's to fill, also with the head of a program.

A file that is DICOM and a program at once runs where it is stored (CVE-2019-11687). A TIFF head is legitimate
(whole slide images are both). The log keeps what was received; no file store gets such a preamble.
"""

PREAMBLE_BYTES = 128
PREFIX = b"DICM"
CLEAN = bytes(PREAMBLE_BYTES)

# How programs begin → the label that tells of it. A closed list: it is a metric's label.
PROGRAMS: tuple[tuple[bytes, str], ...] = (
    (b"MZ", "pe"),  # Windows, DOS, UEFI
    (b"ZM", "pe"),  # the same, as DOS takes it, too
    (b"\x7fELF", "elf"),
    (b"#!", "script"),
    (b"\xfe\xed\xfa\xce", "macho"),
    (b"\xfe\xed\xfa\xcf", "macho"),
    (b"\xce\xfa\xed\xfe", "macho"),
    (b"\xcf\xfa\xed\xfe", "macho"),
    (b"\xca\xfe\xba\xbe", "macho"),  # for several processors; a Java class as well
    (b"\xca\xfe\xba\xbf", "macho"),
)


def program(part10: bytes) -> str:
    """Which kind of program a DICOM file begins like; empty where it is none, or no DICOM file."""
    if part10[PREAMBLE_BYTES : PREAMBLE_BYTES + len(PREFIX)] != PREFIX:
        return ""
    return next((kind for magic, kind in PROGRAMS if part10.startswith(magic)), "")


def for_files(part10: bytes) -> tuple[bytes | memoryview, ...]:
    """The object as it may lie in a file store, in pieces: a program's preamble is zeros, nothing else is touched."""
    return (CLEAN, memoryview(part10)[PREAMBLE_BYTES:]) if program(part10) else (part10,)
