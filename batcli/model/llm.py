"""Language models: a Llama with random weights, or a Hugging Face directory, with LoRA; and their tokenizers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from accelerate import init_empty_weights
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from batcli.core.errors import InputError
from batcli.core.files import inside, read_json, require_directory, require_file
from batcli.model.config import MAX_LAYERS, LlmConfig, LoraConfig
from batcli.model.tokens import padding_id, to_ids, to_text

WEIGHTS = (".safetensors", ".bin")  # suffixes
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The weights, or a list of their files: transformers loads the first of these."""
ADAPTER_CONFIG = "adapter_config.json"  # transformers adds the adapter that it describes to the model beside it
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""Names in config.json of how far back a language model attends, in tokens."""


def peft_options(config: LoraConfig) -> peft.LoraConfig:
    """Convert to PEFT's configuration."""
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        bias="none",
    )


def add_lora(llm: PreTrainedModel, config: LoraConfig) -> peft.PeftModel:
    """Freeze a language model and add LoRA. Raises InputError if no module has a name in `config.targets`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses a name that transformers deprecates
            return peft.get_peft_model(llm, peft_options(config))
    except ValueError as error:
        raise InputError(str(error), "LoRA", "name modules of this language model with --lora-targets") from None


def parse_lora_targets(text: str | None) -> tuple[str, ...]:
    """Names of modules, separated by commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def lora_targets(llm_type: str) -> tuple[str, ...]:
    """PEFT's default modules for a `model_type` (of config.json); query and value projections if it has none."""
    return tuple(LORA_TARGETS.get(llm_type, LoraConfig.targets))


def new_llm(
    config: LlmConfig, tokenizer: PreTrainedTokenizerBase | None = None, attention: str = "sdpa"
) -> LlamaForCausalLM:
    """Make a Llama with random weights and the vocabulary of `tokenizer`, or the largest that `config` allows."""
    options: dict[str, Any] = {"vocab_size": config.vocabulary, "attn_implementation": attention}
    if tokenizer is not None:
        special = ("bos_token_id", "eos_token_id", "pad_token_id")
        options |= {"vocab_size": len(tokenizer), **{name: getattr(tokenizer, name) for name in special}}
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=config.dim,
            intermediate_size=config.mlp_dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.positions,
            # At Llama's own 0.02, meant for 4,096 dimensions, attention in 128 stays uniform for a long while.
            initializer_range=config.dim**-0.5,
            **options,
        )
    )


