"""
Bilevel learning that survives explosions
=========================================

Weights of training samples, learned so that a model fitted with them does well on a few clean ones; and a recurrent
encoder whose hypergradient explodes, under plain steps and under steps of one length.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits, load_wine
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from throughline.search.bilevel import BOREP

# %%
# Hyper-cleaning of digits: two in five of 1,000 training labels are wrong, 300 labels are known to be right. The upper
# variable is one number for each training image, the lower one a linear classifier. Every step draws 200 of the images.

pixels, digits = load_digits(return_X_y=True)
images, truth = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
torch.manual_seed(0)
train, clean, test = torch.randperm(len(images)).split([1_000, 300, 497])
wrong = torch.rand(1_000) < 0.4
labels = torch.where(wrong, (truth[train] + torch.randint(1, 10, (1_000,))) % 10, truth[train])


def fit(x, y, rows):
    losses = F.cross_entropy(images[train[rows]] @ y["w"] + y["b"], labels[rows], reduction="none")
    return (x["trust"][rows].sigmoid() * losses).mean() + 1e-3 * y["w"].square().sum()


def check(x, y, rows):
    return F.cross_entropy(images[clean] @ y["w"] + y["b"], truth[clean])


def some():
    while True:
        yield torch.randperm(1_000)[:200]


def accuracy(y):
    return ((images[test] @ y["w"] + y["b"]).argmax(1) == truth[test]).double().mean()


trust, model = {"trust": torch.zeros(1_000)}, {"w": torch.zeros(64, 10), "b": torch.zeros(10)}
optimizer = BOREP(check, fit, trust, model, lr=1.0, lower_lr=0.5, adjoint_lr=0.5, lower_steps=4)
optimizer.refine(some(), steps=300)
before = accuracy(model)
for _ in range(800):
    optimizer.step(some(), some())

figure = plt.figure(figsize=(9.5, 3.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
axis = left.subplots()
weights = trust["trust"]
axis.hist(
    [weights[~wrong].numpy(), weights[wrong].numpy()],
    bins=30,
    label=["label right", "label wrong"],
    color=["tab:green", "tab:red"],
    histtype="stepfilled",
    alpha=0.6,
)
axis.set(xlabel="log-odds of the learned weight of a training image", ylabel="images")
axis.set_title(f"test accuracy {before:.0%} with equal weights, {accuracy(model):.0%} with these")
axis.legend()
right.suptitle("least trusted of all: label given (label right)")
for axis, row in zip(right.subplots(2, 5).flat, weights.argsort()[:10], strict=True):
    axis.imshow(images[train[row]].view(8, 8).numpy(), cmap="gray_r")
    axis.set_title(f"{labels[row]} ({truth[train[row]]})", fontsize=9)
    axis.set_axis_off()

# %%
# A recurrent encoder of characters whose recurrent matrix is orthogonal times 2.5, over a linear head. At first the
# hypergradient is a hundred times longer than it will be. Plain steps of a size that suits the long rest leap there,
# and the encoder that they leave learns slowly; steps of one length do not. Both draw equally many batches.

text = load_wine().DESCR
alphabet = sorted(set(text))
tokens = torch.tensor([alphabet.index(letter) for letter in text])
windows = tokens.unfold(0, 25, 1)


def course(**options):
    torch.manual_seed(0)
    embedding, encoder, head = (
        nn.Embedding(len(alphabet), 16),
        nn.RNN(16, 48, batch_first=True),
        nn.Linear(48, len(alphabet)),
    )
    nn.init.orthogonal_(encoder.weight_hh_l0, 2.5)
    both = nn.ModuleDict({"embedding": embedding, "encoder": encoder})

    def upper(x, y, rows):
        inner = {name.removeprefix("encoder."): p for name, p in x.items() if name.startswith("encoder.")}
        states, _ = functional_call(encoder, inner, (x["embedding.weight"][rows[:, :-1]],))
        return F.cross_entropy(functional_call(head, y, (states,)).flatten(0, 1), rows[:, 1:].flatten())

    def lower(x, y, rows):
        return upper(x, y, rows) + 5e-5 * sum(p.square().sum() for p in y.values())

    def batches():
        while True:
            yield windows[torch.randint(len(windows), (16,))]

    parameters = (dict(module.named_parameters()) for module in (both, head))
    optimizer = BOREP(upper, lower, *parameters, lower_lr=0.1, adjoint_lr=0.1, **options)
    optimizer.refine(batches(), steps=60)
    infos = [optimizer.step(batches(), batches()) for _ in range(250)]
    return [torch.stack([getattr(info, name) for info in infos]) for name in ("upper_loss", "hypergradient_norm")]


figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
arms = {
    "plain steps (MA-SOBA)": ("0.55", {"lr": 1.0, "normalize": False, "period": 1, "lower_steps": 1}),
    "steps of one length (BO-REP)": ("tab:orange", {"lr": 0.4, "period": 2, "lower_steps": 2}),
}
for name, (color, options) in arms.items():
    losses, norms = course(**options)
    axes[0].plot(F.avg_pool1d(losses[None], 15, stride=1)[0].numpy(), color=color, label=name)
    axes[1].plot(norms.numpy(), color=color, linewidth=0.9)
axes[0].set(xlabel="step", ylabel="validation loss, mean of 15 steps")
axes[1].set(xlabel="step", ylabel="norm of the hypergradient", yscale="log")
axes[0].legend()
plt.show()
