"""A finished folder to the Hugging Face Hub: only on request, private unless said otherwise, in one commit.

The login is the stored one (`hf auth login`, or HF_TOKEN in the environment); it is never an argument.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.progress import SILENT, Progress

# What a loader would read: of these, whatever an older commit left beside the new files is deleted with the commit.
_LOADED = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.json", "*.jinja", "*.model",
           "vocab.txt", "merges.txt")  # fmt: skip


def check_push(repo: str) -> None:
    """See, before any work is done, that a push to `repo` could be begun; raises RequestError. No network is used."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
        if "/" not in repo:
            raise HFValidationError("a name alone may be somebody else's")
    except HFValidationError as error:
        raise RequestError(f"{repo!r} is no name of a Hub repository.", "Give it as NAMESPACE/NAME.") from error
    if constants.HF_HUB_OFFLINE:
        raise RequestError(f"HF_HUB_OFFLINE forbids the push to {repo}.", "Unset it, or leave --push-to-hub away.")
    if get_token() is None:
        raise RequestError(f"No login is stored for the push to {repo}.", "Log in first with: hf auth login")


def push_folder(
    folder: Path, repo: str, *, private: bool = True, message: str = "", progress: Progress = SILENT
) -> str:
    """Upload a finished checkpoint folder in one commit and return the commit's address.

    A repository that does not exist is made, private by default; one that is public is refused while `private` is
    asked for. Raises RequestError or TokenAdaptError: an upload that is not whole is never a success.
    """
    check_push(repo)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise RequestError(f"{folder} holds nothing to push.", "Name a finished checkpoint folder.")
    again = f"{folder} is complete and stays; push it again with: hf upload {repo} {folder}" + " --private" * private
    try:
        return _push(folder, files, repo, private, message, progress)
    except TokenAdaptError:
        raise
    except Exception as error:  # the client raises errors of its HTTP library, of its own and of the operating system
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise TokenAdaptError(f"The push of {folder} to {repo} failed ({reason}).", again + ".") from error


def _push(folder: Path, files: list[Path], repo: str, private: bool, message: str, progress: Progress) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    try:
        info = api.model_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private)
        held: list[str] = []
    else:
        if private and not info.private:
            raise RequestError(
                f"The repository {repo} is public.", "Ask for a public push, or name another repository."
            )
        held = [sibling.rfilename for sibling in info.siblings or []]
    new = {path.relative_to(folder).as_posix(): path for path in files}
    stale = [name for name in held if "/" not in name and name not in new and _is_loaded(name)]
    operations = [CommitOperationAdd(name, path) for name, path in new.items()]
    total = sum(path.stat().st_size for path in files)
    with progress.stage(f"push to {repo}", total, "bytes") as advance:
        commit = api.create_commit(
            repo,
            [*operations, *(CommitOperationDelete(name) for name in stale)],
            commit_message=message or "Upload checkpoint",
        )
        advance(total)
    return str(commit.commit_url)


def _is_loaded(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _LOADED)
