"""Nothing shown that is not so: the settings page, the links, the commands of the README."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from contracts.settings import Section, Settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"


def rendered() -> str:
    """docs/settings.md as the types say it. ``UPDATE_DOCS=1 make test-fast`` writes it again."""
    lines = [
        "# Settings",
        "",
        "Made from `contracts/settings.py`. Environment: `TRIAGE_<SECTION>__<NAME>`; TOML: `[section]`, `name = …`.",
        "Values that are lists or tables are JSON in the environment.",
    ]
    plain = {name: info for name, info in Settings.model_fields.items() if not isinstance(info.default, Section)}
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, Section):
            about = (type(info.default).__doc__ or "").strip().splitlines()[0]
            lines += ["", f"## {name}", "", about, "", *_table(type(info.default).model_fields, name)]
    return "\n".join([*lines, "", "## without a section", "", *_table(plain, ""), ""])


def _table(fields: dict[str, Any], section: str) -> list[str]:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, info in fields.items():
        full = f"{section}.{name}" if section else name
        rows.append(f"| `{full}` | `{_value(info.default)}` | {(info.description or '').replace('|', '&#124;')} |")
    return rows


def _value(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(secret)" if value.get_secret_value() else "(none)"
    if value is PydanticUndefined:
        return "(required)"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) or "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, Section):
        return ", ".join(f"{k}={_value(v)}" for k, v in value if k in value.model_fields_set)
    return str(value).replace("|", "&#124;")


def test_the_settings_page_is_what_the_settings_are() -> None:
    """docs/settings.md names every setting with its default, no more and no less."""
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(rendered())
    assert PAGE.read_text() == rendered(), "UPDATE_DOCS=1 make test-fast writes it again"


def test_every_setting_says_what_it_is_for() -> None:
    """Every setting has a description: its meaning, unit or reason."""
    silent = [
        f"{section}.{name}"
        for section, info in Settings.model_fields.items()
        if isinstance(info.default, Section)
        for name, inner in type(info.default).model_fields.items()
        if not inner.description
    ]
    assert silent == []


def test_every_number_of_the_settings_has_a_reason() -> None:
    """Beside what it is, each says why that much: a second clause of three words or more. Ports need none."""
    bare = [
        f"{section}.{name}"
        for section, info in Settings.model_fields.items()
        if isinstance(info.default, Section)
        for name, inner in type(info.default).model_fields.items()
        if type(inner.default) in (int, float) and not name.endswith("port") and not _reasoned(inner.description or "")
    ]
    assert bare == []


def _reasoned(description: str) -> bool:
    return any(len(clause.split()) >= 3 for clause in re.split(r"[;:,(.] ?", description)[1:])


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("k8s/*.md")]), ids=str
)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    """Relative links and pictures point to files that are there."""
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_make_target_of_the_pages_exists() -> None:
    """README, CONTRIBUTING and docs name no target that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named: set[str] = set()
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        named |= set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text()))
    assert named <= targets
    assert {"demo", "test"} <= named
