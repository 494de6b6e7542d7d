"""More than it can hold: 0xA700 before memory runs out, and everything acknowledged is on the log."""

import threading
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.test_producer.objects import ct, part10
from tests.test_producer.running import settings_of, written
from tests.test_producer.senders import association, status_of
from tests.test_producer.service_process import producer_process

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

CT = (CTImageStorage, ExplicitVRLittleEndian)
MIB = 1024**2
ASSOCIATIONS, IMAGE_BYTES, BUDGET_BYTES, BUFFER_BYTES = 64, 4 * MIB, 24 * MIB, 24 * MIB


def test_64_associations_of_large_images_stay_below_the_high_water_mark(
    tansu: str, topic_prefix: str, tmp_path: Path
) -> None:
    """256 MiB are offered at once to 24: all are answered, Success or 0xA700, and memory stays within the marks."""
    settings = settings_of(
        tansu,
        topic_prefix,
        {"buffer_bytes": BUFFER_BYTES, "ack_timeout_s": 60.0},
        {"inline_limit_bytes": 8 * MIB},
        limits={
            "memory_bytes": BUDGET_BYTES,
            "inflated_bytes": BUDGET_BYTES,
            "associations_per_address": ASSOCIATIONS,
            "associations_per_title": ASSOCIATIONS,
        },
    )
    images = [ct(Rows=2048, Columns=1024, PixelData=bytes([n]) * IMAGE_BYTES) for n in range(4)]
    payloads = [part10(image) for image in images]
    statuses: list[int] = []
    acknowledged: set[str] = set()
    together = threading.Barrier(ASSOCIATIONS)
    with producer_process(settings, tmp_path / "producer") as process:
        address = process.dicom
        before = process.most_memory_bytes()

        def send(number: int) -> None:
            with association(address, CT) as peer:
                together.wait(120)
                status = status_of(peer, payloads[number % len(payloads)])
                statuses.append(status)
                if status == 0:
                    acknowledged.add(images[number % len(images)].SOPInstanceUID)

        senders = [threading.Thread(target=send, args=(n,)) for n in range(ASSOCIATIONS)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(200)
        grown = process.most_memory_bytes() - before
    assert len(statuses) == ASSOCIATIONS
    assert set(statuses) <= {0x0000, 0xA700}
    assert statuses.count(0) >= 1
    assert statuses.count(0xA700) >= 1
    # The budget, the log's buffer, and what threads and the allocator keep of 64 associations (1 MiB a PDU, at most).
    assert grown < 3 * BUDGET_BYTES + 3 * BUFFER_BYTES + ASSOCIATIONS * 2 * MIB
    log = written(settings, len(acknowledged))
    assert acknowledged <= {scan.headers.sop_instance_uid for scan in log.scans}
