"""Hooks become metrics and log lines: the table decides, promtool judges, nothing raises, nobody's name is told."""

import json
import logging
import re
import shutil
import subprocess
import threading
import warnings
from contextlib import nullcontext
from io import StringIO
from typing import Any

import pytest

from contracts.errors import PeerAway, Rejected
from contracts.hooks import Happening, Stage
from contracts.metrics import METRICS, Kind
from contracts.reasons import Reason
from launch.log_out import Bridge, JsonLog
from launch.observe_out import Observer
from tests.conftest import missing

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Told:
    """An observer and the lines it wrote."""

    def __init__(self, level: str = "INFO") -> None:
        self.stream = StringIO()
        self.log = JsonLog("test", level, self.stream)
        self.observer = Observer(self.log)

    def lines(self) -> list[dict[str, Any]]:
        """What was written, a dictionary a line."""
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def sample(self, line: str) -> float:
        """The value of one exposed series."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.observer.exposition().decode(), re.MULTILINE)
        assert found, f"{line} is not exposed"
        return float(found.group(1))


def everything(observer: Observer) -> None:
    """Every stage and every happening once."""
    for stage in Stage:
        with observer.stage(stage, TRACEPARENT):
            pass
    for happening, metric in METRICS.items():
        observer.happened(happening, 1.0, TRACEPARENT, **dict.fromkeys(metric.labels, "x"))


def test_promtool_has_no_complaint_about_any_metric() -> None:
    """Every metric of the table and the process's own, as exposed, through the real linter."""
    if shutil.which("promtool") is None:
        missing("promtool is not installed (apt: prometheus)")
    told = Told()
    everything(told.observer)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=told.observer.exposition(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert told.sample("process_open_fds") > 0


def test_every_happening_is_exposed_under_its_name_of_the_table() -> None:
    """A counter that counts, a gauge that is set, a histogram that observes."""
    told = Told()
    everything(told.observer)
    for metric in METRICS.values():
        labels = ",".join(f'{name}="x"' for name in sorted(metric.labels))
        suffix = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_count"}[metric.kind]
        assert told.sample(f"{metric.name}{suffix}" + (f"{{{labels}}}" if labels else "")) == 1.0


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (None, "ok"),
        (Rejected(Reason.UNPARSABLE), "rejected"),
        (PeerAway("kafka"), "peer_error"),
        (KeyError("x"), "error"),
        (KeyboardInterrupt(), "cancelled"),
    ],
)
def test_a_stage_is_counted_in_out_and_in_progress(problem: BaseException | None, outcome: str) -> None:
    """In progress is 1 inside and 0 after, however it ends; the exception passes through."""
    told = Told()
    passes = pytest.raises(type(problem)) if problem else nullcontext()
    with passes, told.observer.stage(Stage.DECODE):
        assert told.sample('triage_stage_in_progress{stage="decode"}') == 1
        if problem:
            raise problem
    assert told.sample('triage_stage_in_progress{stage="decode"}') == 0
    assert told.sample('triage_stage_started_total{stage="decode"}') == 1
    assert told.sample(f'triage_stage_finished_total{{outcome="{outcome}",stage="decode"}}') == 1
    assert told.sample('triage_stage_seconds_count{stage="decode"}') == 1


def test_a_wrong_label_is_counted_as_a_fault_and_never_raises() -> None:
    """A room that errs in a label goes on working; its value is not told anywhere."""
    told = Told()
    told.observer.happened(Happening.RECEIVED, door="dicom", patient="Doe^John")
    told.observer.happened(Happening.RECEIVED, -1.0, door="dicom", lane="stat")
    assert told.sample('triage_faults_total{where="hooks"}') == 2
    assert "Doe" not in told.stream.getvalue() + told.observer.exposition().decode()


def test_a_gauge_that_gets_nan_is_taken_away() -> None:
    """The lag of a partition that now belongs to somebody else is not told any more, and no line holds a NaN."""
    told = Told("DEBUG")
    told.observer.happened(Happening.LAG_RECORDS, 5.0, topic="t", partition="0")
    assert told.sample('triage_lag_records{partition="0",topic="t"}') == 5
    told.observer.happened(Happening.LAG_RECORDS, float("nan"), topic="t", partition="0")
    assert b"triage_lag_records{" not in told.observer.exposition()
    assert "NaN" not in told.stream.getvalue()


