"""`st:ID`: a model of sentence-transformers with all its modules; an extra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.locate import is_hub_id, locate
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.cache import VectorCache
from tokenadapt.spaces.options import Matrix, SpaceOptions, unit
from tokenadapt.spaces.stored import Input, StoredVectors
from tokenadapt.spaces.transformer import CPU_BATCH, GPU_BATCH, content_of, pick_device, precision

BYTES_PER_TOKEN: Final = 3  # about what a string of a vocabulary costs; lengths are counted in bytes here


class SentenceEncoder:
    """Strings to vectors by the library itself; the cache is addressed by text."""

    def __init__(self, spec: str, options: SpaceOptions, progress: Progress = SILENT) -> None:
        try:
            import sentence_transformers
        except ImportError:
            raise MissingExtraError(f"The space st:{spec}", "sentence-transformers", "st") from None
        if options.pooling != "auto":
            raise RequestError("st: pools as the model says, so pooling cannot be chosen.", f"Use hf:{spec} for that.")
        folder = locate(spec, "model", revision=options.revision)
        device = pick_device(options)
        dtype = precision(options, device)
        trust = options.trust_remote_code
        try:
            self.model: Any = sentence_transformers.SentenceTransformer(
                spec if trust and is_hub_id(spec) else str(folder),
                device=str(device),
                trust_remote_code=trust,
                revision=options.revision,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise RequestError(
                f"sentence-transformers cannot load {spec} ({' '.join(str(error).split())[:200]}).",
                "It needs a model in its own layout with weights in safetensors.",
            ) from error
        prompts = self.model.prompts or {}
        default = prompts.get(self.model.default_prompt_name or "", "")
        self.prompt = default if options.prefix is None else str(prompts.get(options.prefix, options.prefix))
        identity = {
            "library": "sentence-transformers",
            "content": content_of(folder),
            "prefix": self.prompt,
            "precision": str(dtype).removeprefix("torch."),
        }
        batch = options.batch_tokens or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)
        title = f"st:{spec}"
        self.stored = StoredVectors(
            VectorCache(title, identity), self.encode, batch * BYTES_PER_TOKEN, name=title, progress=progress
        )

    def prefetch(self, texts: Sequence[str]) -> None:
        """Encode what the cache lacks."""
        self.stored.prefetch([text.encode() for text in texts])

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors: (len(texts), d)."""
        return self.stored.rows([text.encode() for text in texts])

    def encode(self, inputs: list[Input]) -> Matrix:
        """Vectors of one batch of texts."""
        texts = [bytes(entry).decode() for entry in inputs]
        made = self.model.encode(
            texts, prompt=self.prompt, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True
        )
        return unit(made)
