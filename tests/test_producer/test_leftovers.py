"""What stays behind in the payload store is taken away, and nothing that a record may still lead to."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contracts.errors import PeerAway
from contracts.hooks import Happening
from producer.leftovers_out import LIVES, PART_S, Leftovers, naming, renewed
from producer.payload_out import PayloadStore
from tests.test_producer.conftest import Start
from tests.test_producer.objects import ct, part10
from tests.test_producer.running import Counting, wait_until, written
from tests.test_producer.senders import store

DAY_S = 86400.0
KEPT_S, MARGIN_S = 7 * DAY_S, DAY_S
LIMIT_S = LIVES * KEPT_S + MARGIN_S
NAME = "ab" * 32
KILLED_WHILE_WRITING = """
import os, signal, sys
from producer.payload_out import PayloadStore
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
PayloadStore(sys.argv[1]).put(bytes(1000))
"""


def leftovers(folder: Path, hooks: Counting, kept_s: float | None = KEPT_S) -> Leftovers:
    """Over a folder, with a broker that keeps records for so long."""
    return Leftovers(f"file://{folder}", lambda: kept_s, MARGIN_S, hooks)


def aged(file: Path, age_s: float) -> Path:
    """A file last written that long ago."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def part(folder: Path, number: int) -> Path:
    """A piece that is being written, or was."""
    return folder / "ab" / f"{NAME}.{number:012x}.part"


def test_only_what_is_ours_and_too_old_is_deleted(tmp_path: Path) -> None:
    """Payloads over twice the log's time and a margin, pieces over an hour; no other name, nothing behind a link."""
    folder, outside = tmp_path / "store", aged(tmp_path / "outside" / NAME, 2 * LIMIT_S)
    gone = [aged(folder / "ab" / NAME, LIMIT_S + 60), aged(part(folder, 1), PART_S + 60)]
    stays = [
        aged(folder / "cd" / NAME, LIMIT_S - 60),
        aged(part(folder, 2), PART_S - 60),
        aged(folder / "ab" / "README", 2 * LIMIT_S),
        aged(folder / "other" / NAME, 2 * LIMIT_S),
        outside,
    ]
    (folder / "ef").symlink_to(outside.parent)
    (folder / "cd" / ("cd" * 32)).symlink_to(outside)
    hooks = Counting()
    leftovers(folder, hooks).sweep()
    assert [file for file in gone if file.exists()] == []
    assert [file for file in stays if not file.exists()] == []
    told = [labels["kind"] for labels in hooks.labels_of(Happening.LEFTOVER_DELETED)]
    assert sorted(told) == ["part", "payload"]


def test_where_records_stay_for_ever_so_do_payloads(tmp_path: Path) -> None:
    """Retention -1, or a broker that tells none: a piece is deleted, no payload is."""
    payload, piece = aged(tmp_path / "ab" / NAME, 100 * LIMIT_S), aged(part(tmp_path, 1), PART_S + 60)
    leftovers(tmp_path, Counting(), kept_s=None).sweep()
    assert payload.exists()
    assert not piece.exists()


def test_while_the_broker_is_away_nothing_is_deleted(tmp_path: Path) -> None:
    """Nobody says how long records are kept."""

    def away() -> float:
        raise PeerAway("kafka")

    payload = aged(tmp_path / "ab" / NAME, 100 * LIMIT_S)
    with pytest.raises(PeerAway):
        Leftovers(f"file://{tmp_path}", away, MARGIN_S, Counting()).sweep()
    assert payload.exists()


def test_a_payload_that_comes_again_is_young_again(tmp_path: Path) -> None:
    """The same bytes get the same name: the new record's payload is not deleted as the old one's."""
    keeper = PayloadStore(f"file://{tmp_path}")
    file = Path(keeper.put(bytes(1000)).removeprefix("file://"))
    aged(file, 2 * LIMIT_S)
    keeper.put(bytes(1000))
    leftovers(tmp_path, Counting()).sweep()
    assert file.exists()


