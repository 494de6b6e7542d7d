"""One training run on this machine: cache, checkpoints, progress on the terminal, the files it leaves behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress as Bars
from torch.utils.data import DataLoader

from contracts.tensors import HEAD_CT_LESION
from training import demo_out
from training.data.cache_out import Cached
from training.data.dataset import SliceDataset
from training.data.folder_in import FolderSource
from training.data.study import GRAZED, Entry, StudySource
from training.evaluation.account import headline_json
from training.evaluation.calibration import calibrate
from training.evaluation.cli import Asked, Evaluation, Tier
from training.evaluation.figures import counted
from training.evaluation.network_in import Network
from training.evaluation.pictures import roc_picture, sheet, tile
from training.evaluation.slices import choose_blood_hu, judge
from training.evaluation.threshold import HuThreshold, blood_areas_mm2
from training.evaluation.tiers import Plan
from training.evaluation.tiers import evaluate as every
from training.evaluation.training_report import markdown, without_nan
from training.fit.augment import plain_grid
from training.fit.data import Batches, Joined, Slices, TableSlices, Unfit, collated
from training.fit.loop_out import Fitted, fit
from training.fit.options import FitSettings
from training.fit.start_out import absolute, made, started, teacher_of
from training.labelled_in import HeldOut, Labelled, read_labelled
from training.networks.student import Served
from training.onnx_in import OnnxModel, score_table
from training.origin_in import Note, checked_name, note_of, note_text, trained_on
from training.phantom.atlas_in import Atlas, load_atlas
from training.phantom.hosts import hosted
from training.phantom.render import LABELS
from training.phantom.visible import visible
from training.real_in import Images, digests_of, read_ct_folder, read_hosts, read_png_folder
from training.recipe import Recipe
from training.recipe_in import load_recipe
from training.serving.export_out import parameters_of, publish
from training.slices_out import SliceTable, draw_slices

TO_FIT, TO_REPORT = ("train", "validation"), ("train", "validation", "hard", "held_out")  # sets of a recipe
CALIBRATION_BATCH = 16
CARD_SEED = 0  # of `triage evaluate`: what its default is
SHOWN_SLICES = 30  # in the report's contact sheet
PLANTED_PICTURES, PLANTED_SHARE, PLANTED_SEED = 240, 0.5, 5_900_000  # of the real scan without a bleed


@dataclass
class Run:
    """The recipe and where its products go. Steps may be run apart: each finds what the one before has left."""

    recipe: Recipe
    cache: Path
    models: Path
    reports: Path
    console: Console
    config: Path
    tables: dict[str, SliceTable] = field(default_factory=dict)
    planted: SliceTable | None = None  # real slices with bleeds of ours: learned from beside the set train
    named: str = ""  # whose slices those are
    hosts: frozenset[str] = frozenset()  # their digests
    first: Run | None = None  # whose weights this fit begins with
    labelled: Labelled | None = None  # the recipe's data, once they are read

    @property
    def model_dir(self) -> Path:
        """The model's folder in the repository."""
        return self.models / self.recipe.name

    @property
    def settings(self) -> FitSettings:
        """Of the fit; files that the recipe names are found."""
        return absolute(self.recipe.fit, self.config.parent)

    @property
    def checkpoint(self) -> Path:
        """Named by sets and settings: another recipe never goes on from it."""
        data = None if self.recipe.data is None else asdict(self.recipe.data)
        parts: list[Any] = [self.recipe.sets["train"].key, asdict(self.settings), data]
        if self.planted is not None:
            drawn = hashlib.sha256(self.planted.hu.tobytes() + self.planted.bits.tobytes()).hexdigest()
            parts += [drawn, None if self.recipe.hosts is None else asdict(self.recipe.hosts)]
        told = json.dumps(parts, sort_keys=True)
        return self.cache / "fits" / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.pt"

    def atlas(self) -> Atlas:
        """The anatomy."""
        return load_atlas(self.cache)

    def table(self, name: str) -> SliceTable:
        """A set's slices, drawn on first use."""
        if name not in self.tables:
            wanted = self.recipe.sets[name]
            with Bars(console=self.console) as bars:
                task = bars.add_task(f"heads of set {name}", total=wanted.heads)
                self.tables[name] = draw_slices(
                    wanted, self.atlas(), self.cache, lambda done, _of: bars.update(task, completed=done)
                )
        return self.tables[name]

    def require(self, names: Sequence[str]) -> None:
        """Before anything is drawn.

        Raises:
            Unfit: the recipe lacks one of these sets.
        """
        missing = [f"sets.{name}" for name in names if name not in self.recipe.sets]
        if missing:
            raise Unfit(f"{self.config}: the recipe has no {', no '.join(missing)}")

    def fitted(self, *, fresh: bool = False) -> Served:
        """Train, or go on with a cut-off training; calibrated on the validation set."""
        return self.calibrated(self.trained(fresh=fresh).network)

    def trained(self, *, fresh: bool = False) -> Fitted:
        """The network with averaged weights; what is finished is not done again."""
        self.require(TO_FIT)
        folder = self.checkpoint.with_suffix("")
        if fresh:
            self.checkpoint.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        settings = self.settings
        if self.checkpoint.exists():
            self._note()
            network: torch.nn.Module = made(settings)
            state = torch.load(self.checkpoint, weights_only=True)
            network.load_state_dict(state["average"])
            late = state.get("out_of_time", False)
            return Fitted(network.eval(), state["epoch"], state["spent_s"], state["losses"], late)
        if self.first is not None:
            self.first.trained(fresh=fresh)
        taught = dataclasses.replace(settings, teacher=str(self._teacher(settings.teacher)))
        teacher = teacher_of(taught) if settings.teacher else None
        other = self._unlabelled(settings)
        network = started(settings, other, tell=self.console.print)
        batches = Batches(self.slices("train"), self.slices("validation"), settings, other)
        done = fit(network, batches, settings, folder=folder, teacher=teacher)
        self._keep(done)
        return done

    def second(self, hosts: Path, named: str, real: Sequence[Path | None] = ()) -> Run:
        """What the recipe says of real slices to plant bleeds in, begun with the weights of this fit.

        `named`: whose slices they are, and their licence. `real`: what will be counted on.

        Raises:
            Unfit: the recipe says nothing of them, no brain is in them, or one is in `real` too.
        """
        self.require(TO_FIT)
        wanted = self.recipe.hosts
        if wanted is None:
            raise Unfit("--hosts: the recipe has no table [hosts] that says what is made of them")
        name = checked_name(named)
        _apart(digests_of(hosts), real)
        try:
            planted = hosted(
                read_hosts(hosts),
                wanted.pictures,
                wanted.lesion_share,
                wanted.first_seed,
                mimic_share=wanted.mimic_share,
            )
        except ValueError as fault:
            raise Unfit(f"--hosts: {hosts}: {fault}") from fault
        settings = dataclasses.replace(
            self.recipe.fit,
            start_from=str(self.checkpoint),
            epochs=wanted.epochs,
            learning_rate=wanted.learning_rate,
            teacher="",
            pretrain="none",
        )
        recipe = dataclasses.replace(self.recipe, fit=settings)
        tables = {**self.tables, "train": visible(self.table("train"), wanted.least_contrast_hu)}
        return dataclasses.replace(
            self, recipe=recipe, tables=tables, planted=planted, named=name, hosts=digests_of(hosts), first=self
        )

    @property
    def trained_on(self) -> str:
        """What graph, report and card say the network has learned from."""
        begun = {}
        if self.first is None and self.recipe.fit.start_from:
            begun["weights"] = note_of(self.settings.start_from).trained_on
        if self.first is not None and (self.first.recipe.fit.start_from or self.first.recipe.fit.teacher):
            begun["weights"] = self.first.trained_on
        if self.recipe.fit.teacher:
            begun["a teacher"] = self._teacher_note()
        return trained_on(self.recipe, self._hosts(), self.named, begun)

    def apart(self, real: Sequence[Path | None]) -> None:
        """What false alarms are counted on must not be what bleeds were planted in.

        Raises:
            Unfit: a slice is both.
        """
        learned = self.hosts
        if self.first is None and self.recipe.fit.start_from:
            learned = note_of(self.settings.start_from).hosts
        _apart(learned, real)

    def _teacher_run(self, told: str) -> Run:
        return Run(load_recipe(Path(told)), self.cache, self.models, self.reports, self.console, Path(told))

    def _teacher_note(self) -> str:
        told = self.settings.teacher
        return self._teacher_run(told).trained_on if told.endswith(".toml") else note_of(told).trained_on

    def _teacher(self, told: str) -> str:
        """A recipe's teacher is trained first, or found where it was trained before."""
        if not told.endswith(".toml"):
            return told
        run = self._teacher_run(told)
        if not run.checkpoint.exists():
            self.console.print(f"the teacher first: {Path(told).name}")
            run.trained()
        return str(run.checkpoint)

    def slices(self, part: str) -> Slices:
        """What is learned from, or validated and calibrated on: phantoms, and the recipe's real data."""
        data = self.recipe.data
        real = [] if data is None else [self._real(part)]  # first: they are checked before anything is drawn
        parts: list[TableSlices | SliceDataset] = []
        if data is None or data.phantoms:
            parts.append(TableSlices(self.table(part)))
        if part == "train" and self.planted is not None:
            parts.append(TableSlices(self.planted))
        parts += real
        return Joined(parts) if len(parts) > 1 else parts[0]

    def data(self) -> Labelled:
        """The recipe's, checked once."""
        if self.first is not None:
            return self.first.data()
        if self.recipe.data is None:
            raise Unfit("the recipe names no labelled data")
        if self.labelled is None:
            self.labelled = read_labelled(self.recipe.data, self.config.parent, self.cache, self.console)
        return self.labelled

    def _real(self, part: str) -> SliceDataset:
        data = self.data()
        return self._read(data.source, data.of(part), f"real studies of set {part}", f"[data], set {part},")

    def _read(self, source: StudySource, entries: Sequence[Entry], what: str, named: str) -> SliceDataset:
        with Bars(console=self.console) as bars:
            task = bars.add_task(what, total=len(entries))
            kept = source if isinstance(source, Cached) else Cached(source, self.cache)
            found = SliceDataset(kept, entries, tell=lambda at, of: bars.update(task, completed=at, total=of))
        for bad in found.bad:
            self._warn(f"not learned from: {bad}")
        if not len(found):
            raise Unfit(f"{named} holds no slice that can be learned from")
        return found

    def _warn(self, sentence: str) -> None:
        self.console.print(sentence, style="yellow", highlight=False, soft_wrap=True)

    def _unlabelled(self, settings: FitSettings) -> Slices | None:
        """Slices whose labels nobody looks at."""
        if settings.pretrain == settings.pseudo == "none":
            return None
        if not settings.unlabelled:
            return TableSlices(self.table("train"))
        source = FolderSource(Path(settings.unlabelled), None)
        return self._read(source, source.entries(), "studies without labels", f"fit.unlabelled: {settings.unlabelled}")

    def _keep(self, done: Fitted) -> None:
        """The finished fit, as everything that takes a checkpoint of ours reads it; last, for then it is finished."""
        loss = f"loss {done.losses[-1]:.4f}, " if done.losses else ""
        self.console.print(f"{done.epochs} epochs: {loss}{done.spent_s:.0f} s")
        self._note()
        state = {
            "average": done.network.state_dict(),
            "epoch": done.epochs,
            "spent_s": done.spent_s,
            "losses": done.losses,
            "out_of_time": done.out_of_time,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        if done.out_of_time:
            self._warn(f"the time of fit.budget_s ended the fit, {self.settings.epochs - done.epochs} epochs early")

    def _note(self) -> None:
        """What stands beside the checkpoint."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        text = note_text(Note(self.trained_on, self.hosts))
        partial = self.checkpoint.with_suffix(".json.partial")
        partial.write_text(text, "utf-8")
        partial.replace(self.checkpoint.with_suffix(".json"))

    def calibrated(self, trunk: torch.nn.Module) -> Served:
        """Probabilities that are frequencies, and operating points, from the validation set."""
        served = Served(trunk).eval()
        logits, labels = _answers(served, self.slices("validation"))
        self.calibration = calibrate(logits, labels, self.recipe.false_alarm_share)
        served.scale.copy_(torch.tensor(self.calibration.scale))
        served.offset.copy_(torch.tensor(self.calibration.offset))
        return served

    def exported(self, served: Served) -> None:
        """Write model.onnx, what is declared of it, and both Triton configurations with its operating points."""
        spec = dataclasses.replace(HEAD_CT_LESION, name=self.recipe.name)
        parameters = {**parameters_of(self.calibration), "trained_on": self.trained_on}
        parity = publish(served, spec, parameters, self.models)
        self.console.print(f"exported {self.model_dir / '1' / 'model.onnx'}; {parity}")

    def evaluated(self, real_dicom: Path | None, real_png: Path | None) -> dict[str, Any]:
        """Score the held-out sets with the exported file and write the report.

        Raises:
            Unfit: a set is missing, the file was trained on other data, or a real slice was learned from.
        """
        self.require(TO_REPORT)
        self.apart((real_dicom, real_png))
        model = OnnxModel(self.model_dir / "1" / "model.onnx")
        if model.metadata.get("trained_on") != self.trained_on:
            told = model.metadata.get("trained_on")
            raise Unfit(f"{self.model_dir}: is trained on {told!r}, this would report {self.trained_on!r}: see --hosts")
        thresholds = {name[10:]: float(v) for name, v in model.metadata.items() if name.startswith("threshold.")}
        blood_from_hu = choose_blood_hu(self.table("validation"))
        figures: dict[str, Any] = {"run": self._facts(), "thresholds": thresholds, "blood_from_hu": blood_from_hu}
        figures["synthetic"], curves = {}, {}
        for name in ("hard", "held_out"):
            table = self.table(name)
            probabilities, masks = score_table(model, table)
            figures["synthetic"][name] = judge(table, probabilities, masks, thresholds, blood_from_hu)
            asked = table.labels[:, 0] != 0.5
            truth = (table.labels[asked, 0] == 1).astype(float)
            curves[f"{name}: network"] = (truth, probabilities[asked, 0])
            area = blood_areas_mm2(table.hu[asked], table.pitch_mm[asked], blood_from_hu)
            curves[f"{name}: HU threshold"] = (truth, area)
            if name == "hard":
                self._draw_sheet(table, probabilities[:, 0], masks)
        if real_dicom is not None:
            table = hosted(read_hosts(real_dicom), PLANTED_PICTURES, PLANTED_SHARE, PLANTED_SEED)
            answers = score_table(model, table)
            figures["synthetic"]["planted"] = judge(table, *answers, thresholds, blood_from_hu, one_patient=True)
        figures["real"] = _false_alarms(model, real_dicom, real_png)
        figures["labelled"] = None if self.recipe.data is None else self._held_out()
        self._write(figures, curves)
        return figures

    def _held_out(self) -> dict[str, Any]:
        """Tier L: the data's own test part, by whole studies as the service would judge them."""
        source = HeldOut(self.data())
        network, baseline = Network(self.model_dir / "1" / "model.onnx"), HuThreshold()
        with Bars(console=self.console) as bars:
            task = bars.add_task("real studies held out", total=len(source.entries()))
            outcome = every(source, Plan((network, baseline)), lambda done, _of: bars.update(task, completed=done))
        count = counted(outcome.judged.get(network.name, []))
        told = {"studies": count["studies"], "with_lesion": count["with_lesion"], "refused": len(outcome.refused)}
        if not count["studies"]:
            return told
        return told | headline_json(outcome, network.name, baseline.name, network.thresholds["any"])

    def _hosts(self) -> int:
        return 0 if self.planted is None else len(np.unique(self.planted.head))

    def _draw_sheet(self, table: SliceTable, any_probability: Any, masks: Any) -> None:
        rows = np.random.default_rng(0).permutation(np.flatnonzero(table.labels[:, 0] != 0.5))[:SHOWN_SLICES]
        rows = rows[np.argsort(any_probability[rows])[::-1]]
        image, truth = plain_grid(table, rows)
        tiles = [
            tile(i, t.any(0), m.any(0)) for i, t, m in zip(image.numpy(), truth.numpy() > 0.5, masks[rows], strict=True)
        ]
        captions = [f"p {any_probability[row]:.2f}" for row in rows]
        self.reports.mkdir(parents=True, exist_ok=True)
        sheet(tiles, captions).save(self.reports / f"{self.recipe.name}_slices.png", optimize=True)

    def _write(self, figures: dict[str, Any], curves: dict[str, Any]) -> None:
        self.reports.mkdir(parents=True, exist_ok=True)
        roc_picture(curves).save(self.reports / f"{self.recipe.name}_roc.png", optimize=True)
        told = json.dumps(without_nan(figures), indent=1, ensure_ascii=False, allow_nan=False)
        (self.reports / f"{self.recipe.name}.json").write_text(told + "\n", "utf-8")
        (self.reports / f"{self.recipe.name}.md").write_text(markdown(figures), "utf-8")
        self.console.print(markdown(figures), markup=False, highlight=False)

    def _facts(self) -> dict[str, Any]:
        state = _state(self.checkpoint)
        before = None if self.first is None else _state(self.first.checkpoint)
        data = self.recipe.data
        drawn = self.table("train").head if data is None or data.phantoms else np.zeros(0)
        real = None if data is None else self._real("train")
        file = self.model_dir / "1" / "model.onnx"
        return {
            "model": self.recipe.name,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "command": f"triage train --config training/configs/{self.config.name}"
            f"{'' if self.planted is None else ' --hosts DIR --hosts-named WHOSE'}",
            "commit": _commit(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, one thread used",
            "seed": self.settings.seed,
            "trained_on": self.trained_on,
            "epochs": state.get("epoch", 0),
            "fit_s": state.get("spent_s", 0.0),
            "first": {"epochs": before["epoch"], "fit_s": before["spent_s"]} if before else None,
            "parameters": sum(v.numel() for v in state.get("average", {}).values()),
            "onnx_bytes": file.stat().st_size,
            "onnx_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "training_slices": len(drawn),
            "training_heads": len(np.unique(drawn)),
            "real_slices": 0 if real is None else len(real),
            "real_studies": 0 if real is None else len(real.studies),
            "planted_slices": 0 if self.planted is None else len(self.planted.hu),
            "hosts": self._hosts(),
            "false_alarm_share": self.recipe.false_alarm_share,
        }

    def carded(self, studies: int, real_dicom: Path | None) -> None:
        """The report as a page, and the model card, from fresh studies that no set of the recipe holds."""
        file = self.model_dir / "1" / "model.onnx"
        real = () if real_dicom is None else (real_dicom,)
        asked = Asked(CARD_SEED, studies, None, None, file, real, None, self.reports, self.cache)
        evaluation = Evaluation(asked, self.console)
        evaluation.told(Tier.S)
        evaluation.write(self.reports)

    def demo_heads(self, file: Path) -> None:
        """Render the demo's heads."""
        demo_out.write_demo_heads(file, self.atlas(), self.console.print)


def _apart(learned: frozenset[str], real: Sequence[Path | None]) -> None:
    for folder in real:
        shared = len(learned & digests_of(folder)) if folder is not None and learned else 0
        if shared:
            raise Unfit(f"{folder}: {shared} of its slices are among the --hosts: nothing is measured on them")


def _answers(served: Served, slices: Slices) -> tuple[np.ndarray[Any, np.dtype[np.float64]], Any]:
    """Raw logits (n, 6) through the served preprocessing, and labels (n, 6), where 0.5 is not asked."""
    found, asked = [], []
    for batch in DataLoader(slices, CALIBRATION_BATCH, collate_fn=collated):
        with torch.no_grad():
            found.append(served.trunk(served.grid(batch["hu"][:, 0].half(), batch["pitch_mm"]))[0].double().numpy())
        asked.append(torch.nan_to_num(batch["labels"], GRAZED).numpy())
    return np.concatenate(found), np.concatenate(asked)


def _false_alarms(model: OnnxModel, real_dicom: Path | None, real_png: Path | None) -> dict[str, Any]:
    scans = {}
    if real_dicom is not None:
        scans["real head CT without a bleed (DICOM)"] = read_ct_folder(real_dicom)
    if real_png is not None:
        scans["ischaemic slices (8-bit pictures)"] = read_png_folder(real_png)
    return {name: _alarms(model, images) for name, images in scans.items() if images}


def _alarms(model: OnnxModel, images: Images) -> dict[str, Any]:
    scores = np.array(
        [
            model(np.clip(hu, -1024, 3071)[None].astype(np.float16), np.full((1, 2), pitch, np.float32))[0][0]
            for hu, pitch in images
        ]
    )
    positive = scores >= np.array([model.threshold(label) for label in LABELS])
    return {
        "slices": len(images),
        "raised": int(positive[:, 0].sum()),
        "any_label": int(positive.any(1).sum()),
        "highest": float(scores[:, 0].max()),
    }


def _state(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True) if checkpoint.exists() else {}


def _commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
