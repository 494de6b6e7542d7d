"""Storage commitment across kill -9, with the producer as ``triage producer`` runs it, on Apache Kafka."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tests.servers.ports import free_port
from tests.test_producer.commitment_peers import TITLE, Requestor, ask
from tests.test_producer.objects import ct, part10
from tests.test_producer.running import wait_until
from tests.test_producer.senders import status_of

pytestmark = [pytest.mark.stack, pytest.mark.kafka, pytest.mark.filterwarnings("ignore")]

CT = "1.2.840.10008.5.1.4.1.1.2"
PATIENCE_S = 120.0  # a process starts, a session ends, a group forms; no test measures speed


@contextmanager
def producer(bootstrap: str, prefix: str, port: int, peer: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``triage producer``, ready; killed at the end, if the test has not done so."""
    given = {
        "TRIAGE_KAFKA__BOOTSTRAP": bootstrap,
        "TRIAGE_KAFKA__TOPIC_PREFIX": prefix,
        "TRIAGE_KAFKA__PARTITIONS": "3",
        "TRIAGE_KAFKA__REPLICATION": "1",
        "TRIAGE_KAFKA__MIN_INSYNC": "1",
        "TRIAGE_PRODUCER__PORT": str(port),
        "TRIAGE_PRODUCER__STOW_PORT": "0",
        "TRIAGE_PRODUCER__COMMITMENT_PEERS": json.dumps({TITLE: peer}),
        "TRIAGE_PROBES__PRODUCER_PORT": "0",
    }
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "launch.cli", "producer"]
        process = subprocess.Popen(command, env={**os.environ, **given}, stdout=sink, stderr=sink)
    try:
        wait_until(lambda: '"ready"' in log.read_text() or process.poll() is not None, PATIENCE_S)
        assert process.poll() is None, log.read_text()[-3000:]
        yield process
    finally:
        process.kill()
        process.wait(30)


def test_a_report_that_is_owed_survives_kill_9(kafka_broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """Killed between request and report: after a restart the requestor is called, and told what is durable.

    The image's own acknowledgement died with the process; the other half of the proof, its outcome, is not there
    without scoring: so it is honestly 0x0110 when the wait is over, and never silently committed or forgotten.
    """
    requestor, port, listen = Requestor(), free_port(), free_port()
    peer = f"127.0.0.1:{listen}"
    os.environ["TRIAGE_PRODUCER__COMMITMENT_WAIT_S"] = "5"
    try:
        with producer(kafka_broker, topic_prefix, port, peer, tmp_path / "first.log") as process:
            image = ct()
            with requestor.association(("127.0.0.1", port), (CT, ExplicitVRLittleEndian)) as association:
                wait_until(
                    lambda: status_of(association, part10(image)) == 0, PATIENCE_S
                )  # ready, perhaps, before Kafka
                transaction, status = ask(association, [(CT, str(image.SOPInstanceUID)), (CT, "1.2.3")])
                assert status == 0
                process.kill()  # SIGKILL, while the requestor still waits
                process.wait(30)
        with (
            requestor.listening(listen),
            producer(kafka_broker, topic_prefix, port, peer, tmp_path / "second.log"),
        ):
            report = requestor.report(PATIENCE_S)
            wait_until(lambda: '"commitment_reported"' in (tmp_path / "second.log").read_text(), 30)
    finally:
        del os.environ["TRIAGE_PRODUCER__COMMITMENT_WAIT_S"]
    assert (report.transaction_uid, report.same_association) == (transaction, False)
    assert report.failed == ((CT, str(image.SOPInstanceUID), 0x0110), (CT, "1.2.3", 0x0112))
    assert str(image.PatientName) not in (tmp_path / "second.log").read_text()
