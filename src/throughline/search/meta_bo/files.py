"""A policy as one safetensors file that knows how it was made."""

import json
import os

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from throughline.search.meta_bo.process import NeuralAcquisitionProcess, plain_policy

__all__ = ["load_policy", "save_policy"]

KEY = "neural acquisition process"


def save_policy(policy: NeuralAcquisitionProcess, path: str | os.PathLike[str]) -> None:
    """Write a policy with its constructor's arguments as one safetensors file, for `load_policy`.

    The tensors are those of ``policy.state_dict()``, so that ``safetensors.torch.load_model`` reads the file, too. Of
    "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (arXiv 2305.15930).

    Args:
        policy: any; of a compiled, averaged or data-parallel one what is inside.
        path: of the file; an existing one is replaced.
    """
    policy = plain_policy(policy)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
    save_file(tensors, os.fspath(path), metadata={KEY: json.dumps(policy.options)})


def load_policy(path: str | os.PathLike[str]) -> NeuralAcquisitionProcess:
    """The policy that `save_policy` wrote, on the CPU, in its dtype and in evaluation mode.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or was not written by `save_policy`.

    >>> import tempfile
    >>> file = tempfile.mkdtemp() + "/policy.safetensors"
    >>> save_policy(NeuralAcquisitionProcess(3, d_model=8, num_layers=1, num_bars=10), file)
    >>> load_policy(file).options["num_bars"]
    10
    """
    try:
        with safe_open(os.fspath(path), "pt") as file:
            options = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if options is None:
            raise ValueError(f"{path} does not say how its policy was made; save_policy writes files that do")
        policy = NeuralAcquisitionProcess(**json.loads(options))
        policy.load_state_dict(tensors, assign=True)
    except (SafetensorError, RuntimeError, TypeError) as error:
        cause = " ".join(str(error).split())
        raise ValueError(f"{path} is no policy that save_policy wrote, or is damaged: {cause}") from error
    return policy.eval()
