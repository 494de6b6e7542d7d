"""A watch that never cries proves nothing: planted crashes, deaths, hangs and leaks are all seen and kept."""

import json
from pathlib import Path

import pytest

from chaos.fuzz import campaign_call
from chaos.fuzz.campaign_call import Campaign, Order
from chaos.fuzz.dice import Seeded
from chaos.fuzz.found_out import target_of
from chaos.fuzz.plan import chunks_of
from chaos.fuzz.result import Result, Scanned, Tried, result_of, shared
from chaos.fuzz.run_call import Wanted, replay
from chaos.fuzz.target import Target
from chaos.fuzz.wire_call import exchanged, status_of
from tests.test_fuzz import planted

PLANTED = "tests.test_fuzz.planted"
SEED = 4


def tried(folder: Path, name: str, inputs: int = 40) -> Tried:
    """A planted target's run."""
    return Campaign(folder, tell=False).run(Order(f"{PLANTED}:{name}", inputs, seed=SEED))


def first_seven(target: Target) -> int:
    """How many inputs it takes until the one that every planted failure waits for."""
    return next(n for n in range(1, 99) if target.grammar(Seeded(SEED, n - 1)) == b"\x07")


def test_a_sound_target_is_given_every_input_and_nothing_is_found(tmp_path: Path) -> None:
    """Silent before: no crash, no hang, no growth."""
    told = tried(tmp_path, "SOUND", 300)
    assert (told.inputs, told.crashes, told.hangs, told.good) == (300, 0, 0, True)
    assert not list(tmp_path.iterdir())


def test_an_exception_that_is_not_declared_is_a_crash_and_its_input_is_kept(tmp_path: Path) -> None:
    """Every such input counts, one of each place is kept, and can be given to the target again."""
    told = tried(tmp_path, "RAISES")
    assert told.crashes > 1
    assert not told.good
    (file,) = map(Path, told.files)
    assert file.read_bytes() == b"\x07"
    assert target_of(file) == "planted-raises"
    assert "KeyError" in json.loads(file.with_suffix(".json").read_text())["place"]
    assert "KeyError" in replay(file, lambda _: planted.RAISES.make(), 5.0)
    assert replay(file, lambda _: planted.SOUND.make(), 5.0) == "nothing wrong"


def test_a_target_that_takes_its_process_with_it_is_told_by_its_slot(tmp_path: Path) -> None:
    """A segmentation fault ends the child: the input in hand is kept, and the others are tried all the same."""
    inputs = first_seven(planted.DIES) + 2
    told = tried(tmp_path, "DIES", inputs)
    assert (told.inputs, told.crashes) == (inputs, 1)
    assert {Path(file).read_bytes() for file in told.files} == {b"\x07"}


def test_a_target_that_does_not_return_is_a_hang(tmp_path: Path) -> None:
    """Also where a guard of ours swallows every exception; it is tried twice, as a busy machine stalls once."""
    inputs = first_seven(planted.SPINS)
    told = tried(tmp_path, "SPINS", inputs)
    assert (told.inputs, told.hangs) == (inputs, 1)


def test_native_code_that_does_not_return_is_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal reaches it: the parent kills the child, keeps the input and goes on behind it."""
    monkeypatch.setattr(campaign_call, "STUCK_S", 2.0)
    inputs = first_seven(planted.NATIVE) + 2
    told = tried(tmp_path, "NATIVE", inputs)
    assert (told.inputs, told.hangs) == (inputs, 1)


def test_memory_that_grows_with_every_input_is_seen(tmp_path: Path) -> None:
    """A mebibyte an input after warming up: over the limit."""
    told = tried(tmp_path, "LEAKS", 120)
    assert told.growth_mib > 64
    assert not told.good


def test_coverage_guided_inputs_count_as_others_do(tmp_path: Path) -> None:
    """Atheris finds the planted crash, and the rest of the inputs comes from the seed."""
    pytest.importorskip("atheris")
    order = Order(f"{PLANTED}:RAISES", 400, seed=SEED, coverage_s=30.0)
    told = Campaign(tmp_path, tell=False).run(order)
    assert told.inputs == 400
    assert told.crashes > 1


def test_chunks_give_every_input_once_whatever_their_number() -> None:
    """The numbers of a target follow one another over the chunks; the sum is what was asked for."""
    chunks = chunks_of(120_001, {"a": 3, "b": 1}, {"d": 2}, size=50_000)
    assert len(chunks) == 3
    assert sum(chunk.inputs for chunk in chunks) == 120_001
    reached = 0
    for chunk in chunks:
        first, count = chunk.pure["a"]
        assert first == reached
        reached += count
    assert [sum(shared(n, {"a": 3, "b": 1, "c": 1}).values()) for n in (0, 1, 7)] == [0, 1, 7]
    assert all(not chunk.doors for chunk in chunks_of(10, {"a": 1}, {}))
    assert chunks_of(10, {}, {"d": 1})[0].doors == {"d": (0, 10)}


def test_an_interrupted_run_goes_on_behind_its_last_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done is not done again, and the sums are of both parts."""
    from chaos.fuzz import run_call

    done: list[int] = []

    def chunk(given: object, wanted: Wanted) -> Result:
        if len(done) == 1 and not tmp_path.joinpath("go on").exists():
            raise KeyboardInterrupt
        done.append(1)
        return Result({"cursor": Tried("cursor", 10)}, Scanned(1, 1, 1), (wanted.seed,))

    monkeypatch.setattr(run_call, "_chunk", chunk)
    wanted = Wanted(120_000, 5, tmp_path, ("cursor",), tell=False)
    with pytest.raises(KeyboardInterrupt):
        run_call.run(wanted)
    tmp_path.joinpath("go on").touch()
    total = run_call.run(wanted)
    assert len(done) == 3
    assert (total.inputs, total.scanner) == (30, Scanned(3, 3, 3))


def test_results_add_up_and_survive_json() -> None:
    """Counts are summed, growth is the largest; one bad target or one unserved image makes the whole bad."""
    one = Result({"a": Tried("a", 5, 0, 0, 3.0, 1.0)}, Scanned(4, 4, 4), (1,))
    other = Result({"a": Tried("a", 7, 1, 0, 9.0, 2.0), "b": Tried("b", 1)}, Scanned(1, 1, 1), (2,))
    both = one + other
    assert (both.inputs, both.targets["a"].crashes, both.targets["a"].growth_mib, both.seeds) == (13, 1, 9.0, (1, 2))
    assert one.good
    assert not both.good
    assert not Result(scanner=Scanned(2, 2, 1)).good
    assert not Tried("a", growth_mib=65.0).good
    assert result_of(json.loads(json.dumps(both.told()))) == both


def test_a_door_that_does_not_close_is_told_from_one_that_does() -> None:
    """The end of a connection, an HTTP answer, silence: three different things."""
    import socket
    import threading

    def served(answer: bytes | None) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            peer, _ = listener.accept()
            while peer.recv(4096):
                pass
            if answer is None:
                stay.wait(10)
            else:
                peer.sendall(answer)
            peer.close()

        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()[:2]

    stay = threading.Event()
    told = exchanged(served(b"HTTP/1.1 204 No Content\r\n\r\n"), b"x", 5.0)
    assert (told.ended, status_of(told.answer)) == (True, 204)
    assert not exchanged(served(None), b"x", 0.3).ended
    stay.set()
    assert exchanged(("127.0.0.1", 1), b"x", 1.0).refused
