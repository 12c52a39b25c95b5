"""What only a GPU can show, in one command of at most nine minutes: `python tests/gpu.py`.

1. The quickstart's stages in small: trained with `--batch-size auto`, validated, decoded with 1 and 4 beams; the same
   run decoded on the processor, and how many answers and how far encodings differ; the ablation.
2. The published preset at full width, with a Llama of 7B's shape whose random weights are made on the device: steps
   of the encoder and of stages 1 to 3, decoding with 1 and 4 beams, `--batch-size auto`, throughput, and peak memory
   beside the computed table of examples/published.md; the encoder's output beside the processor's.
3. Weights of 4 bits, where bitsandbytes is installed.

A check that fails is reported, and the next one begins; none begins after the time is up. Exit code 1 if any failed.
`--device cpu --small` runs the same code with small models on a processor, to test this script; memory and speed then
mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from ablate import ablate  # noqa: E402

from batcli.core.errors import InputError  # noqa: E402
from batcli.decode import decode, load_model  # noqa: E402
from batcli.model.bat import BAT, Encoding  # noqa: E402
from batcli.model.config import PRESETS, EncoderConfig, ModelConfig, QFormerConfig  # noqa: E402
from batcli.model.device import own_device, set_arithmetic  # noqa: E402
from batcli.model.llm import load_llm  # noqa: E402
from batcli.model.tokens import IGNORED, TextBatch  # noqa: E402
from batcli.options import DecodeOptions, DemoOptions, TrainOptions  # noqa: E402
from batcli.prepare.demo import demo  # noqa: E402
from batcli.train import train  # noqa: E402
from batcli.training.batch_size import largest_batch  # noqa: E402
from batcli.training.losses import AnswerObjective, EncoderObjective  # noqa: E402
from batcli.training.optim import unfreeze  # noqa: E402
from batcli.training.recipe import RECIPES  # noqa: E402
from batcli.training.scenes import EncoderBatch  # noqa: E402

SECONDS = 8.5 * 60  # after which no check begins
PROMPT, ANSWER, NEW = 80, 16, 200  # tokens, as in examples/memory.py
ROWS = {  # of the table in examples/published.md
    "encoder": "train, encoder (fp32)",
    "answers": "train, stages 1–3, base in bf16",
    1: "decode, bf16, greedy",
    4: "decode, bf16, 4 beams",
}


@dataclass
class Bench:
    """Where and how large to run, and what failed so far."""

    device: torch.device
    small: bool
    folder: Path
    began: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @contextmanager
    def check(self, name: str) -> Iterator[Callable[[str], None]]:
        """Yield a function that prints a result of the check; an error is reported, and the next check begins."""
        start = time.monotonic()
        try:
            if start - self.began > SECONDS:
                raise TimeoutError("not begun: the time is up")
            yield lambda text: print(f"  {name}: {text}", flush=True)
        except (Exception, AssertionError) as error:
            self.failed.append(name)
            print(f"  {name}: FAILED: {type(error).__name__}: {error}"[:600], flush=True)
            if not isinstance(error, TimeoutError):
                traceback.print_exc()
        finally:
            if self.on_gpu:
                torch.cuda.empty_cache()
            print(f"    ({time.monotonic() - start:.1f} s)", flush=True)

    def measured(self, step: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
        """(seconds of a step, peak memory in GB) after one step that is not counted."""
        step()
        if self.on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        if self.on_gpu:
            torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / 1e9 if self.on_gpu else float("nan")
        return (time.perf_counter() - start) / repeats, peak


def computed() -> dict[str, dict[int, float]]:
    """The table of memory in examples/published.md: row → batch → GB."""
    text = (ROOT / "examples" / "published.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines() if "|" in line]
    head = next(row for row in rows if row[0] == "batch")
    tables = {row[0]: row for row in rows if row[0] in ROWS.values()}
    return {name: {int(n): float(x) for n, x in zip(head[1:], row[1:], strict=True)} for name, row in tables.items()}


# ---- the quickstart -------------------------------------------------------------------------------------


def quickstart(bench: Bench) -> None:
    data, run = bench.folder / "data", bench.folder / "run"
    size = {"clips": 4, "rooms": 12, "sources": 4, "count": 240, "eval_count": 60, "seconds": 1.0, "jobs": 1}
    recipe = ["epochs=0.1,0.1,0.1", "source_scenes=36", "source_epochs=1"]
    if not bench.small:
        size = {"clips": 12, "rooms": 100, "count": 6_000, "eval_count": 300}
        recipe = ["epochs=0.3,0.3,1", "source_scenes=3000", "source_epochs=4"]
    with bench.check("quickstart, train") as say:
        demo(DemoOptions(data=data, **size))
        where = {} if bench.on_gpu else {"device": "cpu"}
        sample = {"validate": "dev", "validate_questions": 20, "validate_scenes": 8}
        start = time.monotonic()
        train(TrainOptions(data=data, output=run, set=recipe, batch_size="auto", log_every=1, **sample, **where))
        losses = [record["loss"] for record in records(run / "log.jsonl") if record["kind"] == "training"]
        assert all(loss is not None for loss in losses), "a loss is not finite"
        batch = re.search(r"^batch = (\d+)", (run / "config.toml").read_text(), re.M)
        say(f"{len(losses)} updates in {time.monotonic() - start:.0f} s, --batch-size auto: {batch and batch[1]}")
    limit = 12 if bench.small else 200
    for beams in (1, 4):
        with bench.check(f"quickstart, decode, beams {beams}") as say:
            answers = {}
            for device in (bench.device.type, "cpu"):
                file, start = bench.folder / f"{device}-{beams}.jsonl", time.monotonic()
                options = {"num_beams": beams, "max_new_tokens": 24, "device": device, "limit": limit}
                decode(DecodeOptions(run=run, data=data, output=file, **options))
                answers[device] = [record["prediction"] for record in records(file)]
                say(f"{limit} questions on {device} in {time.monotonic() - start:.1f} s")
            pairs = list(zip(answers[bench.device.type], answers["cpu"], strict=True))
            same = sum(a == b for a, b in pairs)
            say(f"{same} of {len(pairs)} answers are the processor's")
            assert same >= 0.9 * len(pairs)
    with bench.check("quickstart, encodings") as say:
        sound = torch.randn(4, 2, load_model(DecodeOptions(run=run, device="cpu")).samples) / 10
        here, there = (load_model(DecodeOptions(run=run, device=name)).model for name in ("cpu", bench.device.type))
        with torch.inference_mode():
            compare(say, here.encode(sound), there.encode(sound.to(bench.device)), 1e-2)
    with bench.check("quickstart, ablation") as say:
        table = ablate(run, data, "eval", bench.folder / "ablated", limit)
        say(f"{len(table.splitlines()) - 4} parts")


def records(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def compare(say: Callable[[str], None], here: Encoding, there: Encoding, tolerance: float) -> None:
    """Report how far encodings differ, relative to their root mean square; more than `tolerance` is a failure."""
    for name, expected in here.items():
        error = (there[name].cpu() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        say(f"{name}: relative difference from the processor {error:.1e}")
        assert error < tolerance


# ---- the published preset at full width ------------------------------------------------------------------


def make_published(bench: Bench) -> BAT:
    """The published model with random weights, the language model's in bfloat16, made on the device."""
    config, llama = PRESETS["llama2-7b"], LlamaConfig()  # its defaults are Llama-2-7B
    if bench.small:
        llama = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
        config = ModelConfig(
            EncoderConfig(dim=16, depth=2, heads=2, seconds=1.0),
            QFormerConfig(layers=2, dim=16, heads=2),
            lora=config.lora,
        )
    before = torch.get_default_dtype()
    with bench.device:
        torch.set_default_dtype(torch.bfloat16)
        try:
            llm = LlamaForCausalLM(llama)
        finally:
            torch.set_default_dtype(before)
    return BAT(config, llm).to(bench.device)


