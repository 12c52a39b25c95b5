"""Language models: a Llama with random weights, or a Hugging Face directory, with LoRA; and their tokenizers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from accelerate import init_empty_weights
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
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
from batcli.core.files import require_directory, require_file
from batcli.model.config import MAX_LAYERS, LlmConfig, LoraConfig
from batcli.model.tokens import padding_id, to_ids, to_text

WEIGHTS = (".safetensors", ".bin")  # suffixes


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
    require_file(require_directory(folder) / "config.json", "give a Hugging Face model directory")
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
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"not a causal language model: {error!s:.200}", folder) from None


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
    Raises InputError unless the files hold exactly the tensors of the model.
    """
    if not read:
        with init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(
                llm_config(folder), dtype=dtype, attn_implementation=attention, trust_remote_code=False
            )
    _require_weights(folder)
    quiet_transformers()
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
    return llm


def _require_weights(folder: Path) -> None:
    """Raise InputError if config.json describes more parameters than the files of weights can hold."""
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in empty_llm(folder).parameters())
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in WEIGHTS)
    if parameters > 2 * size:  # 4 bits each
        raise InputError(f"config.json is of {parameters:,} numbers, the weights hold {size:,} bytes", folder)


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
