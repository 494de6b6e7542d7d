"""Multipart bodies of store transactions (RFC 2046, PS3.18 10.5): content type, accept, pieces as they are read."""

from collections.abc import Callable

from chaos.fuzz.dice import Dice
from chaos.fuzz.grammar.damage import damaged, truncated
from chaos.fuzz.parcel import pack, unpack

BOUNDARIES = (b"triage", b"-", b"--", b"a b", b'"', b"x" * 70, b"x" * 71, b"x" * 4000, b"", b"\xff", b"\r\n", b"=_;,?")
TYPES = (
    *(b'multipart/related; type="application/dicom"; boundary=%s', b"multipart/related;boundary=%s"),
    *(b'multipart/related; boundary="%s"; type=application/dicom', b"MULTIPART/RELATED; BOUNDARY=%s"),
    *(b"multipart/form-data; boundary=%s", b"multipart/related; type=application/dicom+json; boundary=%s"),
    *(b"multipart/related; boundary", b"", b"application/dicom", b";;;=;%s", b"multipart/related; boundary*=utf-8''%s"),
    b"multipart/related; boundary*0=%s; boundary*1=x",
)
PART_TYPES = (
    b"application/dicom",
    b"application/dicom; transfer-syntax=1.2.3",
    b"APPLICATION/DICOM",
    b"text/plain",
    b"",
)
ACCEPTS = (b"", b"*/*", b"application/dicom+json", b"application/dicom+xml;q=0.5, application/json;q=0.9", b"image/png")
HEADERS = (
    *(b"Content-Length: 4", b"Content-Location: ../../etc/passwd", b"X: " + b"y" * 5000, b"Broken", b": empty"),
    *(
        b"Content-Type: application/dicom",
        b"Content-Type",
        b"\0: \0",
        b"A\xff: \xff",
        b"Content-Transfer-Encoding: base64",
    ),
)
MOST_PARTS = 200
MOST_HEADERS = 40
STEPS = (1, 2, 7, 64, 4096, 65536)


def grammar_of(objects: Callable[[Dice], bytes]) -> Callable[[Dice], bytes]:
    """A parcel: content type, accept, how many bytes come at once, body."""

    def made(dice: Dice) -> bytes:
        boundary = BOUNDARIES[0] if not dice.chance(4) else dice.pick(BOUNDARIES)
        kind = (TYPES[0] if not dice.chance(4) else dice.pick(TYPES)).replace(b"%s", boundary)
        accept = dice.pick(ACCEPTS) if not dice.chance(6) else dice.octets(40)
        return pack([kind, accept, b"%d" % dice.pick(STEPS), _body(dice, boundary, objects)])

    return made


def request_of(parcel: bytes, *, chunked: bool, length: int | None = None, path: bytes = b"/studies") -> bytes:
    """The same as an HTTP/1.1 request on the wire. ``length``: what Content-Length claims, where it lies."""
    kind, accept, step, body = (*unpack(parcel), b"", b"", b"", b"")[:4]
    lines = [b"POST %s HTTP/1.1" % path, b"Host: 127.0.0.1", b"Connection: close", b"Content-Type: " + kind]
    lines += [b"Accept: " + accept] if accept else []
    if chunked:
        size = max(64, int(step or b"64"))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        content = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", content])
    return b"\r\n".join([*lines, b"Content-Length: %d" % (len(body) if length is None else length), b"", body])


def _body(dice: Dice, boundary: bytes, objects: Callable[[Dice], bytes]) -> bytes:
    count = dice.pick((1, 1, 2, 0, 3, MOST_PARTS))
    small = count == MOST_PARTS
    parts = [_part(dice, boundary, b"" if small else objects(dice)) for _ in range(count)]
    closing = dice.pick((b"--%s--\r\n", b"--%s--\r\n", b"--%s--", b"--%s\r\n", b"", b"--%s-")).replace(b"%s", boundary)
    body = dice.pick((b"", b"", b"preamble\r\n", b"\r\n")) + b"".join(parts) + closing + dice.pick((b"", b"epilogue"))
    if dice.chance(4):
        body = damaged(dice, body)
    return truncated(dice, body) if dice.chance(6) else body


def _part(dice: Dice, boundary: bytes, content: bytes) -> bytes:
    kind = PART_TYPES[0] if not dice.chance(6) else dice.pick(PART_TYPES)
    lines = [b"--" + boundary, b"Content-Type: " + kind]
    if dice.chance(4):
        lines += [dice.pick(HEADERS) for _ in range(dice.pick((1, 3, MOST_HEADERS)))]
    if dice.chance(10):
        content = b"--%s\r\nContent-Type: multipart/related\r\n\r\n" % boundary + content  # a multipart in a part
    end = b"\n" if dice.chance(10) else b"\r\n"
    return end.join([*lines, b"", content]) + b"\r\n"
