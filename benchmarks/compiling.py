"""What torch.compile costs and saves: the language model's training step as it is and compiled, in turn.

python -m benchmarks.compiling                  on the GPU
python -m benchmarks.compiling --device cpu     on the CPU, with the smaller network

Prints the seconds until the first compiled step is done and, of some rounds, the median of compiled over eager time a
step: what `trainer_image/engine/steps/compiling.py` guesses before a training has measured both. It needs the
compiler that the trainer's image has.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

import torch

from benchmarks.gpu import device_or_none
from trainer_image.engine.steps.compiling import lacking
from trainer_image.host.devices import usable_cpus
from trainer_image.tasks.language.network import LanguageNetwork
from trainer_image.tasks.language.presets import networks, usual
from trainer_image.tasks.language.windows import VOCABULARY


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (cuda)")
    parser.add_argument("--rounds", type=int, default=5, help="of eager and compiled steps in turn (5)")
    parser.add_argument("--steps", type=int, default=5, help="of each kind in a round (5)")
    options = parser.parse_args(arguments)
    device = device_or_none(options.device)
    if device is None:
        return 1
    if lacks := lacking(device):
        print(f"Nothing was measured. torch.compile needs {lacks}", file=sys.stderr)
        return 1
    torch.set_num_threads(usable_cpus())
    network = usual(networks("auto" if device.type == "cpu" else "best", 1_000_000))
    sizes, recipe = network.sizes, network.size.recipe
    model = LanguageNetwork(sizes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    shape = (recipe.batch_size, sizes.context)
    tokens = torch.randint(VOCABULARY, shape, device=device)
    matches = torch.randint(VOCABULARY, (*shape, len(sizes.sought)), device=device)

    def seconds(network: torch.nn.Module, steps: int) -> float:
        """Of one step."""
        began = time.monotonic()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = network(tokens, matches)
            torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens.flatten()).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.monotonic() - began) / steps

    compiled = torch.compile(model, dynamic=False)
    eager = seconds(model, 2)  # its first steps are slow, too
    cost = seconds(compiled, 1) - eager
    ratios = []
    for _ in range(options.rounds):
        before, after = (seconds(network, options.steps) for network in (model, compiled))
        ratios.append(after / before)
    ratio = statistics.median(ratios)
    print(f"{device}: compiling took {cost:.0f} s; a compiled step takes {ratio:.2f} times as long as an eager one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