def test_a_payload_that_takes_its_name_amid_a_sweep_is_kept(tmp_path: Path) -> None:
    """The last look at the age and the deletion are one step for a writer, whichever process it lives in."""
    file = aged(tmp_path / "ab" / NAME, 2 * LIMIT_S)
    sweeping = threading.Thread(target=leftovers(tmp_path, Counting()).sweep)
    with naming(tmp_path):
        sweeping.start()
        sweeping.join(1.0)
        assert sweeping.is_alive()  # it saw the old one, and waits to delete it
        part(tmp_path, 1).touch()
        part(tmp_path, 1).replace(file)
    sweeping.join(60.0)
    assert not sweeping.is_alive()
    assert file.exists()


def test_a_kill_leaves_a_piece_and_the_next_start_takes_it_away(start: Start, tansu: str, tmp_path: Path) -> None:
    """Kill -9 amid a write: a producer that starts deletes the piece, and takes large objects as ever."""
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, f"file://{tmp_path}"], check=False)
    assert killed.returncode == -signal.SIGKILL
    (piece,) = tmp_path.glob("??/*.part")
    aged(piece, PART_S + 60)
    large = {"url": f"file://{tmp_path}", "inline_limit_bytes": 1000, "min_free_bytes": 0}
    with start(tansu, payload=large) as producer:
        wait_until(lambda: not piece.exists(), 60)
        assert store(producer.dicom, part10(ct())) == 0
        (scan,) = written(producer.settings, 1).scans
    assert Path(scan.headers.claim.removeprefix("file://")).is_file()


@pytest.mark.kafka
def test_payloads_go_when_the_topics_own_retention_says_so(start: Start, kafka_broker: str, tmp_path: Path) -> None:
    """Asked of the broker: seven days and a day's segment, twice, and a margin; the one within it stays."""
    limit_s = LIVES * (7 * DAY_S + DAY_S) + DAY_S
    old, young = aged(tmp_path / "ab" / NAME, limit_s + 3600), aged(tmp_path / "cd" / NAME, limit_s - 3600)
    with start(kafka_broker, payload={"url": f"file://{tmp_path}"}) as producer:
        wait_until(lambda: not old.exists(), 120)
        assert producer.hooks.labels_of(Happening.LEFTOVER_DELETED) == [{"kind": "payload"}]
    assert young.exists()


def test_a_payload_that_a_record_is_to_lead_to_again_is_young_again(tmp_path: Path) -> None:
    """A dead letter may be replayed to its last day; the record that this makes has a life of its own."""
    url = f"file://{tmp_path}"
    claims = [PayloadStore(url).put(bytes([number]) * 1000) for number in range(2)]
    files = [aged(Path(claim.removeprefix("file://")), LIMIT_S + 60.0) for claim in claims]
    assert renewed(url, claims[0])
    leftovers(tmp_path, Counting()).sweep()
    assert [file.exists() for file in files] == [True, False]


@pytest.mark.parametrize("place", ["ab/" + NAME, "../" + NAME, "ab/" + NAME + ".part", "etc/passwd", "", "x/" * 300])
def test_what_is_not_in_the_store_is_not_renewed(tmp_path: Path, place: str) -> None:
    """A claim comes from a topic: nothing outside the store is touched, and nothing is made."""
    outside = aged(tmp_path / NAME, DAY_S)
    before = outside.stat().st_mtime
    (tmp_path / "store").mkdir()
    assert not renewed(f"file://{tmp_path}/store", f"file://{tmp_path}/store/{place}")
    assert not renewed(f"file://{tmp_path}/store", f"file://{outside}")
    assert not renewed(f"file://{tmp_path}/away", f"file://{tmp_path}/away/{place}")
    assert outside.stat().st_mtime == before
    assert not (tmp_path / "away").exists()


def test_an_object_store_is_left_to_its_own_rule() -> None:
    """It deletes by a lifecycle rule; nothing is asked of it."""
    assert renewed("s3://bucket/scans", f"s3://bucket/scans/ab/{NAME}")