def autocast(bench: Bench) -> torch.autocast:
    return torch.autocast(bench.device.type, torch.bfloat16)


def published(bench: Bench) -> None:
    table, model = computed(), None
    with bench.check("published, make") as say:
        start = time.monotonic()
        model = make_published(bench)
        say(f"{sum(p.numel() for p in model.parameters()) / 1e6:,.0f} M weights in {time.monotonic() - start:.1f} s")
    if model is None:
        return
    assert model.encoder is not None
    with bench.check("published, encoder beside the processor") as say:
        sound = torch.randn(2, 2, model.encoder.config.samples) / 10
        other = type(model.encoder)(model.encoder.config).eval()
        other.load_state_dict(model.encoder.cpu().state_dict())
        model.encoder.to(bench.device).eval()
        with torch.inference_mode():
            expected = Encoding(encoder=other(sound))
            for precision, tolerance in (("fp32", 1e-4), ("bf16", 1e-2)):
                set_arithmetic(bench.device, precision)
                say("full float32" if precision == "fp32" else "TF32")
                compare(say, expected, Encoding(encoder=model.encoder(sound.to(bench.device))), tolerance)
    encoder_steps(bench, model, table)
    answer_steps(bench, model, table)
    for beams in (1, 4):
        decode_steps(bench, model, beams, table)


