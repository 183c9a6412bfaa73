"""Exported folders on the Hugging Face hub, when a person asks for it; nothing else of the lab writes there.

push(Path("results"), "me/results")     # a repository of its own, private where it is made
pull("me/results", Path("results"))     # a new folder, compared with its manifest
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from mechsub import files
from mechsub.lab import manifest

KINDS = ("dataset", "model")  # of repositories
_PARTS = ["cells/*", "tables/*", "figures/*", "report/*"]
_MADE_BY_THE_HUB = {".gitattributes"}


def named(repository: str) -> str:
    """The repository, where it is an OWNER/NAME that the hub can have. Raises ValueError."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    with contextlib.suppress(HFValidationError):
        validate_repo_id(repository)
        if "/" in repository:
            return repository
    raise ValueError(f"{repository!r} is no OWNER/NAME of a repository")


class Refused(RuntimeError):
    """The hub refused; the message is one line with the reason."""


def push(folder: Path, repository: str, kind: str = "dataset", public: bool = False) -> str:
    """Send a folder to a repository; returns the commit. An existing repository keeps its visibility.

    A repository that holds anything but such a folder is refused, and stays as it is.
    """
    from huggingface_hub import HfApi

    named(repository)
    manifest.checked(folder)
    with _one_line(repository, kind):
        api = HfApi()
        api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        there = set(api.list_repo_files(repository, repo_type=kind)) - _MADE_BY_THE_HUB
        if there and manifest.NAME not in there:
            raise Refused(f"{repository} holds other files, as {min(there)}; give a repository of its own")
        done = api.upload_folder(
            repo_id=repository, repo_type=kind, folder_path=folder, delete_patterns=_PARTS,
            commit_message="Results of mechsub",
        )  # fmt: skip
    return done.oid


def pull(repository: str, path: Path, kind: str = "dataset", revision: str | None = None) -> str:
    """Fetch such a folder; returns its commit. Raises Refused, FileExistsError, and manifest.Wrong."""
    from huggingface_hub import HfApi, snapshot_download

    named(repository)
    with files.new_folder(path) as fresh:
        with _one_line(repository, kind, revision):
            commit = HfApi().repo_info(repository, repo_type=kind, revision=revision).sha or revision
            snapshot_download(
                repository, repo_type=kind, revision=commit, local_dir=fresh,
                allow_patterns=[manifest.NAME, "README.md", *_PARTS],
            )  # fmt: skip
        shutil.rmtree(fresh / ".cache", ignore_errors=True)  # the hub's own notes
        try:
            manifest.checked(fresh)
        except manifest.Wrong as error:
            raise manifest.Wrong(str(error).replace(str(fresh), repository)) from None
    return str(commit)


@contextlib.contextmanager
def _one_line(repository: str, kind: str, revision: str | None = None) -> Iterator[None]:
    """An error of the hub's library as one line that says what to do."""
    from huggingface_hub import errors, is_offline_mode

    try:
        yield
    except Refused:
        raise
    except errors.RevisionNotFoundError:
        raise Refused(f"{repository} has no revision {revision!r}; choose a branch, tag or commit of it") from None
    except errors.RepositoryNotFoundError:
        raise Refused(f"no {kind} {repository!r} on the hub (misspelt, or private: `hf auth login`)") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "")
        advice = "; `hf auth login` with a token that may do so" if status in (401, 403) else ""
        raise Refused(f"the hub refuses {repository} ({status} {type(error).__name__}){advice}") from None
    except Exception as error:  # offline, unreachable, proxy: many classes, one remedy
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else f"the hub cannot be reached: {type(error).__name__}"
        raise Refused(f"{repository}: {why}") from None
