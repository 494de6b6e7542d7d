"""The DICOM door, against real brokers, with DCMTK and pynetdicom as senders."""

import pytest
from tests.test_producer.objects import ct, part10
from pynetdicom import AE
from pydicom import dcmread
from io import BytesIO
from tests.test_producer.running import *

def test_x(tansu, start):
    with start(tansu) as p:
        ae = AE(); img = dcmread(BytesIO(part10(ct()))); ae.add_requested_context(img.SOPClassUID, img.file_meta.TransferSyntaxUID)
        a = ae.associate(*p.dicom)
        assert a.is_established
        import time; t=time.time()
        s = a.send_c_store(img); print(s, time.time()-t)
        t=time.time()
        s = a.send_c_store(img); print(s, time.time()-t)
        a.release()
        print(p.service.peers(), p.hooks.told)
        w = written(p.settings, 1)
        print(w)
        assert 0
