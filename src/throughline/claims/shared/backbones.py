"""Pretrained image encoders by name, for claims about what happens behind one."""

from torch import nn

from throughline.lab import require

__all__ = ["headless"]

HEADS = ("fc", "classifier", "heads", "head")  # where torchvision's models keep their last layer


def headless(name: str) -> nn.Module:
    """A pretrained backbone without its last layer, frozen, in evaluation mode: timm's, or "torchvision:<model>"."""
    source, colon, model_name = name.partition(":")
    model: nn.Module
    if colon and source == "torchvision":
        model = require("torchvision.models", extra="paper").get_model(model_name, weights="DEFAULT")
        head = next(head for head in HEADS if hasattr(model, head))
        setattr(model, head, nn.Identity())
    else:
        model = require("timm", extra="paper").create_model(name, pretrained=True, num_classes=0)
    return model.eval().requires_grad_(False)
