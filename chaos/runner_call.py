"""Run after run on one stack; one that cannot be healed is a violation, and the next run begins on a new one."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.rig_call import NotHealthy, RunningRig
from chaos.run_call import HEALTHY_S, one_run
from chaos.scenario import Fault, Outcome
from launch.stack.part import StartFailed

CREW_RUNS = 10  # on one crew: its topics and its list grow with each

Say = Callable[[str], None]


class Runner:
    """Keeps a stack up from its first run to its ``close``. ``say`` is told what takes long."""

    def __init__(self, say: Say = lambda _: None, folder: Path | None = None, logs: Path | None = None) -> None:
        """``logs``: where those of a run that violated something are kept; None: nowhere."""
        self._say = say
        self._logs = logs
        self._folder = folder or Path(tempfile.mkdtemp(prefix="lesion-triage-chaos-"))
        self._temporary = folder is None
        self._rig: RunningRig | None = None
        self._runs = 0
        self._stacks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kills the stack and removes what it kept."""
        self._drop()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, fault: Fault, seed: int) -> Outcome:
        """One run. Raises StartFailed, ProgramMissing where there is no stack to strike."""
        rig = self._ready()
        outcome = one_run(rig, fault, seed)
        self._runs += 1
        if unhealed := _unhealed(rig):
            outcome = replace(
                outcome, violations=(*outcome.violations, f"I6 recovery: not healed after it: {unhealed}")
            )
        if outcome.violations:
            self._keep_logs(rig, f"{fault.name}-{seed}")
        if unhealed:
            self._drop()
        return outcome

    def _keep_logs(self, rig: RunningRig, name: str) -> None:
        if self._logs is None:
            return
        place = self._logs / name
        place.mkdir(parents=True, exist_ok=True)
        for part in rig.parts:
            shutil.copyfile(part.log, place / f"{part.folder.name}.log")
        self._say(f"the logs of that run are kept in {place}")

    def _ready(self) -> RunningRig:
        if self._rig is None:
            self._rig = self._started()
        elif self._runs >= CREW_RUNS:
            self._say("new services with empty topics")
            self._rig.renew()
            self._runs = 0
        return self._rig

    def _started(self) -> RunningRig:
        """A new stack, in a folder of its own."""
        self._stacks += 1
        self._runs = 0
        self._say("starting three brokers, Redis, Triton, two producers, two workers and the worklist")
        rig = RunningRig(self._folder / f"stack-{self._stacks}", brokers=3)
        try:
            rig.ground.start()
            rig.start_crew()
        except BaseException:
            rig.close()
            raise
        return rig

    def _drop(self) -> None:
        if self._rig is not None:
            self._rig.close()
        self._rig = None


def _unhealed(rig: RunningRig) -> str:
    """What is wrong with it after everything was undone; nothing, if all is well."""
    try:
        rig.heal()
        rig.wait_healthy(HEALTHY_S)
    except (StartFailed, NotHealthy, OSError) as problem:
        return str(problem)
    return ""
