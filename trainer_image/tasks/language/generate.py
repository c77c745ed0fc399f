"""Text that a language model writes: one byte after another, drawn from what it predicts."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer_image.tasks.language.candidates import predicted
from trainer_image.tasks.language.network import LanguageSizes
from trainer_image.tasks.language.windows import MARK, find_matches, stream

# Below 1 the likelier bytes are drawn more often than predicted: fewer slips, less variety.
TEMPERATURE = 0.7


@torch.no_grad()
def continue_texts(
    sizes: LanguageSizes,
    model: nn.Module,
    prompts: Sequence[bytes],
    count: int,
    seed: int,
    temperature: float = TEMPERATURE,
) -> list[bytes]:
    """What follows each prompt: `count` bytes, fewer where the model ends the text. Draws from a generator of its own,
    so the same weights and seed give the same texts on the same device. temperature 0: always the likeliest byte."""
    if not prompts:
        return []
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    random = torch.Generator().manual_seed(seed)
    texts = [_Text(sizes, prompt) for prompt in prompts]
    for _ in range(count):
        going = [text for text in texts if not text.ended]
        if not going:
            break
        longest = max(text.last for text in going) + 1
        tokens, matches = (
            torch.tensor(part, device=device) for part in zip(*(t.window(longest) for t in going), strict=True)
        )
        last = torch.tensor([row * longest + text.last for row, text in enumerate(going)], device=device)
        drawn = _drawn(predicted(model, tokens, matches, last).cpu(), temperature, random)
        for text, token in zip(going, drawn.flatten().tolist(), strict=True):
            text.add(token)
    model.train(was_training)
    return [bytes(text.content[len(prompt) :]) for text, prompt in zip(texts, prompts, strict=True)]


def _drawn(logs: Tensor, temperature: float, random: torch.Generator) -> Tensor:
    logs = torch.nan_to_num(logs, nan=-1e30)  # a stranger's weights may compute no number
    if temperature == 0:
        return logs.argmax(-1)
    # From the likeliest on: a low temperature must not make infinities of which a difference is no number.
    scaled = (logs - logs.amax(-1, keepdim=True)).double() / temperature
    return torch.multinomial(torch.softmax(scaled, -1), 1, generator=random)


def in_characters(content: bytes) -> str:
    """Text of these bytes without a last character that is cut; what is no UTF-8, and control characters, with which a
    stranger's model could steer a terminal, become U+FFFD."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(content).replace("\r\n", "\n")
    return "".join("\ufffd" if c not in "\n\t" and unicodedata.category(c) == "Cc" else c for c in text)


class _Text:
    """A document as it grows: its bytes, tokens (a MARK first), and what followed earlier matches at each of them."""

    def __init__(self, sizes: LanguageSizes, prompt: bytes) -> None:
        self._sizes = sizes
        self.content = bytearray(prompt)
        self.ended = False
        self._tokens = [MARK, *prompt]
        self._matches: list[list[int]] = find_matches(*stream([prompt]), sizes.sought).tolist()

    def add(self, token: int) -> None:
        """One more byte, or MARK: the document's end."""
        if token == MARK:
            self.ended = True
            return
        self.content.append(token)
        self._tokens.append(token)
        self._matches.append([self._following(order) for order in self._sizes.sought])

    def _following(self, order: int) -> int:
        """The byte after the last earlier occurrence of the last `order` bytes: as `windows.find_matches`."""
        size = len(self.content)
        earlier = self.content.rfind(self.content[size - order :], 0, size - 1) if size >= order else -1
        return self.content[earlier + order] if earlier >= 0 else MARK

    @property
    def last(self) -> int:
        """Where in the window the last token stands."""
        return min(len(self._tokens), self._sizes.context) - 1

    def window(self, length: int) -> tuple[list[int], list[list[int]]]:
        """The last `context` tokens and their matches, padded behind to `length` of them."""
        tokens, matches = self._tokens[-self._sizes.context :], self._matches[-self._sizes.context :]
        rest = length - len(tokens)
        return tokens + [MARK] * rest, matches + [[MARK] * len(self._sizes.sought)] * rest
