"""Which body part an instance says it shows. Descriptions are free text in many languages: a table of words. Pure."""

import re
from collections.abc import Iterable
from enum import StrEnum


class Said(StrEnum):
    """What the words come to."""

    HEAD = "head"
    OTHER = "other"
    UNCLEAR = "unclear"  # nothing is named, or both are: the pixels decide


# Stems match from the beginning of a word, so that inflections and compounds match too; short words match whole.
_HEAD_STEMS = """
    HEAD BRAIN SKULL CRANI CEREB NEURO STROKE INTRACRAN ENCEPHAL SCHAEDEL SCHÄDEL SCHADEL KOPF HIRN GEHIRN
    CRÂNE CERVEAU CABEZA CABECA CABEÇA ENCEF HOOFD HERSEN GŁOWA GLOWA
"""
_HEAD_WORDS = "CCT CRANE TETE TÊTE TESTA NCCT"
_OTHER_STEMS = """
    CHEST THORA LUNG ABDOM PELVI LIVER PANCREA KIDNEY RENAL BOWEL COLON STOMACH HEART CARDIA CORONAR AORT BREAST
    NECK CERVIC SPINE SPINAL LUMBAR SACR CSPINE TSPINE LSPINE SHOULDER ELBOW WRIST FEMUR FEMOR HUMER KNEE ANKLE FOOT
    EXTREMIT WHOLEBODY PROSTAT BLADDER UTER SINUS ORBIT MANDIB MAXILL TEMPORAL DENTAL
    HALS WIRBEL BECKEN LUNGE LEBER BAUCH SCHULTER POUMON FOIE BASSIN RACHIS TORAX TÓRAX CUELLO COLUMNA PECHO
"""
_OTHER_WORDS = "ARM HAND HIP LEG TOE JAW IAC WHOLE HWS BWS LWS BEIN KNIE COU CTPA CCTA TAP CAP KUB"


def _pattern(stems: str, words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:(?:{'|'.join(stems.split())})|(?:{'|'.join(words.split())})\b)")


_HEAD = _pattern(_HEAD_STEMS, _HEAD_WORDS)
_OTHER = _pattern(_OTHER_STEMS, _OTHER_WORDS)
_SEPARATORS = re.compile(r"[\W_]+")  # descriptions write CT_HEAD, HEAD^ROUTINE, Neuro/Stroke


def said(body_part: str, texts: Iterable[str]) -> Said:
    """HEAD only where a head and nothing else is named. The argument texts are upper case."""
    words = " ".join(_SEPARATORS.sub(" ", text) for text in (body_part, *texts))
    head, other = bool(_HEAD.search(words)), bool(_OTHER.search(words))
    if head == other:
        return Said.UNCLEAR
    return Said.HEAD if head else Said.OTHER
