"""
A classifier that cannot forget
===============================

Digits arrive class by class: first all zeros, then all ones, and so on. A linear layer trained by gradient steps on the
same stream forgets what it does not see; the analytic head ends where joint training ends.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from torch import nn

from throughline.continual.analytic import AnalyticHead, RandomExpansion, StreamingLDA

pixels, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
pixels = pixels / 16
split = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
train, test = split[:1300], split[1300:]
train = train[labels[train].argsort(stable=True)]  # sorted by class: the hardest order there is

# %%
# Three learners over the same batches, each seeing every sample once. The gradient learner gets the head's features.

torch.manual_seed(0)
expansion = RandomExpansion(64, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
layer = nn.Linear(400, 10, dtype=torch.float64)
optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
head = AnalyticHead(64, expansion=expansion, penalty=1.0)
lda = StreamingLDA(64, shrinkage=1e-2)


def gradient_step(x, y):
    optimizer.zero_grad()
    nn.functional.cross_entropy(layer(expansion(x)), y).backward()
    optimizer.step()


learners = {
    "gradient steps": (gradient_step, lambda x: layer(expansion(x)).argmax(-1)),
    "streaming LDA": (lda.partial_fit, lda.predict),
    "analytic head": (head.partial_fit, head.predict),
}
curves = {name: [] for name in learners}
seen = []
for rows in train.split(26):
    seen.append(26 * (len(seen) + 1))
    met = torch.isin(labels[test], labels[train[: seen[-1]]])
    for name, (learn, predict) in learners.items():
        learn(pixels[rows], labels[rows])
        curves[name].append((predict(pixels[test[met]]) == labels[test[met]]).double().mean())

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained", width_ratios=(3, 2))
for name, curve in curves.items():
    left.plot(seen, curve, label=name)
left.set(xlabel="samples seen", ylabel="accuracy on the classes seen")
left.legend()
ConfusionMatrixDisplay.from_predictions(
    labels[test], head.predict(pixels[test]), ax=right, colorbar=False, cmap="Blues", text_kw={"fontsize": 7}
)
right.set_title("analytic head, at the end", fontsize=10)

# %%
# Order and batches do not matter: the whole training part at once, shuffled, gives the same weights.

joint = AnalyticHead(64, expansion=expansion, penalty=1.0)
shuffled = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(1))]
joint.partial_fit(pixels[shuffled], labels[shuffled])
streamed = head.weight[:, head.classes.argsort()]
together = joint.weight[:, joint.classes.argsort()]
print(f"relative distance from joint training: {(streamed - together).norm() / together.norm():.1e}")
