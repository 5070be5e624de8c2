"""Small pointer networks whose weights do not depend on the global generator, and a loop of LSTM cells beside them."""

import torch
from torch import Tensor, nn

from throughline.discrete.pointer import PAD, STOP, PointerNetwork


def network(hidden: int = 8, seed: int = 0, scale: float = 0.8, input_dim: int = 2) -> PointerNetwork:
    net = PointerNetwork(input_dim, hidden, init_range=scale).double()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=draw, dtype=torch.float64) * 2 - 1) * scale)
    return net


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cell_of(lstm: nn.LSTM) -> nn.LSTMCell:
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    return cell


def looped(net: PointerNetwork, points: Tensor, target: list[int]) -> Tensor:
    """Logits ``(m, n + 1)`` of one instance, cell by cell and pair by pair."""
    encoder, decoder, pointer = cell_of(net.encoder), cell_of(net.decoder), net.pointer
    h = c = torch.zeros(1, net.encoder.hidden_size, dtype=points.dtype)
    memory = []
    for point in points:
        h, c = encoder(point[None], (h, c))
        memory.append(h[0])
    memory.append(net.end)
    rows = []
    for step in range(len(target)):
        last = net.start if step == 0 else points[max(target[step - 1], 0)]
        h, c = decoder(last[None], (h, c))
        scores = [
            pointer.score.weight[0] @ torch.tanh(pointer.key.weight @ e + pointer.query.weight @ h[0]) for e in memory
        ]
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def ended(sequences: Tensor) -> Tensor:
    """Decoded sequences as targets."""
    wide = torch.cat([sequences, torch.full((len(sequences), 1), PAD)], 1)
    return wide.scatter(1, (sequences != PAD).sum(-1, keepdim=True), STOP)