def encoder_steps(bench: Bench, model: BAT, table: dict[str, dict[int, float]]) -> None:
    objective, beside = (
        EncoderObjective(model.encoder, RECIPES["llama2-7b"].loss_weights).train(),
        held(model.llm, model.projector),
    )
    unfreeze(model, [model.encoder])
    optimizer = torch.optim.AdamW(model.encoder.parameters(), lr=1e-5, fused=True)
    for precision in ("fp32", "bf16"):
        set_arithmetic(bench.device, precision)
        for batch in (2,) if bench.small else (8, 32):
            with bench.check(f"published, encoder step, {precision}, batch {batch}") as say:
                scenes = make_scenes(model, batch).to(bench.device)

                def step(scenes: EncoderBatch = scenes, precision: str = precision) -> None:
                    update(objective, optimizer, (scenes,), autocast(bench) if precision == "bf16" else nullcontext())

                seconds, peak = bench.measured(step)
                row = table[ROWS["encoder"]].get(batch) if precision == "fp32" else None
                say(f"{batch / seconds:,.1f} scenes/s, peak {peak - beside:.1f} GB{readme(row)}")
    optimizer.zero_grad(set_to_none=True)


def update(
    objective: torch.nn.Module, optimizer: torch.optim.Optimizer, inputs: tuple, arithmetic: AbstractContextManager
) -> None:
    """One step of training."""
    optimizer.zero_grad(set_to_none=True)
    with arithmetic:
        loss = sum(objective(*inputs).values())
    loss.backward()
    optimizer.step()
    assert bool(torch.isfinite(loss)), "the loss is not finite"


def answer_steps(bench: Bench, model: BAT, table: dict[str, dict[int, float]]) -> None:
    set_arithmetic(bench.device, "bf16")
    objective, beside = AnswerObjective(model).train(), held(model.encoder)
    unfreeze(model, [model.projector, model.llm])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    for batch in (1, 2) if bench.small else (1, 8, 32):
        with bench.check(f"published, step of stages 1-3, batch {batch}") as say:
            inputs = make_questions(model, batch, bench.device)

            def step(inputs: tuple = inputs) -> None:
                update(objective, optimizer, inputs, autocast(bench))

            seconds, peak = bench.measured(step)
            row = readme(table[ROWS["answers"]].get(batch))
            say(f"{batch / seconds:,.1f} questions/s, peak {peak - beside:.1f} GB{row}")
    optimizer.zero_grad(set_to_none=True)
    optimizer.state.clear()
    with bench.check("published, --batch-size auto") as say, autocast(bench):
        say(str(largest_batch(objective, lambda n: make_questions(model, n, bench.device), bench.device)))


