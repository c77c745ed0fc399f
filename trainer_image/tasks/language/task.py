"""Task `language_model`: a byte-level GPT, judged by the bits that it needs for a byte of text it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.encodings import joined
from trainer_image.data.rows.division import RowHashes, divide, group_numbers
from trainer_image.data.rows.hashes import of_bytes
from trainer_image.data.spill import Scratch
from trainer_image.data.text_folders import Fields
from trainer_image.data.text_reader import find_texts, read_readable, read_texts
from trainer_image.data.text_store import TextKeeper, Texts
from trainer_image.data.unpacking import looked_into
from trainer_image.errors import invalid
from trainer_image.limits import Limits
from trainer_image.tasks import metrics, muon
from trainer_image.tasks.base import (
    Batch,
    Figures,
    ForAnother,
    Json,
    Metric,
    NetworkSize,
    Predictor,
    Problem,
    RowGroups,
    Rows,
    Task,
    TaskSettings,
    matrices_decay,
    restored,
    told_alike,
)
from trainer_image.tasks.candidates import Candidate
from trainer_image.tasks.language import candidates as language_candidates
from trainer_image.tasks.language import ngrams as language_ngrams
from trainer_image.tasks.language.candidates import Mixture, NgramCandidate, predicted
from trainer_image.tasks.language.chunks import FEW_DOCUMENTS, pieces
from trainer_image.tasks.language.generate import continue_texts, in_characters
from trainer_image.tasks.language.network import LanguageNetwork, LanguageSizes
from trainer_image.tasks.language.presets import MUON_RATE, networks, usual
from trainer_image.tasks.language.windows import scoring_windows, training_windows
from trainer_image.tasks.recipe import Recipe
from trainer_image.units import format_bytes

FIGURES = {
    "bits_per_byte": Metric("bits_per_byte", higher_is_better=False),
    "perplexity": Metric("perplexity", higher_is_better=False),
    "accuracy": Metric("accuracy"),
}
LEAST_BYTES = 4096
# A bucket that is visited seldom has to move far each time; 3 was better than 1 on the development text (1.229 against
# 1.278 bits per byte after the same time).
NGRAM_RATE = 3.0
SHOWN_FILES = 1000
# What a row is told by, see `data.rows`: a document's bytes, or those of a piece of one.
CONTENT = ("bytes of a document",)
# Columns of a model's outputs before those of single bytes.
SUMS = 4
FEWEST_GROUPS = 5
SAMPLES, PROMPT_BYTES, SAMPLE_BYTES = 3, 64, 160


class LanguageModel(Task):
    name = "language_model"

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        return LanguageProblem(data, settings)

    def restore(self, description: Json) -> Predictor:
        return LanguagePredictor(
            restored(LanguageSizes, description["architecture"]), restored(str, description["text"])
        )


class LanguagePredictor(Predictor):
    """Tensors of a batch: see windows.py."""

    def __init__(self, sizes: LanguageSizes, field: str) -> None:
        self.sizes, self.field = sizes, field

    def build_model(self) -> nn.Module:
        return LanguageNetwork(self.sizes)

    def build_candidate(self, name: str, chosen: Json) -> nn.Module:
        if name != NgramCandidate.name:
            raise ValueError(f"models of this task have no candidate '{name}'")
        return language_candidates.build(chosen, len(self.sizes.sought))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(rows, 4 + context): document, bytes scored in this window, their nats, how many of them were the likeliest
        byte; and the logarithm of each scored byte's probability, 0 at positions that are not scored."""
        targets, counted = batch["tokens"][:, 1:].long(), scored(batch)
        places = counted.flatten().nonzero().flatten()
        logs = predicted(model, batch["tokens"][:, :-1].long(), batch["matches"].long(), places)
        wanted = targets.flatten()[places]
        nothing = torch.zeros(counted.numel(), device=places.device)
        nats = nothing.index_put((places,), -logs.gather(1, wanted[:, None])[:, 0]).view(counted.shape)
        hits = nothing.index_put((places,), (logs.argmax(-1) == wanted).float()).view(counted.shape)
        sums = [batch["document"].float(), counted.sum(1).float(), nats.sum(1), hits.sum(1)]
        return torch.cat([torch.stack(sums, 1), -nats], 1)

    def blend(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """For the choice of weights; its hits are the heaviest model's."""
        return language_candidates.blended(outputs, weights, SUMS)

    def mixture(self, models: Sequence[nn.Module], weights: Sequence[float]) -> nn.Module:
        return Mixture(models, weights)

    def score(self, outputs: Tensor, batch: Batch) -> Figures:
        _, count, nats, hits = outputs[:, :SUMS].double().sum(0).tolist()
        return language_ngrams.figures(nats / max(1.0, count) / math.log(2), hits / max(1.0, count))

    def read(self, data: Path, limits: Limits) -> Rows:
        """A file, or a dataset's test split where it has one. The names are the documents', not the windows'."""
        scratch = Scratch()
        data, notes = looked_into(data, limits, scratch, lambda name: True)
        found = find_texts(data, plain=True)
        keeper = TextKeeper(scratch)
        notes += [*found.notes, *read_readable(found.test or found.train, data, Fields(self.field), limits, keeper)]
        texts = keeper.texts()
        full = np.flatnonzero(texts.sizes)
        if not len(full):
            raise invalid(data.name, "holds no text")
        if len(full) < len(texts):
            [first] = texts.names(np.flatnonzero(texts.sizes == 0)[:1])
            notes.append(
                f"{len(texts) - len(full)} of {len(texts)} texts are empty and left out, the first is {first}."
            )
        texts = texts.select(full)
        tensors = scoring_windows(texts.contents(), self.sizes.context, self.sizes.sought, scratch)
        return Rows(tensors, texts.names(), labelled=True, notes=notes)

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        """One line a document."""
        return ["bytes", "bits_per_byte"], [[int(count), bits] for count, bits in by_document(outputs)]

    def continuation(self, model: nn.Module, prompt: str, length: int, temperature: float, seed: int) -> str:
        given = prompt.encode(errors="replace")
        [written] = continue_texts(self.sizes, model, [given], length, seed, temperature)
        return in_characters(written)


def scored(batch: Batch) -> Tensor:
    """Which positions count, bool (rows, context)."""
    at = torch.arange(batch["tokens"].shape[1] - 1, device=batch["tokens"].device)
    return (at >= batch["scored"][:, :1]) & (at < batch["scored"][:, 1:])


def by_document(outputs: Tensor) -> list[tuple[float, float]]:
    """(bytes, bits per byte) of each document, in order of their numbers."""
    table = outputs[:, :SUMS].double().numpy()
    number = table[:, 0].astype(np.int64)
    count, nats = (np.bincount(number, table[:, column]) for column in (1, 2))
    return [(float(c), float(n / max(1.0, c) / math.log(2))) for c, n in zip(count, nats, strict=True)]


class LanguageProblem(Problem):
    predictor: LanguagePredictor

    def __init__(self, data: Path, settings: TaskSettings) -> None:
        self._settings = settings
        fields = Fields(settings.text or "text", group=settings.group)
        self.warnings = []
        scratch, keeper = settings.scratch, TextKeeper(settings.scratch)
        data, self.notes = looked_into(data, settings.limits, scratch, lambda name: True)
        found = find_texts(data, plain=True)
        parts = {
            split: (files, read_texts(files, data, fields, settings.limits, keeper))
            for split, files in found.splits.items()
        }
        self.notes += [*found.notes, *joined(keeper.notes)]
        texts = keeper.texts()
        given = {split: self._full(texts.select(part), files[0], data) for split, (files, part) in parts.items()}
        total = int(given["train"].sizes.sum())
        if total < LEAST_BYTES:
            raise invalid(
                given["train"].files[0].name,
                f"{total} bytes of training text are too few for a language model; at least {LEAST_BYTES} are needed",
            )
        self._documents = documents = self._divided(given, settings)
        size = {split: int(texts.sizes.sum()) for split, texts in documents.items()}
        self._networks = networks(settings.preset, size["train"])
        network = usual(self._networks)
        sizes, self.recipe = network.sizes, network.size.recipe
        self.predictor = LanguagePredictor(sizes, fields.text)
        self.splits = {
            split: (training_windows if split == "train" else scoring_windows)(
                texts.contents(), sizes.context, sizes.sought, scratch
            )
            for split, texts in documents.items()
        }
        assert self.hashes is not None
        of_test = self.hashes.of["test"][self.splits["test"]["document"].numpy()]  # the rows are windows
        self.hashes = replace(self.hashes, of={**self.hashes.of, "test": of_test})
        self.test_groups = self._groups(documents["test"], settings.group)
        if max(size.values()) > language_ngrams.MOST_BYTES:
            self.notes.append(
                "The baselines are counted and tested on evenly spaced documents, "
                f"{format_bytes(language_ngrams.MOST_BYTES)} of a split at most."
            )
        self.notes += scratch.notes("The text does")
        self.headline, self.selection = metrics.choose(settings.metric, FIGURES, "bits_per_byte", "bits_per_byte")
        counts = ", ".join(f"{len(texts)} {split} ({size[split]} bytes)" for split, texts in documents.items())
        self.description = f"Text for a byte-level language model; documents: {counts}."

    def _groups(self, texts: Texts, group: str | None) -> RowGroups | None:
        """The windows of one document, or group of documents, are not independent. A few documents say nothing of how
        documents differ: then each window stands for itself."""
        numbers = group_numbers(texts.group_names()) if group else np.arange(len(texts))
        if numbers.max() + 1 < FEWEST_GROUPS:
            return None
        of = torch.from_numpy(numbers)[self.splits["test"]["document"].long()]
        return RowGroups(of, f"groups by '{group}'" if group else "documents")

    def _full(self, texts: Texts, file: Path, data: Path) -> Texts:
        full = np.flatnonzero(texts.sizes)
        if not len(full):
            raise invalid(file.relative_to(data).as_posix(), "holds no text")
        if len(full) < len(texts):
            [first] = texts.names(np.flatnonzero(texts.sizes == 0)[:1])
            empty = len(texts) - len(full)
            were = "1 empty text was" if empty == 1 else f"{empty} empty texts were"
            self.notes.append(f"{were} left out, the first of them at {first}.")
        return texts.select(full)

    def _divided(self, given: Mapping[str, Texts], settings: TaskSettings) -> dict[str, Texts]:
        """The documents of each split; what the dataset does not bring is held out by documents, or by groups."""
        train = given["train"]
        if len(given) < 3 and len(train) < FEW_DOCUMENTS and not settings.group:
            train = pieces(train)
            count = len(given["train"])
            few = "1 document is few: it was" if count == 1 else f"{count} documents are few: they were"
            self.notes.append(
                f"{few} cut into {len(train)} pieces, and "
                "pieces were held out. Figures of pieces that are neighbours of training text are flattering."
            )
        given = {**given, "train": train}
        rows = divide(
            RowHashes(CONTENT, {split: of_bytes(texts.contents()) for split, texts in given.items()}),
            np.zeros(len(train), np.int64),
            settings.seed,
            groups=train.group_names() if settings.group else None,
            earlier=settings.earlier,
        )
        self.hashes, self.left_out = rows.hashes, rows.left_out
        self.notes += [note.replace(" rows ", " documents ") for note in rows.notes]
        return rows.of(given, Texts.select)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean nats of the scored tokens, the MARK at a document's end included: the model learns to end a text."""
        logits = model(batch["tokens"][:, :-1].long(), batch["matches"].long()).float()
        targets = batch["tokens"][:, 1:].long()
        counted = scored(batch)
        nats = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        return (nats * counted).sum() / counted.sum()

    def parameter_groups(self, model: nn.Module, weight_decay: float) -> list[Json]:
        assert isinstance(model, LanguageNetwork)
        return [
            *matrices_decay((p for p in model.parameters() if p is not model.ngram.weight), weight_decay),
            # A bucket is touched seldom: decay would undo between two visits what it learnt.
            {"params": [model.ngram.weight], "weight_decay": 0.0, "lr_factor": NGRAM_RATE},
        ]

    def optimizers(self, model: nn.Module, recipe: Recipe) -> Sequence[torch.optim.Optimizer]:
        assert isinstance(model, LanguageNetwork)
        groups = self.parameter_groups(model, recipe.weight_decay)
        return muon.within(model.blocks, groups, recipe, MUON_RATE, recipe.weight_decay)

    def model_description(self) -> Json:
        return {"architecture": asdict(self.predictor.sizes), "text": self.predictor.field}

    def sizes(self) -> Sequence[NetworkSize]:
        return [network.size for network in self._networks] if len(self._networks) > 1 else []

    def resize(self, name: str) -> None:
        [network] = [network for network in self._networks if network.size.name == name]
        self.recipe, self.predictor.sizes = network.size.recipe, network.sizes

    def candidates(self) -> Sequence[Candidate]:
        documents = {split: texts.contents() for split, texts in self._documents.items()}
        return [NgramCandidate(documents, self.predictor.sizes.sought)]

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        train = [content for split in fit_on for content in self._documents[split].contents()]
        return language_ngrams.baselines(train, self._documents["test"].contents())

    def for_another(self, other: Predictor, content: Sequence[str]) -> ForAnother:
        """The test documents in the other model's windows."""
        assert isinstance(other, LanguagePredictor)
        assert self.hashes is not None
        own = told_alike(self.hashes, content)
        of_document = np.zeros(len(self._documents["test"]), np.uint64)
        of_document[self.splits["test"]["document"].numpy()] = own
        texts, sizes = self._documents["test"].contents(), other.sizes
        windows = scoring_windows(texts, sizes.context, sizes.sought, self._settings.scratch.anew())
        return ForAnother(windows, of_document[windows["document"].numpy()], own)

    def findings(self, outputs: Tensor) -> Json:
        names = self._documents["test"].names()
        files = [
            {"name": name, "bytes": int(count), "bits_per_byte": bits}
            for name, (count, bits) in zip(names, by_document(outputs), strict=True)
        ]
        files.sort(key=lambda entry: -float(str(entry["bits_per_byte"])))
        return {"kind": "language_model", "files": files[:SHOWN_FILES]}

    def demonstrations(self, model: nn.Module) -> Json:
        """How the model goes on with the beginnings of a few test documents."""
        texts = self._documents["test"].contents(PROMPT_BYTES)
        prompts = [text.tobytes() for text in texts[:: math.ceil(len(texts) / SAMPLES)]]
        written = continue_texts(self.predictor.sizes, model, prompts, SAMPLE_BYTES, seed=0)
        return {
            "samples": [
                {"prompt": prompt.decode(errors="replace"), "text": text.decode(errors="replace")}
                for prompt, text in zip(prompts, written, strict=True)
            ]
        }
