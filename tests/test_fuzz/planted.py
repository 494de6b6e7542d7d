"""Targets with a planted failure: the watch over targets must see each of them."""

import ctypes
import os
import time
from collections.abc import Callable

from chaos.fuzz.dice import Dice
from chaos.fuzz.target import Target

_kept: list[bytes] = []


def _number(dice: Dice) -> bytes:
    return bytes([dice.whole(0, 9)])


def _target(name: str, call: Callable[[bytes], None]) -> Target:
    return Target(name, _number, lambda: call, 1)


def _raises(data: bytes) -> None:
    if data == b"\x07":
        raise KeyError("planted")


def _dies(data: bytes) -> None:
    if data == b"\x07":
        os.kill(os.getpid(), 11)


def _spins(data: bytes) -> None:
    while data == b"\x07":
        try:
            time.sleep(0.01)
        except Exception:  # noqa: BLE001, S112 - a guard that swallows everything
            continue


def _sleeps_in_native_code(data: bytes) -> None:
    if data == b"\x07":
        libc = ctypes.CDLL(None)
        libc.sigprocmask(0, ctypes.byref((ctypes.c_ulong * 16)(*[2**64 - 1] * 16)), None)
        libc.pause()


def _leaks(data: bytes) -> None:
    _kept.append(data * 1024**2)


RAISES = _target("planted-raises", _raises)
DIES = _target("planted-dies", _dies)
SPINS = _target("planted-spins", _spins)
NATIVE = _target("planted-native", _sleeps_in_native_code)
LEAKS = _target("planted-leaks", _leaks)
SOUND = _target("planted-sound", lambda _: None)