def decode_steps(bench: Bench, model: BAT, beams: int, table: dict[str, dict[int, float]]) -> None:
    model.eval()
    new = 8 if bench.small else NEW
    for batch in (2,) if bench.small else (1, 16):
        with bench.check(f"published, decode, beams {beams}, batch {batch}") as say:
            encoding, text = make_questions(model, batch, bench.device)
            columns = text.prompt_length
            prompts = TextBatch(text.ids[:, :columns], text.mask[:, :columns], text.labels[:, :0])

            def step(encoding: Encoding = encoding, prompts: TextBatch = prompts) -> Tensor:
                return model.generate(encoding, prompts, 0, 2, beams, new)

            seconds, peak = bench.measured(step, 1)
            row = table[ROWS[beams]].get(batch)
            say(f"{batch * new / seconds:,.0f} tokens/s at most, peak {peak:.1f} GB{readme(row)}")


def held(*modules: torch.nn.Module) -> float:
    """Memory of weights, in GB, that the table's row does not count."""
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters()) / 1e9


def readme(gigabytes: float | None) -> str:
    return "" if gigabytes is None else f" (computed: {gigabytes} GB)"


def make_scenes(model: BAT, count: int) -> EncoderBatch:
    assert model.encoder is not None
    config, events = model.encoder.config, torch.zeros(count, model.config.n_classes)
    events[:, 0] = 1
    right = torch.tensor([[[1.0, 0, 0]]]).expand(count, 1, 3)
    ones = torch.ones(count, 1)
    sound = torch.randn(count, 2, config.samples) / 10
    first, one = torch.zeros(count, 1, dtype=torch.long), torch.ones(count, dtype=torch.long)
    return EncoderBatch(
        audio=sound,
        events=events,
        event_ids=first,
        direction=right,
        distance=ones,
        place=first,
        present=ones,
        n_places=one,
    )


def make_questions(model: BAT, count: int, device: torch.device) -> tuple[Encoding, TextBatch]:
    assert model.encoder is not None
    words = model.llm.get_input_embeddings().num_embeddings
    ids = torch.randint(3, words, (count, PROMPT + ANSWER))
    text = TextBatch(ids, torch.ones_like(ids), ids[:, -ANSWER:].clone())
    tokens = torch.randn(count, model.encoder.count, model.encoder.dim)
    assert (text.labels != IGNORED).all()
    return Encoding(encoder=tokens).to(device), text.to(device)


# ---- 4 bits --------------------------------------------------------------------------------------------


def four_bits(bench: Bench) -> None:
    if importlib.util.find_spec("bitsandbytes") is None or not bench.on_gpu:
        print("  4 bits: skipped: bitsandbytes or the GPU is not there", flush=True)
        return
    with bench.check("4 bits, two layers of 7B's width") as say:
        with bench.device:
            llm = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2)).bfloat16()
        llm.save_pretrained(bench.folder / "llama")
        del llm
        config = PRESETS["llama2-7b"]
        loaded = load_llm(bench.folder / "llama", torch.bfloat16, bench.device, quantize=True)
        model = BAT(replace(config), loaded).to(bench.device)
        objective = AnswerObjective(model).train()
        unfreeze(model, [model.projector, model.llm])
        with autocast(bench):
            loss = sum(objective(*make_questions(model, 4, bench.device)).values())
        loss.backward()
        say(f"loss {float(loss):.2f}")
        assert bool(torch.isfinite(loss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small models, to test this script")
    given = parser.parse_args()
    try:
        device = own_device(given.device)
    except InputError as error:
        parser.error(f"{error}; on a processor: --device cpu --small")
    print(set_arithmetic(device, "fp32"), f"torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, given.small, Path(folder))
        for part in (quickstart, published, four_bits):
            with bench.check(f"{part.__name__}, whole"):
                part(bench)
    print(f"{time.monotonic() - bench.began:.0f} s; failed: {', '.join(bench.failed) or 'nothing'}")
    sys.exit(bool(bench.failed))


if __name__ == "__main__":
    main()
