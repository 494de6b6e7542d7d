"""Storage commitment against real brokers, with requestors that wait, hang up, refuse, lie and come back."""

import queue
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from kafka import KafkaAdminClient, TopicPartition
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from contracts import events
from contracts.events import Arrived, NotAnalysed, ScanPlace
from contracts.hooks import Happening, Silent
from contracts.names import Topics, partition_of
from contracts.ports import Entry
from contracts.reasons import Reason
from contracts.scans import Place
from launch.clients.kafka_call import KafkaLog, make_consumer
from launch.stack.tansu import Tansu
from tests.conftest import running
from tests.servers.ports import free_port
from tests.test_producer.commitment_peers import PATIENCE_S, TITLE, Requestor, action, ask
from tests.test_producer.conftest import Start
from tests.test_producer.objects import ct, part10
from tests.test_producer.running import Running, settings_of, wait_until
from tests.test_producer.running import running as producer_running
from tests.test_producer.senders import status_of

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
STORE = (CT, ExplicitVRLittleEndian)


@pytest.fixture
def own_tansu(tmp_path: Path) -> Iterator[Tansu]:
    """A broker of one's own, to be killed."""
    yield from running(Tansu(tmp_path))


@pytest.fixture(
    scope="module",
    params=["tansu", pytest.param("kafka_broker", marks=pytest.mark.kafka)],
    ids=["tansu", "kafka"],
)
def standing(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A producer with default settings that stands for many requestors, on each broker in turn: as in a hospital."""
    bootstrap = str(request.getfixturevalue(request.param))
    with producer_running(settings_of(bootstrap, f"t{uuid.uuid4().hex[:12]}.", {}, {})) as producer:
        yield producer


ON_TANSU = pytest.mark.parametrize("standing", ["tansu"], indirect=True)


def stored(peer: Any, images: list[Dataset]) -> list[tuple[str, str]]:
    """Stores them with Success; their references."""
    assert [status_of(peer, part10(image)) for image in images] == [0] * len(images)
    return [(CT, str(image.SOPInstanceUID)) for image in images]


def outcomes(producer: Running) -> list[str]:
    """How transactions ended, in order."""
    return [labels["outcome"] for labels in producer.hooks.labels_of(Happening.COMMITMENT_REPORTED)]


def undelivered(producer: Running) -> list[str]:
    """Why reports did not get through, in order."""
    return [labels["why"] for labels in producer.hooks.labels_of(Happening.COMMITMENT_UNDELIVERED)]


def owed(producer: Running) -> set[str]:
    """The transactions that the log says are owed."""
    consumer = make_consumer(producer.settings.kafka, group=None)
    try:
        topic = Topics(producer.settings.kafka.topic_prefix).commitments
        consumer.assign([TopicPartition(topic, n) for n in range(producer.settings.kafka.partitions)])
        consumer.seek_to_beginning()
        left: dict[bytes, bytes | None] = {}
        quiet = 0
        while quiet < 3:
            found = consumer.poll(timeout_ms=300)
            quiet = 0 if found else quiet + 1
            left |= {record.key: record.value for records in found.values() for record in records}
        return {key.decode().rpartition("|")[2] for key, value in left.items() if value is not None}
    finally:
        consumer.close()


def test_what_was_acknowledged_is_committed_on_the_same_association(standing: Running) -> None:
    """Type 1 for what this producer acknowledged; type 2 with 0x0112 where one reference never came."""
    requestor, before = Requestor(), len(outcomes(standing))
    with requestor.association(standing.dicom, STORE) as peer:
        pairs = stored(peer, [ct() for _ in range(3)])
        assert ask(peer, pairs, "1.2.100") == ("1.2.100", 0)
        report = requestor.report()
        assert (report.event_type, report.transaction_uid, report.failed) == (1, "1.2.100", ())
        assert sorted(report.committed) == sorted(pairs)
        assert report.same_association
        transaction, _ = ask(peer, [*pairs, (CT, "1.2.3")])
        report = requestor.report()
        assert (report.event_type, report.transaction_uid) == (2, transaction)
        assert report.failed == ((CT, "1.2.3", 0x0112),)
        assert sorted(report.committed) == sorted(pairs)
        wait_until(lambda: outcomes(standing)[before:] == ["committed", "failures"], PATIENCE_S)
        assert owed(standing) == set()


def test_a_requestor_that_hangs_up_is_called_with_the_role_turned_round(start: Start, broker: str) -> None:
    """A new association to the address of its AE title; we propose to be SCP (PS3.7 D.3.3.4)."""
    requestor = Requestor()
    with requestor.listening() as address, start(broker, commitment_peers={TITLE: address}) as producer:
        with requestor.association(producer.dicom, STORE) as peer:
            pairs = stored(peer, [ct()])
            transaction, status = ask(peer, pairs)
        assert status == 0
        report = requestor.report()
        assert (report.transaction_uid, report.event_type, report.same_association) == (transaction, 1, False)
        assert requestor.roles == [(False, True)]
        wait_until(lambda: outcomes(producer) == ["committed"], PATIENCE_S)
        assert undelivered(producer) == []


@ON_TANSU
def test_reports_and_images_share_an_association(standing: Running) -> None:
    """A report neither breaks into a store nor takes its answer, however many of both there are."""
    requestor, statuses = Requestor(), []
    with requestor.association(standing.dicom, STORE) as peer:
        pairs = stored(peer, [ct()])
        asked = []
        for _ in range(8):
            asked.append(ask(peer, [*pairs, *((CT, f"1.2.{n}") for n in range(2000))])[0])
            statuses += [status_of(peer, part10(ct())) for _ in range(15)]
        reports = [requestor.report() for _ in asked]
        assert peer.is_established
    assert statuses == [0] * len(statuses)
    assert sorted(report.transaction_uid for report in reports) == sorted(asked)
    assert {(len(report.committed), len(report.failed)) for report in reports} == {(1, 2000)}
    assert all(report.same_association for report in reports)


def test_ten_thousand_references_are_one_request(standing: Running) -> None:
    """A whole archive's night in one transaction, answered in one report."""
    requestor = Requestor()
    with requestor.association(standing.dicom, STORE) as peer:
        pairs = stored(peer, [ct()])
        strangers = [(CT, str(generate_uid())) for _ in range(9_999)]
        _, status = ask(peer, pairs + strangers)
        assert status == 0
        report = requestor.report()
        assert list(report.committed) == pairs
        assert [failed[1] for failed in report.failed] == [uid for _, uid in strangers]
        assert {failed[2] for failed in report.failed} == {0x0112}


@ON_TANSU
def test_another_class_and_a_duplicate(standing: Running) -> None:
    """The wrong SOP class is 0x0119; an image stored twice, and asked for twice, is committed once."""
    requestor = Requestor()
    with requestor.association(standing.dicom, STORE) as peer:
        image = ct()
        pairs = stored(peer, [image, image])
        ask(peer, [*pairs, (MR, pairs[0][1])])
        report = requestor.report()
        assert report.committed == (pairs[0],)
        assert report.failed == ((MR, pairs[0][1], 0x0119),)


class Beside:
    """What other producers and scoring would have written."""

    def __init__(self, producer: Running) -> None:
        self.topics = Topics(producer.settings.kafka.topic_prefix)
        self.log = KafkaLog(producer.settings.kafka, Silent())

    def __enter__(self) -> Self:
        assert self.log.wait_up(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close(5)

    def scan(self, study: str) -> Place:
        """A scan record."""
        partition = partition_of(study, self.log.partitions)
        return self.log.append(Entry(self.topics.routine, partition, study.encode(), b"scan")).result(20)

    def event(self, event: events.StudyEvent) -> None:
        """Any event."""
        partition = partition_of(event.study_instance_uid, self.log.partitions)
        self.log.append(Entry(self.topics.events, partition, event.key, events.encode(event))).result(20)

    def arrived(self, image: Dataset, pixels: str = "p") -> None:
        """As another producer's."""
        self.event(Arrived(**names(image, pixels), sop_class_uid=CT, digest="d"))

    def settled(
        self, image: Dataset, place: Place | None, reason: Reason = Reason.LOCALIZER, pixels: str = "p"
    ) -> None:
        """As scoring's, for an image that it does not score."""
        scan = ScanPlace(topic=place.topic, partition=place.partition, offset=place.offset) if place else None
        self.event(NotAnalysed(**names(image, pixels), reason=reason, scan=scan))


def names(image: Dataset, pixels: str) -> dict[str, Any]:
    """What every event of an image says."""
    return {
        "study_instance_uid": image.StudyInstanceUID,
        "series_instance_uid": image.SeriesInstanceUID,
        "sop_instance_uid": image.SOPInstanceUID,
        "pixel_digest": pixels,
        "at": 1.0,
    }


def test_others_images_are_committed_once_their_outcome_names_the_scan(start: Start, broker: str) -> None:
    """``arrived`` alone is half a store; an outcome proves the other half; a payload that is gone proves nothing."""
    requestor = Requestor()
    whole, half, alone, gone, two = (ct() for _ in range(5))
    with start(broker, commitment_wait_s=6.0) as producer, Beside(producer) as beside:
        for image in (whole, half, gone, two):
            beside.arrived(image)
        for image in (whole, alone, two):
            beside.settled(image, beside.scan(image.StudyInstanceUID))
        beside.settled(gone, beside.scan(gone.StudyInstanceUID), Reason.PAYLOAD_MISSING)
        beside.arrived(two, "other pixels")  # and the store of those failed half-way
        with requestor.association(producer.dicom) as peer:
            ask(peer, [(CT, str(image.SOPInstanceUID)) for image in (whole, half, alone, gone, two)])
            report = requestor.report()
        assert report.committed == ((CT, whole.SOPInstanceUID),)
        unproven = (half, alone, gone, two)
        assert report.failed == tuple((CT, image.SOPInstanceUID, 0x0110) for image in unproven)


def test_an_outcome_that_comes_while_we_wait_makes_the_difference(start: Start, tansu: str) -> None:
    """The report waits for scoring, not only for the log's end; it goes out as soon as all is proven."""
    requestor, image = Requestor(), ct()
    with start(tansu, commitment_wait_s=120.0) as producer, Beside(producer) as beside:
        place = beside.scan(image.StudyInstanceUID)
        beside.arrived(image)
        with requestor.association(producer.dicom) as peer:
            ask(peer, [(CT, str(image.SOPInstanceUID))])
            with pytest.raises(queue.Empty):
                requestor.report(4)
            beside.settled(image, place)
            assert requestor.report().event_type == 1


@pytest.mark.kafka
def test_what_has_left_the_log_is_no_longer_committed(start: Start, kafka_broker: str) -> None:
    """Retention takes a scan: 0x0112, also from the producer that acknowledged it."""
    requestor, image = Requestor(), ct()
    with start(kafka_broker) as producer, requestor.association(producer.dicom, STORE) as peer:
        pairs = stored(peer, [image])
        ask(peer, pairs)
        assert requestor.report().event_type == 1
        topics = Topics(producer.settings.kafka.topic_prefix)
        partition = partition_of(str(image.StudyInstanceUID), producer.settings.kafka.partitions)
        admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
        admin.delete_records({TopicPartition(topics.routine, partition): 1, TopicPartition(topics.stat, partition): 0})
        admin.close()
        ask(peer, pairs)
        assert requestor.report().failed == ((*pairs[0], 0x0112),)


def test_a_transaction_asked_again_is_the_same_or_refused(start: Start, tansu: str) -> None:
    """The same references: Success, and one thing is owed. Others under its UID: 0x0115, and the first stays."""
    requestor = Requestor()
    with start(tansu) as producer:
        with requestor.association(producer.dicom) as peer:
            assert ask(peer, [(CT, "1.2.3")], "1.2.77")[1] == 0
        wait_until(lambda: "no_address" in undelivered(producer), PATIENCE_S)
        assert "no address" in producer.service.peers()["commitment"]
        with requestor.association(producer.dicom) as peer:
            assert ask(peer, [(CT, "1.2.4")], "1.2.77")[1] == 0x0115
            assert ask(peer, [(CT, "1.2.3")], "1.2.77")[1] == 0
            assert requestor.report().failed == ((CT, "1.2.3", 0x0112),)
        wait_until(lambda: outcomes(producer) == ["failures"], PATIENCE_S)
        assert "commitment" not in producer.service.peers()
        assert owed(producer) == set()


def hostile(**changes: Any) -> Dataset:
    """Action Information with something wrong."""
    data = action([(CT, "1.2.3")], "1.2.5")
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def test_wrong_requests_are_answered_and_the_association_goes_on(start: Start, tansu: str) -> None:
    """Each fault has its status (PS3.7 Annex C); images and good requests on the same association are served."""
    wrong: list[tuple[Any, dict[str, Any], int]] = [
        (hostile(TransactionUID=None), {}, 0x0120),
        (hostile(TransactionUID=""), {}, 0x0121),
        (hostile(TransactionUID="../../etc/passwd"), {}, 0x0106),
        (hostile(ReferencedSOPSequence=None), {}, 0x0120),
        (hostile(ReferencedSOPSequence=[]), {}, 0x0121),
        (hostile(ReferencedSOPSequence=[Dataset()]), {}, 0x0120),
        (None, {}, 0x0120),
        (hostile(), {"action_type": 2}, 0x0123),
        (hostile(), {"instance": "1.2.3.4"}, 0x0112),
        (action([(CT, f"1.2.{n}") for n in range(60)], "1.2.6"), {}, 0x0213),
    ]
    requestor = Requestor()
    with (
        start(tansu, commitment_references=50) as producer,
        requestor.association(producer.dicom, STORE) as peer,
    ):
        assert [ask(peer, data, **given)[1] for data, given, _ in wrong] == [status for _, _, status in wrong]
        pairs = stored(peer, [ct()])
        ask(peer, pairs)
        assert list(requestor.report().committed) == pairs
        answers = [labels["answer"] for labels in producer.hooks.labels_of(Happening.COMMITMENT_REQUESTED)]
        assert answers == [*(f"0x{status:04X}" for _, _, status in wrong), "0x0000"]
        assert owed(producer) == set()


def test_more_than_may_be_owed_is_refused_for_now(start: Start, tansu: str) -> None:
    """0x0213 over ``commitment_pending_bytes``: what was promised before stays promised."""
    requestor = Requestor()
    with start(tansu, commitment_pending_bytes=2000, commitment_pending_share=1.0) as producer:
        many = [(CT, f"1.2.{n}") for n in range(80)]
        with requestor.association(producer.dicom) as peer:
            first, status = ask(peer, many)
            assert status == 0
        wait_until(lambda: "no_address" in undelivered(producer), PATIENCE_S)
        with requestor.association(producer.dicom) as peer:
            assert ask(peer, many)[1] == 0x0213
        assert owed(producer) == {first}


def test_a_greedy_peer_leaves_a_modest_one_room(start: Start, tansu: str) -> None:
    """0x0213 over the share of its address, also after a restart; another address is promised, and told, its report."""
    greedy, modest = Requestor(), Requestor()
    many, few = [(CT, f"1.2.{n}") for n in range(80)], [(CT, "1.2.3")]
    settings = {"commitment_pending_bytes": 6000, "commitment_pending_share": 0.4}  # one of many fits, two do not
    with start(tansu, **settings) as producer:
        with greedy.association(producer.dicom) as peer:
            assert ask(peer, many)[1] == 0
        wait_until(lambda: "no_address" in undelivered(producer), PATIENCE_S)
        assert refused_and_promised(producer, greedy, modest, many, few) == (0x0213, 0)
    with start(tansu, **settings) as producer:
        wait_until(lambda: "no_address" in undelivered(producer), PATIENCE_S)
        assert refused_and_promised(producer, greedy, modest, many, few) == (0x0213, 0)


def refused_and_promised(
    producer: Running, greedy: Requestor, modest: Requestor, many: list[tuple[str, str]], few: list[tuple[str, str]]
) -> tuple[int, int]:
    """What one more request of the greedy is answered, and one of the modest, who gets its report."""
    with greedy.association(producer.dicom) as peer:
        refused = ask(peer, many)[1]
    with modest.association(producer.dicom, bind="127.0.0.2") as peer:
        transaction, promised = ask(peer, few)
        assert modest.report().transaction_uid == transaction
    return refused, promised


def test_without_a_broker_nothing_is_promised(start: Start) -> None:
    """0x0110 while the request itself cannot be made durable."""
    requestor = Requestor()
    with (
        start("127.0.0.1:1", broker_away=True, kafka={"ack_timeout_s": 2.0}) as producer,
        requestor.association(producer.dicom) as peer,
    ):
        assert ask(peer, [(CT, "1.2.3")])[1] == 0x0110


def test_a_peer_that_fails_is_asked_again_until_it_answers_success(start: Start, tansu: str) -> None:
    """The same TransactionUID each time; the tombstone only after Success."""
    requestor = Requestor(answers=[0x0110, 0x0213])
    with requestor.listening() as address, start(tansu, commitment_peers={TITLE: address}) as producer:
        with requestor.association(producer.dicom) as peer:
            transaction, _ = ask(peer, [(CT, "1.2.3")])
        assert [requestor.report().transaction_uid for _ in range(3)] == [transaction] * 3
        wait_until(lambda: outcomes(producer) == ["failures"], PATIENCE_S)
        assert undelivered(producer) == ["refused", "refused"]
        assert owed(producer) == set()


def test_a_peer_that_refuses_on_the_association_is_called(start: Start, tansu: str) -> None:
    """A requestor that cannot take the report where it asked gets it where it listens."""
    requestor = Requestor(answers=[0x0110])
    with requestor.listening() as address, start(tansu, commitment_peers={TITLE: address}) as producer:
        with requestor.association(producer.dicom) as peer:
            ask(peer, [(CT, "1.2.3")])
            assert [requestor.report().same_association for _ in range(2)] == [True, False]
        wait_until(lambda: outcomes(producer) == ["failures"], PATIENCE_S)


def test_a_report_that_nobody_takes_is_given_up_and_told(start: Start, tansu: str) -> None:
    """After ``commitment_retry_s``: counted, and no longer owed."""
    requestor = Requestor()
    peers = {TITLE: f"127.0.0.1:{free_port()}"}
    with start(tansu, commitment_peers=peers, commitment_retry_s=4.0) as producer:
        with requestor.association(producer.dicom) as peer:
            ask(peer, [(CT, "1.2.3")])
        wait_until(lambda: outcomes(producer) == ["given_up"], PATIENCE_S)
        assert set(undelivered(producer)) == {"away", "given_up"}
        assert owed(producer) == set()


def test_what_is_owed_outlives_the_producer(start: Start, broker: str) -> None:
    """A peer's address that is set later, with a restart, is not too late."""
    requestor = Requestor()
    with start(broker) as first:
        with requestor.association(first.dicom) as peer:
            transaction, _ = ask(peer, [(CT, "1.2.3")])
        wait_until(lambda: "no_address" in undelivered(first), PATIENCE_S)
    with requestor.listening() as address, start(broker, commitment_peers={TITLE: address}) as second:
        report = requestor.report()
        assert (report.transaction_uid, report.failed) == (transaction, ((CT, "1.2.3", 0x0112),))
        wait_until(lambda: outcomes(second) == ["failures"], PATIENCE_S)
        assert owed(second) == set()


@pytest.mark.kafka
def test_another_producer_takes_over_what_is_owed(start: Start, kafka_broker: str) -> None:
    """One that stops leaves its partitions, and the reports with them, to the one that runs beside it.

    That one did not acknowledge the image, and nobody scores here: it says 0x0110 when its wait is over.
    """
    requestor, knows = Requestor(), {"commitment_wait_s": 5.0}
    with start(kafka_broker) as first:
        with requestor.association(first.dicom, STORE) as peer:
            pairs = stored(peer, [ct()])
            transaction, _ = ask(peer, [*pairs, (CT, "1.2.3")])
        wait_until(lambda: "no_address" in undelivered(first), PATIENCE_S)
        with (
            requestor.listening() as address,
            start(kafka_broker, commitment_peers={TITLE: address}, **knows) as second,
        ):
            first.end()
            report = requestor.report()
            assert report.transaction_uid == transaction
            assert report.failed == ((*pairs[0], 0x0110), (CT, "1.2.3", 0x0112))
            wait_until(lambda: outcomes(second) == ["failures"], PATIENCE_S)
            assert owed(second) == set()


def test_a_memory_only_broker_that_was_lost_has_committed_nothing(start: Start, own_tansu: Tansu) -> None:
    """What it acknowledged is gone: the same image, asked for again, is 0x0112."""
    requestor = Requestor()
    settings = {"ack_timeout_s": 4.0, "memory_only": True}
    with start(own_tansu.bootstrap, kafka=settings) as producer:
        with requestor.association(producer.dicom, STORE) as peer:
            pairs = stored(peer, [ct()])
            ask(peer, pairs)
            assert requestor.report().event_type == 1
        own_tansu.kill()
        wait_until(lambda: producer.service.peers()["kafka"] == "away", PATIENCE_S)
        own_tansu.start()
        wait_until(lambda: producer.service.peers()["kafka"] == "up", PATIENCE_S)
        with requestor.association(producer.dicom) as peer:
            wait_until(lambda: ask(peer, pairs)[1] == 0, PATIENCE_S)
            assert requestor.report().failed == ((*pairs[0], 0x0112),)


def test_switched_off_it_is_not_offered(start: Start, tansu: str) -> None:
    """The presentation context is rejected; images are taken."""
    requestor = Requestor()
    with start(tansu, commitment=False) as producer, requestor.association(producer.dicom, STORE) as peer:
        assert [str(context.abstract_syntax) for context in peer.accepted_contexts] == [CT]
        stored(peer, [ct()])


@ON_TANSU
def test_many_requestors_at_once(standing: Running) -> None:
    """Each gets its own report, on its own association."""
    requestors = [Requestor() for _ in range(8)]
    found: list[tuple[int, Any]] = []

    def one(requestor: Requestor, number: int) -> None:
        with requestor.association(standing.dicom) as peer:
            ask(peer, [(CT, f"1.2.{number}")], f"1.2.900.{number}")
            found.append((number, requestor.report()))

    threads = [threading.Thread(target=one, args=(r, n)) for n, r in enumerate(requestors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(number for number, _ in found) == list(range(8))
    for number, report in found:
        assert (report.transaction_uid, report.failed[0][1]) == (f"1.2.900.{number}", f"1.2.{number}")
        assert report.same_association
