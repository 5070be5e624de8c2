"""
Gradients through discrete steps
================================

A hidden layer of zeros and ones that is trained by gradient, and what straight-through estimates of a random choice are
worth beside those of rewards.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from throughline.core.relaxation import straight_through, straight_through_categorical

# %%
# Scikit-learn's digits, through a code of 6 bits. One network rounds its code from the start, and its gradient takes
# the step for the identity; the other trains smooth sigmoids. Both are tested with a code that is rounded.

pixels, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32) / 8 - 1, torch.tensor(labels)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, test = order[:1200], order[1200:]


def accuracies(rounded):
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(64, 6), nn.Linear(6, 10)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-2)
    found = []
    for _ in range(40):
        for rows in train.split(100):
            code = encoder(images[rows]).sigmoid()
            code = straight_through(torch.round, code) if rounded else code
            optimizer.zero_grad()
            F.cross_entropy(decoder(code), labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            right = decoder(encoder(images[test]).sigmoid().round()).argmax(1) == labels[test]
        found.append(right.float().mean().item())
    return found


figure, axis = plt.subplots(figsize=(6.4, 3), layout="constrained")
for rounded, label in ((True, "rounded from the start"), (False, "rounded for the test alone")):
    axis.plot(range(1, 41), accuracies(rounded), label=label)
axis.set(xlabel="epoch", ylabel="test accuracy of 6 bits")
axis.legend()

# %%
# One of four options is drawn, and the loss is (⟨values, one-hot⟩ - 1)². The derivative of its mean is known from all
# four. Estimates from a single draw, their mean and deviation: those of rewards are right on average and scatter
# widely; straight-through ones scatter less, and are off where the loss is curved.

logits, values = torch.tensor([0.5, 0.0, -0.5, 0.2], requires_grad=True), torch.tensor([0.2, 0.9, 2.0, -0.6])


def loss(hot):
    return (hot @ values - 1).square()


(exact,) = torch.autograd.grad(logits.softmax(0) @ loss(torch.eye(4)), logits)
draws = torch.multinomial(logits.detach().softmax(0), 400, replacement=True, generator=torch.Generator().manual_seed(0))
straight, rewarded = [], []
for index in draws.tolist():
    straight += torch.autograd.grad(loss(straight_through_categorical(logits, index)), logits)
    rewarded += torch.autograd.grad(loss(torch.eye(4)[index]) * logits.log_softmax(0)[index], logits)

figure, axis = plt.subplots(figsize=(6.4, 3), layout="constrained")
for offset, label, estimates in ((-0.15, "straight-through", straight), (0.15, "rewards", rewarded)):
    found = torch.stack(estimates)
    axis.errorbar(torch.arange(4) + offset, found.mean(0), found.std(0), fmt="o", capsize=4, label=label)
axis.hlines(exact, torch.arange(4) - 0.25, torch.arange(4) + 0.25, color="black", label="exact")
axis.set(xticks=range(4), xlabel="option", ylabel="derivative by its logit")
axis.legend()
plt.show()