def test_a_line_carries_time_level_service_event_and_trace() -> None:
    """A flag is told at INFO with the trace of the image that raised it."""
    told = Told()
    told.observer.happened(Happening.FLAGGED, traceparent=TRACEPARENT, urgency="critical")
    (line,) = told.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    expected = {"level": "info", "service": "test", "event": "flagged", "trace_id": TRACE, "urgency": "critical"}
    assert line == expected | {"value": 1.0}


def test_at_info_images_and_stages_are_counted_but_not_told() -> None:
    """A thousand images are a thousand counts and no line."""
    told = Told()
    for _ in range(1000):
        with told.observer.stage(Stage.INFER):
            told.observer.happened(Happening.SCORED, model="m", version="1")
    assert told.lines() == []
    assert told.sample('triage_images_scored_total{model="m",version="1"}') == 1000


def test_a_gauge_is_told_when_it_changes_and_away_is_a_warning() -> None:
    """A peer looked at every second is told twice: when it goes and when it comes back."""
    told = Told()
    for value in (1.0, 1.0, 0.0, 0.0, 0.0, 1.0):
        told.observer.happened(Happening.PEER_UP, value, peer="redis")
    assert [(line["level"], line["value"]) for line in told.lines()] == [("info", 1.0), ("warning", 0.0), ("info", 1.0)]


def test_a_counter_that_counts_nothing_is_not_told() -> None:
    """That no study expired is no warning."""
    told = Told()
    told.observer.happened(Happening.STUDY_EXPIRED, 0.0)
    told.observer.happened(Happening.STUDY_EXPIRED, 2.0)
    assert [line["value"] for line in told.lines()] == [2.0]


def test_debug_lines_are_limited_and_what_was_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand stages in one second are twenty lines; the next second says how many are missing."""
    told = Told("DEBUG")
    now = [100.0]
    monkeypatch.setattr(told.log._limit, "_clock", lambda: now[0])
    for _ in range(1000):
        with told.observer.stage(Stage.INFER):
            pass
    assert len(told.lines()) == 20
    now[0] = 101.0
    with told.observer.stage(Stage.INFER):
        pass
    assert told.lines()[-1]["suppressed"] == 980


@pytest.fixture
def bridged() -> Any:
    """Python's logging through our lines, as a service has it; undone afterwards."""
    told = Told()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    with warnings.catch_warnings():
        Bridge(told.log).install()
        yield told
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before


def test_a_library_that_sees_patients_is_told_without_its_words(bridged: Told) -> None:
    """Pydicom quotes values in its warnings: who and where is told, what is not."""
    logging.getLogger("pydicom").warning("Invalid value for VR PN: %r", "Doe^John")
    logging.getLogger("pynetdicom.events").error("Doe^John")
    warnings.warn("Doe^John", stacklevel=1)
    text = bridged.stream.getvalue()
    assert "Doe" not in text
    assert [line["logger"] for line in bridged.lines()] == ["pydicom", "pynetdicom.events", "py.warnings"]


def test_the_words_of_warnings_are_not_kept(bridged: Told) -> None:
    """Python remembers each warning's text to tell it once: a value of every broken image, for ever. Not here."""
    for number in range(3):
        warnings.warn(f"Doe^John {number}", stacklevel=1)
    assert not [key for key in globals().get("__warningregistry__", {}) if "Doe^John" in str(key)]


def test_a_library_that_repeats_itself_is_cut_short(bridged: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away is not a line for every attempt; its connection's words are told."""
    handler = next(handler for handler in logging.getLogger().handlers if isinstance(handler, Bridge))
    monkeypatch.setattr(handler._limit, "_clock", lambda: 100.0)
    for _ in range(100):
        logging.getLogger("kafka.net.manager").warning("Connection refused")
    assert [line["detail"] for line in bridged.lines()] == ["Connection refused"] * 2


def test_threads_do_not_tear_lines() -> None:
    """Eight threads write at once, and every line is whole."""
    told = Told()

    def fifty() -> None:
        for _ in range(50):
            told.log.write(logging.INFO, "e", {"n": "x" * 500})

    write = [threading.Thread(target=fifty) for _ in range(8)]
    for thread in write:
        thread.start()
    for thread in write:
        thread.join()
    assert len(told.lines()) == 400
