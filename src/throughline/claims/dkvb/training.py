"""The arms of the bottleneck's claim: their heads, and how these are trained."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.dkvb.config import Config
from throughline.claims.dkvb.data import Split
from throughline.claims.shared.convnets import mlp
from throughline.discrete.key_value import CodebookVote, KeyValueBottleneck

__all__ = ["learner", "standardized", "step", "usage"]


def learner(arm: str, config: Config, split: Split, draw: torch.Generator) -> tuple[nn.Module, float]:
    """The head of an arm and its learning rate."""
    width, classes = split.x.shape[1], int(split.y.max()) + 1
    rates = {
        "linear_probe": config.linear_lr,
        "mlp": config.mlp_lr,
        "iid_linear_probe": config.iid_linear_lr,
        "linear_probe_standardized": config.standardized_linear_lr,
        "mlp_standardized": config.standardized_mlp_lr,
    }
    if "linear_probe" in arm:
        return nn.Linear(width, classes), rates[arm]
    if "mlp" in arm:
        return mlp(width, config.hidden, classes), rates[arm]
    bottleneck = KeyValueBottleneck(
        width,
        classes,
        num_codebooks=config.codebooks,
        num_pairs=config.pairs,
        dim_key=config.dim_key,
        generator=draw,
    ).to(config.device)
    unlabelled = split.x if arm == "bottleneck_own_keys" else split.keys
    order = torch.randperm(len(unlabelled), generator=draw).to(unlabelled.device)
    bottleneck.fit_keys(torch.split(unlabelled[order], config.batch), epochs=config.key_epochs, generator=draw)
    return nn.Sequential(bottleneck, CodebookVote()), config.lr


def standardized(split: Split) -> Split:
    """Embeddings shifted and scaled by the unlabelled ones of the other source, all that is known ahead of a stream."""
    std, mean = torch.std_mean(split.keys, 0)
    x, test_x, keys = ((part - mean) / std.clamp_min(1e-6) for part in (split.x, split.test_x, split.keys))
    return split._replace(x=x, test_x=test_x, keys=keys)


def step(head: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, config: Config) -> None:
    head.train()
    loss = F.cross_entropy(head(x), y, label_smoothing=config.smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(head.parameters(), config.clip)
    optimizer.step()


def usage(head: nn.Module) -> Tensor:
    """How often each pair was fetched in training so far, ``(C, K)``; empty for a head without pairs."""
    found = [module.usage for module in head.modules() if isinstance(module, KeyValueBottleneck)]
    return found[0].cpu().clone() if found else torch.zeros(0)
