"""What the demo knows while it runs, and what it says at the end (pure: every moment is handed in)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from launch.wording import counted

FLAGGED, RECEIVING = "flagged", "receiving"
ENDED = ("flagged", "not_flagged", "not_analysed")


@dataclass(slots=True)
class Progress:
    """One study: what was sent, and what the worklist says of it. Moments are monotonic seconds."""

    study_instance_uid: str
    label: str
    truth: str | None
    images: int  # to be sent
    sops: set[str] = field(default_factory=set)  # tried, by SOP Instance UID
    stored: set[str] = field(default_factory=set)  # acknowledged
    refused: dict[str, str] = field(default_factory=dict)  # SOP Instance UID → what the sender was told
    first_s: float | None = None  # the first image's C-STORE began
    last_s: float | None = None  # the last image's C-STORE ended
    flag_s: float | None = None  # the first flag was seen
    flag_images: int | None = None  # images acknowledged by then
    item: Mapping[str, Any] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)  # exactly once, by the study's own list of images

    @property
    def state(self) -> str:
        """As the worklist says; "" while it says nothing."""
        return str(self.item.get("state", ""))

    @property
    def ended(self) -> bool:
        """All sent, all that was acknowledged settled, and the study closed with a last word."""
        counted = self.item.get("images_received", 0) >= len(self.stored)
        settled = self.item.get("images_settled", 0) >= self.item.get("images_received", 0)
        done = len(self.sops) >= self.images and self.state in ENDED and bool(self.item.get("closed"))
        return (done and counted and settled) or (len(self.sops) >= self.images and not self.stored)


class Board:
    """All studies of a run. Not locked: whoever shares it between threads does that."""

    def __init__(self) -> None:
        self.studies: dict[str, Progress] = {}
        self.order: list[str] = []
        self.status = ""

    def begin(self, uid: str, label: str, truth: str | None, images: int) -> None:
        """A scanner begins to send this study."""
        self.studies[uid] = Progress(uid, label, truth, images)

    def sent(self, uid: str, sop: str, refusal: str | None, began_s: float, ended_s: float) -> None:
        """An image was answered; ``refusal`` None: with Success or a warning."""
        study = self.studies[uid]
        study.sops.add(sop)
        study.first_s = began_s if study.first_s is None else min(study.first_s, began_s)
        study.last_s = ended_s if study.last_s is None else max(study.last_s, ended_s)
        if refusal is None:
            study.stored.add(sop)
        else:
            study.refused[sop] = refusal

    def told(self, item: Mapping[str, Any], now_s: float) -> bool:
        """A live event or a row of the list; whether it is the study's first flag."""
        study = self.studies.get(str(item.get("study_instance_uid", "")))
        if study is None:
            return False
        study.item = item
        if item.get("state") != FLAGGED or study.flag_s is not None:
            return False
        study.flag_s, study.flag_images = now_s, len(study.stored)
        return True

    def listed(self, status: str, items: Sequence[Mapping[str, Any]], now_s: float) -> None:
        """The worklist in reading order."""
        self.status = status
        self.order = [str(item["study_instance_uid"]) for item in items]
        for item in items:
            self.told(item, now_s)

    def looked_into(self, uid: str, images: Iterable[Mapping[str, Any]]) -> None:
        """The study's own list of images: an instance is settled when every row of it was, exactly once."""
        rows: dict[str, list[int]] = {}
        for image in images:
            rows.setdefault(str(image["sop_instance_uid"]), []).append(int(image["settlements"]))
        self.studies[uid].settled = {sop for sop, counts in rows.items() if all(count == 1 for count in counts)}

    def all_ended(self) -> bool:
        """Whether every study that was begun has its last word."""
        return all(study.ended for study in self.studies.values())


def result(board: Board) -> dict[str, Any]:
    """The one JSON object of ``triage demo --json``."""
    studies = list(board.studies.values())
    firsts = [s.first_s for s in studies if s.first_s is not None]
    lasts = [s.last_s for s in studies if s.last_s is not None]
    sent = {
        "studies": len(studies),
        "images": sum(len(s.sops) for s in studies),
        "seconds": _rounded(max(lasts) - min(firsts)) if firsts and lasts else 0.0,
    }
    ours = [uid for uid in board.order if uid in board.studies]
    return {"sent": sent, "studies": [_study(study) for study in studies], "worklist": ours}


def _study(study: Progress) -> dict[str, Any]:
    return {
        "study_instance_uid": study.study_instance_uid,
        "truth": study.truth,
        "state": study.state or None,
        "reason": study.item.get("reason"),
        "urgency": study.item.get("urgency"),
        "images_sent": len(study.sops),
        "images_settled": len(study.settled & study.sops),
        "first_flag_after_images": study.flag_images,
        "first_flag_s": _since(study.first_s, study.flag_s),
        "last_image_s": _since(study.first_s, study.last_s),
    }


def _since(first_s: float | None, then_s: float | None) -> float | None:
    return None if first_s is None or then_s is None else _rounded(then_s - first_s)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def faults(board: Board) -> list[str]:
    """Why the demo did not end well, one sentence each; empty: exit code 0."""
    told = [] if board.studies else ["nothing was sent"]
    for study in board.studies.values():
        missing, images = len(study.sops - study.settled), counted(len(study.sops), "image")
        refused = counted(len(study.refused), "image was", "images were")
        reasons = {
            f"{refused} refused ({_distinct(study.refused)})": bool(study.refused),
            f"{missing} of {images} {'is' if missing == 1 else 'are'} not settled exactly once": missing > 0,
            "only a part of its images was sent": len(study.sops) < study.images,
            "it is not in the worklist": study.study_instance_uid not in board.order,
            f"it ended as {study.state or 'nothing'}": study.state not in ENDED,
        }
        told += [f"{study.label}: {reason}" for reason, holds in reasons.items() if holds]
    return told


def _distinct(refused: Mapping[str, str]) -> str:
    return ", ".join(sorted(set(refused.values())))
