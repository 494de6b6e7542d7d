"""The reading list as a table for a terminal (pure): position, urgency, state, findings, images, waiting and due."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.findings import Finding, StudyState, Urgency, volume_words
from contracts.worklist import NOTICE, QueueStatus, WorklistItem
from worklist.answers import WorklistAnswer

UID_TAIL_CHARS = 12  # enough to tell studies of one day apart
FINDINGS_MAX = 3  # on a line; the API has them all

_URGENCY = {Urgency.CRITICAL: "bold white on red", Urgency.URGENT: "bold yellow", Urgency.ROUTINE: "dim"}
_STATE = {
    StudyState.FLAGGED: ("flagged", "bold red"),
    StudyState.NOT_FLAGGED: ("not flagged", ""),
    StudyState.NOT_ANALYSED: ("not analysed", "bold magenta"),
    StudyState.RECEIVING: ("receiving", "cyan"),
}
_STATUS = {QueueStatus.OK: "green", QueueStatus.REBUILDING: "bold yellow", QueueStatus.DEGRADED: "bold red"}
LATE_S = 30.0  # an image is scored within seconds of its arrival: beyond that a person should see it
_BEHIND_STYLE = "bold yellow"
_STEPS_S = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def render(answer: WorklistAnswer, now: float, *, patient: bool = False, trouble: str = "") -> RenderableType:
    """Status line, table, notice. ``trouble`` says why ``answer`` is not from now. ``now``: epoch seconds."""
    table = Table(expand=True, box=None, header_style="bold", row_styles=["", "on grey7"])
    for name in ("#", "Urgency", "State", "Findings", "Patient" if patient else "Study", "Images", "Waiting", "Due"):
        table.add_column(name, justify="right" if name in {"#", "Images", "Waiting", "Due"} else "left")
    for item in answer.items:
        table.add_row(*_row(item, now, patient=patient))
    return Group(_status_line(answer, trouble), table, _more(answer), Text(NOTICE, style="italic"))


def duration(seconds: float) -> str:
    """A duration for people: `45 s`, `12 min`, `3 h`, `2 d`."""
    seconds = max(0.0, seconds)
    for step_s, unit in _STEPS_S:
        if seconds >= step_s:
            return f"{int(seconds // step_s)} {unit}"
    return f"{int(seconds)} s"


def printable(text: str) -> str:
    """Without control characters: a patient's name must not steer the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _row(item: WorklistItem, now: float, *, patient: bool) -> tuple[Text, ...]:
    return (
        Text(str(item.position)),
        Text(f" {item.urgency} ", style=_URGENCY[item.urgency]),
        _state(item),
        Text(_findings(item.findings)),
        Text(printable(_patient(item) if patient else _study(item))),
        Text(f"{item.images_settled}/{item.images_received}"),
        Text(duration(now - item.arrived_at)),
        _due(item.due_at - now),
    )


def _state(item: WorklistItem) -> Text:
    words, style = _STATE[item.state]
    if item.state is StudyState.FLAGGED and item.provisional:
        words += ", provisional"
    reasons = [reason.value.replace("_", " ") for reason in (*filter(None, [item.reason]), *item.notes)]
    text = Text(words, style=style)
    return text.append(f" ({', '.join(reasons)})", style="not bold") if reasons else text


def _findings(findings: tuple[Finding, ...]) -> str:
    words = [f"{one.name.replace('_', ' / ')} {volume_words(one.volume_ml)}" for one in findings[:FINDINGS_MAX]]
    return ", ".join([*words, "…"] if len(findings) > FINDINGS_MAX else words)


def _study(item: WorklistItem) -> str:
    return item.accession_number or f"…{item.study_instance_uid[-UID_TAIL_CHARS:]}"


def _patient(item: WorklistItem) -> str:
    who = item.patient
    parts = (who.name.replace("^", " ").strip(), who.patient_id, who.birth_date, item.accession_number)
    return " · ".join(part for part in parts if part) or _study(item)


def _due(left_s: float) -> Text:
    if left_s < 0:
        return Text(f"overdue {duration(-left_s)}", style="bold red")
    return Text(f"in {duration(left_s)}")


def _status_line(answer: WorklistAnswer, trouble: str) -> Text:
    line = Text.assemble(("Reading list ", "bold"), (str(answer.status), _STATUS[answer.status]))
    line.append(f" · {answer.total} {'study' if answer.total == 1 else 'studies'}")
    if answer.detail:
        line.append(f" · {printable(answer.detail)}", style=_STATUS[answer.status])
    line.append(f"\n{_behind(answer)}", style=_BEHIND_STYLE if _late(answer) else "")
    return line.append(f"\n{printable(trouble)}", style="bold red") if trouble else line


def _behind(answer: WorklistAnswer) -> str:
    """How far analysis is behind, in words."""
    backlog = answer.backlog
    if backlog is None:
        return "How far analysis is behind is not known."
    wait = "1 image waits" if backlog.images == 1 else f"{backlog.images} images wait"
    more = "" if backlog.complete else " (not every worker tells: there may be more)"
    if backlog.oldest_s is None:
        return f"Analysis is up to date{more}" if not backlog.images else f"{wait} for analysis{more}"
    return f"Analysis is {duration(backlog.oldest_s)} behind: {wait}{more}"


def _late(answer: WorklistAnswer) -> bool:
    backlog = answer.backlog
    return backlog is None or not backlog.complete or (backlog.oldest_s or 0.0) >= LATE_S


def _more(answer: WorklistAnswer) -> Text:
    if not answer.items:
        empty = (
            "Nothing to read."
            if answer.status is QueueStatus.OK
            else "Nothing is known yet: this is not an empty list."
        )
        return Text(empty, style="dim")
    left = answer.total - answer.items[-1].position
    return Text(f"… and {left} more" if left > 0 else "", style="dim")