def quiet_transformers() -> None:
    """Turn off the progress bars and warnings of transformers."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def llm_config(folder: Path) -> PretrainedConfig:
    """Read the config.json of a language model directory. Raises InputError if it is missing or not usable."""
    if (require_directory(folder) / ADAPTER_CONFIG).exists():
        hint = f"merge it into the weights (PEFT's merge_and_unload), or move {ADAPTER_CONFIG} out of the directory"
        raise InputError("an adapter, which would be added to the language model", folder / ADAPTER_CONFIG, hint)
    require_file(folder / "config.json", "give a Hugging Face model directory")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = getattr(config, "num_hidden_layers", 0)
    except Exception as error:  # of many types
        raise InputError(f"not a language model's config.json: {error!s:.200}", folder) from None
    if not isinstance(layers, int) or layers > MAX_LAYERS:  # each is built before the weights are checked
        raise InputError(f"num_hidden_layers is {layers!r:.40}, more than {MAX_LAYERS:,}", folder / "config.json")
    return config


def empty_llm(folder: Path) -> PreTrainedModel:
    """Build the model of a directory with random weights; on the meta device it takes no memory."""
    config = llm_config(folder)
    try:
        llm = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"not a causal language model: {error!s:.200}", folder) from None
    takes = inspect.signature(llm.forward).parameters
    if "inputs_embeds" not in takes:
        what = f"{config.model_type} reads token ids only, so it cannot take audio tokens"
        raise InputError(what, folder, "use another language model")
    if "position_ids" not in takes and config.model_type != "bloom":  # which counts positions by the mask
        what = f"{config.model_type} counts the padding of a batch as text, so answers would depend on the batch"
        raise InputError(what, folder, "use another language model")
    return llm


def cache_name(llm: PreTrainedModel) -> str:
    """The name of keys and values of earlier tokens, in calls and results: it changed within transformers 5."""
    return "cache" if "cache" in inspect.signature(llm.forward).parameters else "past_key_values"


def attention_window(llm: PreTrainedModel) -> int | None:
    """Tokens that a token of the language model attends to, with itself; None where it attends to all before it."""
    config = llm.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if kinds is not None and not any(kind.startswith(("sliding", "chunked", "local")) for kind in kinds):
        return None
    names = WINDOWS if getattr(config, "use_sliding_window", True) is not False else WINDOWS[1:]
    return min((size for name in names if isinstance(size := getattr(config, name, None), int)), default=None)


def load_llm(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    quantize: bool = False,
    attention: str = "sdpa",
    read: bool = True,
) -> PreTrainedModel:
    """Load a causal language model of transformers from a directory, without running code from it.

    `quantize`: 4-bit NormalFloat weights by bitsandbytes on `device`, computing in `dtype`.
    `attention`: sdpa, eager or flash_attention_2.
    `read`: False for a process that gets its shards from another: its parameters are on the meta device, where they
    take no memory, and its buffers have their values.
    Raises InputError unless the files hold exactly the tensors of the model, all finite.
    """
    _require_loadable(folder, attention)
    if not read:
        with init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(
                llm_config(folder), dtype=dtype, attn_implementation=attention, trust_remote_code=False
            )
    quiet_transformers()
    if quantize:  # 4 bits hold no NaN: it would become some number
        _require_finite_files(folder)
    loader: Any = AutoModelForCausalLM  # its type hints leave out the result of output_loading_info
    try:
        llm, info = loader.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device} if quantize else None,
            attn_implementation=attention,
            quantization_config=_four_bits(dtype) if quantize else None,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # to name them below
            output_loading_info=True,
        )
    except ImportError as error:
        raise InputError(str(error), folder, "pip install 'batcli[quantize]'" if quantize else None) from None
    except Exception as error:  # of many types, from transformers, safetensors and pickle
        raise InputError(f"cannot be loaded: {type(error).__name__}: {error!s:.200}", folder) from None
    surplus = [key for key in info["unexpected_keys"] if not key.endswith("rotary_emb.inv_freq")]  # old Llamas' buffers
    problems = {"missing": info["missing_keys"], "surplus": surplus, "shape of": info["mismatched_keys"]}
    for problem, keys in problems.items():
        if keys:
            raise InputError(f"{problem}: {', '.join(map(str, sorted(keys)[:5]))} ({len(keys)} in all)", folder)
    if not quantize:
        require_finite(llm.named_parameters(), folder)
    return llm


def require_usable(folder: Path, attention: str) -> None:
    """Raise InputError if a directory can hold no language model with a tokenizer, without loading its weights."""
    _require_loadable(folder, attention)
    load_tokenizer(folder)


def _require_loadable(folder: Path, attention: str) -> None:
    """Raise InputError if config.json describes a model that cannot hear or has no such attention.

    Also if it describes more parameters than the files of weights can hold.
    """
    with torch.device("meta"):
        llm = empty_llm(folder)
    if attention == "sdpa" and not getattr(llm, "_supports_sdpa", True):
        raise InputError(f"{llm.config.model_type} has no sdpa attention", folder, "give --attention eager")
    parameters = sum(parameter.numel() for parameter in llm.parameters())
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in WEIGHTS)
    if parameters > 2 * size:  # 4 bits each
        raise InputError(f"config.json is of {parameters:,} numbers, the weights hold {size:,} bytes", folder)


def _require_finite_files(folder: Path) -> None:
    """Raise InputError for a file of weights, of those that transformers loads, with a number that is not finite."""
    first = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if first is None:
        return  # transformers says what it misses
    names = [first.name]
    if first.suffix == ".json":
        index = read_json(first)
        listed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise InputError("lists no files of weights", first)
        names = sorted(set(listed.values()))
    for path in (require_file(inside(folder, name, first, follow_links=True)) for name in names):
        require_finite(_tensors(path), path)


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file of weights, one at a time."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 -- no mapping
        else:
            yield from torch.load(path, map_location="cpu", weights_only=True).items()
    except InputError:
        raise
    except Exception as error:  # of many types, from safetensors and pickle
        raise InputError(f"cannot be loaded: {type(error).__name__}: {error!s:.200}", path) from None


def require_finite(tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
    """Raise InputError for the first tensor that is not finite."""
    for name, tensor in tensors:
        if not is_finite(tensor):
            raise InputError(f"{name} is not finite", where, "the weights are damaged: get them again")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite, in one pass over the data: `aminmax` propagates NaN."""
    if not tensor.is_floating_point() or tensor.element_size() < 2 or not tensor.numel():  # 8 bits have their scales
        return True
    return bool(torch.stack(tensor.detach().aminmax()).isfinite().all())


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a directory. Raises InputError if there is none, or none with an EOS token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        ids = to_ids(tokenizer, ["?"], ["Yes"])[0]  # many faults of its files show in use only
        to_text(tokenizer, [[*ids[0], padding_id(tokenizer)]] if tokenizer.eos_token_id is not None else [])
    except BaseException as error:
        # A panic in the Rust code of tokenizers is no Exception, and its class has no public name.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"no tokenizer can be loaded: {type(error).__name__}: {error!s:.200}", folder) from None
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end token", folder)
    return tokenizer
