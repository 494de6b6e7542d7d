"""Who may see what (design decision 11): loopback only until tokens are set; readers see patients, ops see the queue.

========  ===============================================  =============================================
role      is                                               sees
========  ===============================================  =============================================
reader    the reader token; anybody while no token is set  everything
ops       the ops token                                    the queue without patient, accession number
                                                           and study description
========  ===============================================  =============================================
"""

from enum import StrEnum
from hmac import compare_digest
from ipaddress import ip_address
from typing import TypeVar

from contracts.errors import SettingsError
from contracts.findings import Patient
from contracts.settings import WorklistSettings
from contracts.worklist import WorklistItem

Item = TypeVar("Item", bound=WorklistItem)

TOKEN_CHARS_MIN = 16  # shorter ones can be guessed through an API that answers thousands of requests a second
_HIDDEN: dict[str, object] = {"patient": Patient(), "accession_number": "", "study_description": ""}


class Role(StrEnum):
    """What a caller may see."""

    READER = "reader"
    OPS = "ops"


def check_settings(settings: WorklistSettings) -> None:
    """Raises SettingsError where the settings would show patient data to strangers."""
    tokens = _tokens(settings)
    if not tokens and not is_loopback(settings.host):
        raise SettingsError(
            f"worklist.host is {settings.host!r}, which other machines can reach, but no token is set: "
            "set worklist.reader_token (and worklist.ops_token), or use 127.0.0.1."
        )
    for role, token in tokens.items():
        _check_token(role, token)
    if len(set(tokens.values())) < len(tokens):
        raise SettingsError("worklist.reader_token and worklist.ops_token are equal: ops would see patient data.")


def _check_token(role: Role, token: str) -> None:
    if len(token) < TOKEN_CHARS_MIN:
        raise SettingsError(f"worklist.{role}_token is shorter than {TOKEN_CHARS_MIN} characters.")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError(f"worklist.{role}_token may hold printable ASCII characters without spaces only.")


def role_of(settings: WorklistSettings, authorization: str | None) -> Role | None:
    """The role that an ``Authorization`` header value gives; None: not let in. Compares in constant time."""
    tokens = _tokens(settings)
    if not tokens:
        return Role.READER
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    candidate = given.strip().encode("utf-8", "surrogateescape")
    matches = [role for role, token in tokens.items() if compare_digest(token.encode(), candidate)]
    return matches[0] if matches else None


def host_allowed(settings: WorklistSettings, host_header: str) -> bool:
    """Whether the ``Host`` header is one that this service is called by.

    While no token is set, loopback is the only guard: a web page elsewhere whose name resolves to 127.0.0.1 (DNS
    rebinding) must not read the list through a browser on this machine. With tokens any name is fine.
    """
    return bool(_tokens(settings)) or is_loopback(_without_port(host_header))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener bound to ``host``. A name other than localhost is not trusted."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def visible(item: Item, role: Role) -> Item:
    """The item as ``role`` may see it."""
    return item if role is Role.READER else item.model_copy(update=_HIDDEN)


def _tokens(settings: WorklistSettings) -> dict[Role, str]:
    given = {
        Role.READER: settings.reader_token.get_secret_value(),
        Role.OPS: settings.ops_token.get_secret_value(),
    }
    return {role: token for role, token in given.items() if token}


def _without_port(host_header: str) -> str:
    if host_header.startswith("["):  # [::1]:8090
        return host_header.partition("]")[0] + "]"
    return host_header.partition(":")[0]
